// The best rate of a grid: the vertex of a parabola of y in ln x.
//
//   std::vector<Observation> losses = {{1e-4, 4.412}, {2e-4, 4.401}, {4e-4, 4.409}};  // rate, loss
//   Vertex best = vertex_of(losses);        // best.x, best.y; best.at_edge: the grid does not enclose it
//   double error = best.read(errors);       // what another value has at that rate
//
// Observations at one x are averaged. The parabola goes through the lowest mean and its two neighbours in x
// (least squares on three points, which is exact), so its vertex lies between them. Where the lowest mean is the
// first or the last there is no vertex inside: the best is that point, and at_edge says so.
//
// Errors   UserError: fewer than three distinct x, a value that is not finite, an x that is not positive.
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "fit/bootstrap.hpp"
#include "fit/power_law.hpp"

namespace varscale::fit {

struct Vertex {
  double x = 0, y = 0;
  bool at_edge = false;
  std::array<double, 3> at{}, weight{};  // y is the sum of weight times the mean at these x

  // The same sum of another grid's means. It must have these x.
  double read(std::span<const Observation> grid) const;
};

Vertex vertex_of(std::span<const Observation> grid);

// The spread of one run of some grids: pooled over x with repeated seeds; where there are none, what parabolas
// through all of a grid leave over, of grids with more than three x. Nothing where neither tells anything.
std::optional<Noise> grid_noise(std::span<const std::vector<Observation>> grids);

// How vertices deviate when every run of their grids is drawn anew around its value with the noise of one run:
// for bootstrap_fit and predict. `read`: of values that are read at the given vertices, which then stay.
Redraw redraw_vertices(std::vector<std::vector<Observation>> grids, const Noise& noise);
Redraw redraw_read(std::vector<std::vector<Observation>> grids, std::vector<Vertex> vertices, const Noise& noise);

}  // namespace varscale::fit
