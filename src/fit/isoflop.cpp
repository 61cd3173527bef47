#include "fit/isoflop.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/error.hpp"
#include "fit/terms/exponents.hpp"

namespace varscale::fit {
namespace {

constexpr int64_t kSizesForParabola = 3;
constexpr int64_t kVerticesForLine = 2;

void check(std::span<const RunPoint> points) {
  for (const RunPoint& p : points)
    for (const double value : {p.N, p.D, p.C, p.loss})
      if (!std::isfinite(value) || !(value > 0))
        throw base::UserError("a run with N = {:g}, D = {:g}, C = {:g} and loss {:g}; expected finite positive numbers", p.N,
                              p.D, p.C, p.loss);
}

std::vector<IsoFlopGroup> groups_of(std::span<const RunPoint> points) {
  std::vector<size_t> order(points.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return points[i].C; });
  std::vector<IsoFlopGroup> groups;
  double first = 0;
  for (const size_t i : order) {
    if (groups.empty() || points[i].C > first * (1 + kEqualCompute)) {
      groups.emplace_back();
      first = points[i].C;
    }
    groups.back().points.push_back(i);
  }
  for (IsoFlopGroup& group : groups) {
    std::ranges::stable_sort(group.points, {}, [&](size_t i) { return points[i].N; });
    std::set<double> sizes;
    double log_c = 0;
    for (const size_t i : group.points) {
      sizes.insert(points[i].N);
      log_c += std::log(points[i].C) / static_cast<double>(group.points.size());
    }
    group.C = std::exp(log_c);
    group.sizes = static_cast<int64_t>(sizes.size());
  }
  return groups;
}

// Least squares, by polynomials that are orthogonal over the points.
Parabola parabola_of(std::span<const double> log_n, std::span<const double> losses) {
  const double count = static_cast<double>(log_n.size());
  Parabola p;
  double mean = 0, t2 = 0, t3 = 0;
  for (size_t i = 0; i < log_n.size(); ++i) p.centre += log_n[i] / count, mean += losses[i] / count;
  for (const double x : log_n) {
    const double t = x - p.centre;
    t2 += t * t, t3 += t * t * t;
  }
  const double skew = t3 / t2, spread = t2 / count;  // the second polynomial is t^2 - skew t - spread
  double first = 0, second = 0, norm = 0;
  for (size_t i = 0; i < log_n.size(); ++i) {
    const double t = log_n[i] - p.centre, q = t * t - skew * t - spread;
    first += t * losses[i], second += q * losses[i], norm += q * q;
  }
  p.square = second / norm;
  p.linear = first / t2 - p.square * skew;
  p.constant = mean - p.square * spread;
  return p;
}

// Parabola, vertex or reason of a group whose points have these losses.
void place_vertex(IsoFlopGroup& group, std::span<const RunPoint> points, std::span<const double> losses) {
  group.parabola.reset();
  group.vertex = {};
  group.left_out.clear();
  if (group.sizes < kSizesForParabola) {
    group.left_out = fmt::format("{} size{}; a parabola needs {}", group.sizes, group.sizes == 1 ? "" : "s", kSizesForParabola);
    return;
  }
  std::vector<double> log_n, of_group, n, d;
  for (const size_t i : group.points) {
    n.push_back(points[i].N), d.push_back(points[i].D);
    log_n.push_back(std::log(points[i].N)), of_group.push_back(losses[i]);
  }
  group.parabola = parabola_of(log_n, of_group);
  if (!(group.parabola->square > 0)) {
    group.left_out = "the parabola bends downwards";
    return;
  }
  const double at = group.parabola->vertex();
  if (at < n.front() || at > n.back()) {
    group.left_out = fmt::format("the vertex lies beyond the {} size", at < n.front() ? "smallest" : "largest");
    return;
  }
  group.vertex = {at, fit_power_line(n, d)->at(at), group.parabola->at(at)};
}

void place_lines(IsoFlop& iso) {
  iso.N.reset(), iso.D.reset();
  std::vector<double> c, n, d;
  for (const IsoFlopGroup& group : iso.groups) {
    if (!group.left_out.empty()) continue;
    c.push_back(group.C), n.push_back(group.vertex.N), d.push_back(group.vertex.D);
  }
  if (static_cast<int64_t>(c.size()) < kVerticesForLine) return;
  iso.N = fit_power_line(c, n), iso.D = fit_power_line(c, d);
}

void place_all(IsoFlop& iso, std::span<const RunPoint> points, std::span<const double> losses) {
  for (IsoFlopGroup& group : iso.groups) place_vertex(group, points, losses);
  place_lines(iso);
}

std::optional<Noise> noise_of(std::span<const RunPoint> points, const IsoFlop& iso) {
  std::vector<Observation> repeats;
  double number = 0;  // of a size in a group, for an x that seed_noise() can pool by
  Noise rest{0, 0, "residuals of the parabolas"};
  double squares = 0;
  for (const IsoFlopGroup& group : iso.groups) {
    double last = 0;
    for (const size_t i : group.points) {
      if (points[i].N != last) ++number;
      last = points[i].N;
      repeats.push_back({number, points[i].loss});
      if (group.parabola) squares += std::pow(points[i].loss - group.parabola->at(points[i].N), 2);
    }
    if (group.parabola) rest.degrees_of_freedom += static_cast<int64_t>(group.points.size()) - kSizesForParabola;
  }
  if (auto noise = seed_noise(repeats)) return noise;
  if (rest.degrees_of_freedom == 0) return std::nullopt;
  rest.sd = std::sqrt(squares / static_cast<double>(rest.degrees_of_freedom));
  return rest;
}

}  // namespace

double Parabola::at(double N) const {
  const double t = std::log(N) - centre;
  return constant + t * (linear + t * square);
}

double Parabola::vertex() const { return std::exp(centre - linear / (2 * square)); }

int64_t IsoFlop::vertices() const {
  return std::ranges::count_if(groups, [](const IsoFlopGroup& group) { return group.left_out.empty(); });
}

IsoFlop isoflop(std::span<const RunPoint> points) {
  check(points);
  IsoFlop iso;
  iso.groups = groups_of(points);
  std::vector<double> losses;
  for (const RunPoint& p : points) losses.push_back(p.loss);
  place_all(iso, points, losses);
  return iso;
}

std::optional<IsoFlopBias> isoflop_bias(std::span<const RunPoint> points, const IsoFlop& iso, const SurfaceLaw& law,
                                        const ComputeCost& cost) {
  const Frontier truth = analytic_frontier(law, cost);
  std::vector<double> losses;
  for (const RunPoint& p : points) losses.push_back(law.at(Place{p.N, p.D}));
  IsoFlop exact;
  for (const IsoFlopGroup& group : iso.groups)
    if (group.left_out.empty()) exact.groups.push_back(group);
  place_all(exact, points, losses);
  if (!exact.N) return std::nullopt;
  IsoFlopBias bias;
  double logs = 0;
  for (const IsoFlopGroup& group : exact.groups) {
    if (!group.left_out.empty()) continue;
    bias.C.push_back(group.C);
    bias.factors.push_back(group.vertex.N / truth.at(group.C).N);
    logs += std::log(bias.factors.back());
  }
  bias.n_factor = std::exp(logs / static_cast<double>(bias.factors.size()));
  bias.a_shift = exact.N->exponent - truth.a;
  bias.b_shift = exact.D->exponent - truth.b;
  return bias;
}

std::optional<ExponentIntervals> bootstrap_isoflop(std::span<const RunPoint> points, const IsoFlop& iso,
                                                   const BootstrapOptions& options) {
  const std::optional<Noise> noise = noise_of(points, iso);
  if (!iso.N || !noise) return std::nullopt;
  return exponent_intervals("isoflop bootstrap", options, [&](const base::RandomStream& random, uint64_t& first) {
    const double sd = draw_deviation(*noise, random);
    IsoFlop drawn = iso;
    std::vector<double> losses(points.size());
    for (const IsoFlopGroup& group : iso.groups)
      for (const size_t i : group.points)
        losses[i] = group.parabola ? group.parabola->at(points[i].N) + sd * random.normal(first++) : points[i].loss;
    place_all(drawn, points, losses);
    return drawn.N ? std::optional(std::pair(drawn.N->exponent, drawn.D->exponent)) : std::nullopt;
  });
}

}  // namespace varscale::fit
