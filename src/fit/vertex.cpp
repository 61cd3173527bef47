#include "fit/vertex.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::fit {
namespace {

// Where the draws of a grid's runs begin in a resample's stream, behind those of bootstrap.cpp.
constexpr uint64_t kFirstGrid = 1 << 23;
constexpr uint64_t kMostRuns = 4096;  // of one grid

std::map<double, double> means_of(std::span<const Observation> grid) {
  std::map<double, std::pair<double, int64_t>> sums;
  for (const Observation& p : grid) sums[p.x].first += p.y, ++sums[p.x].second;
  std::map<double, double> means;
  for (const auto& [x, sum] : sums) means[x] = sum.first / static_cast<double>(sum.second);
  return means;
}

std::vector<Observation> drawn_anew(std::span<const Observation> grid, size_t number, double sd,
                                    const base::RandomStream& random) {
  VARSCALE_CHECK(grid.size() < kMostRuns, "a grid of {} runs", grid.size());
  std::vector<Observation> drawn(grid.begin(), grid.end());
  for (size_t i = 0; i < drawn.size(); ++i)
    drawn[i].y += sd * random.normal(kFirstGrid + number * kMostRuns + i);
  return drawn;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

void subtract(std::vector<double>& from, double times, const std::vector<double>& what) {
  for (size_t i = 0; i < from.size(); ++i) from[i] -= times * what[i];
}

// Sum of squares about the least-squares parabola in ln x: what is left of y without its parts along 1, u and u^2,
// made orthogonal one after the other.
double left_over(std::span<const Observation> grid) {
  std::vector<double> u, y;
  for (const Observation& p : grid) u.push_back(std::log(p.x / grid.front().x)), y.push_back(p.y);
  std::vector<std::vector<double>> basis;
  for (int power = 0; power <= 2; ++power) {
    std::vector<double> next;
    for (const double each : u) next.push_back(std::pow(each, power));
    for (const std::vector<double>& before : basis) subtract(next, dot(next, before) / dot(before, before), before);
    subtract(y, dot(y, next) / dot(next, next), next);
    basis.push_back(std::move(next));
  }
  return dot(y, y);
}

}  // namespace

double Vertex::read(std::span<const Observation> grid) const {
  const std::map<double, double> means = means_of(grid);
  double sum = 0;
  for (size_t k = 0; k < at.size(); ++k)
    if (weight[k] != 0) sum += weight[k] * means.at(at[k]);
  return sum;
}

Vertex vertex_of(std::span<const Observation> grid) {
  for (const Observation& p : grid)
    if (!std::isfinite(p.y) || !std::isfinite(p.x) || !(p.x > 0))
      throw base::UserError("a point at x = {:g} with y = {:g}; expected finite numbers, x positive", p.x, p.y);
  const std::map<double, double> means = means_of(grid);
  if (means.size() < 3)
    throw base::UserError("{} distinct values; a parabola needs three", means.size());
  const auto lowest = std::min_element(means.begin(), means.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
  Vertex vertex{.x = lowest->first, .y = lowest->second};
  if (lowest == means.begin() || std::next(lowest) == means.end()) {
    vertex.at_edge = true;
    vertex.at.fill(lowest->first);
    vertex.weight = {1, 0, 0};
    return vertex;
  }
  const auto before = std::prev(lowest), after = std::next(lowest);
  vertex.at = {before->first, lowest->first, after->first};
  // With u = ln x - ln of the lowest and d = y - its y: d = a u + b u^2 through the neighbours. The lowest comes
  // first among equals, so the left one is above it and b is positive.
  const double left = std::log(vertex.at[0] / vertex.at[1]), right = std::log(vertex.at[2] / vertex.at[1]);
  const double rise_left = (before->second - lowest->second) / left, rise_right = (after->second - lowest->second) / right;
  const double b = (rise_right - rise_left) / (right - left), a = rise_left - b * left;
  const double u = -a / (2 * b);
  vertex.x = vertex.at[1] * std::exp(u);
  vertex.weight = {u * (u - right) / (left * (left - right)), (u - left) * (u - right) / (left * right),
                   u * (u - left) / (right * (right - left))};
  vertex.y = vertex.read(grid);
  return vertex;
}

std::optional<Noise> grid_noise(std::span<const std::vector<Observation>> grids) {
  double of_seeds = 0, of_parabolas = 0;
  int64_t seeds = 0, spare = 0;
  for (const std::vector<Observation>& grid : grids) {
    if (const auto noise = seed_noise(grid)) {
      of_seeds += noise->sd * noise->sd * static_cast<double>(noise->degrees_of_freedom);
      seeds += noise->degrees_of_freedom;
    }
    const auto free = static_cast<int64_t>(grid.size()) - 3;
    if (distinct_sizes(grid).size() > 3) of_parabolas += left_over(grid), spare += free;
  }
  if (seeds > 0)
    return Noise{std::sqrt(of_seeds / static_cast<double>(seeds)), seeds, "repeated seeds"};
  if (spare > 0)
    return Noise{std::sqrt(of_parabolas / static_cast<double>(spare)), spare, "parabolas of the rates"};
  return std::nullopt;
}

Redraw redraw_vertices(std::vector<std::vector<Observation>> grids, const Noise& noise) {
  return {noise, [grids = std::move(grids)](size_t i, double sd, const base::RandomStream& random) {
            return vertex_of(drawn_anew(grids.at(i), i, sd, random)).y - vertex_of(grids[i]).y;
          }};
}

Redraw redraw_read(std::vector<std::vector<Observation>> grids, std::vector<Vertex> vertices, const Noise& noise) {
  return {noise, [grids = std::move(grids), vertices = std::move(vertices)](size_t i, double sd,
                                                                            const base::RandomStream& random) {
            return vertices.at(i).read(drawn_anew(grids.at(i), i, sd, random)) - vertices[i].read(grids[i]);
          }};
}

}  // namespace varscale::fit
