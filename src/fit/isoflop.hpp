// The compute-optimal frontier from families of runs at equal compute (isoFLOP, arXiv 2203.15556, approach 2).
//
//   std::vector<RunPoint> points = {{.N = 44e6, .D = 3.8e9, .C = 1e18, .loss = 3.61}, ...};
//   IsoFlop iso = isoflop(points);                         // groups, vertices, lines N*(C) and D*(C)
//   std::optional<IsoFlopBias> bias = isoflop_bias(points, iso, law, cost);
//
// Groups     Runs whose C differ by at most kEqualCompute; a group's C is their geometric mean.
// Vertex     Of a least-squares parabola of the loss in ln N through at least three sizes. It must lie between the smallest
//            and the largest of them, else the group is left out with its reason. D* is read at N* from the straight line
//            of ln D in ln N of the group.
// Exponents  Straight lines of ln N* and ln D* in ln C through the vertices of at least two groups.
// Bias       A valley of A N^-alpha + B D^-beta is steeper on one side, so where alpha and beta differ the vertex of a
//            parabola is off by a factor that depends on the sizes of the group (arXiv 2603.22339). Sizes that lie alike around
//            the optimum in all groups shift all vertices by one factor: N* is biased, its exponent is not. Sizes that drift
//            bias the exponent, too. isoflop_bias() puts the losses of a law, without noise, at the same N and D and
//            compares their vertices with the law's own optimum.
// Intervals  Every loss is drawn anew around its parabola with the noise of one run, pooled over repeated runs of one size
//            and group, else over what the parabolas leave over; vertices and lines are taken again.
// Errors     UserError: a value that is not finite and positive.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fit/frontier.hpp"

namespace varscale::fit {

inline constexpr double kEqualCompute = 0.01;  // relative difference within a group

struct RunPoint {
  double N = 0, D = 0, C = 0, loss = 0;
};

struct Parabola {
  double centre = 0;                           // mean of ln N
  double constant = 0, linear = 0, square = 0; // of t = ln N - centre
  double at(double N) const;
  double vertex() const;  // as N; of an upward one
};

struct IsoFlopGroup {
  double C = 0;
  std::vector<size_t> points;  // by rising N
  int64_t sizes = 0;
  std::optional<Parabola> parabola;  // from three sizes on
  Optimum vertex;                    // where not left out
  std::string left_out;              // empty, or why
};

struct IsoFlop {
  std::vector<IsoFlopGroup> groups;  // by rising C; those of one or two sizes, too
  std::optional<PowerLine> N, D;     // against C; nothing below two vertices
  int64_t vertices() const;
};

IsoFlop isoflop(std::span<const RunPoint> points);

struct IsoFlopBias {
  std::vector<double> C, factors;  // of the groups compared: the parabola's N* over the law's
  double n_factor = 1;             // their geometric mean
  double a_shift = 0, b_shift = 0; // of the exponents of N* and D*
};

// Over the groups that have a vertex here and in the losses of the law; nothing where they are fewer than two. `law` is
// a chinchilla that has a frontier.
std::optional<IsoFlopBias> isoflop_bias(std::span<const RunPoint> points, const IsoFlop& iso, const SurfaceLaw& law,
                                        const ComputeCost& cost);

// Nothing where there are no exponents, nothing tells the noise, or 1,000 draws in a row have none.
std::optional<ExponentIntervals> bootstrap_isoflop(std::span<const RunPoint> points, const IsoFlop& iso,
                                                   const BootstrapOptions& options);

}  // namespace varscale::fit
