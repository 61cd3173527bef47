#include "fit/sensitivity.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.hpp"

namespace varscale::fit {
namespace {

constexpr double kThresholds[] = {1e-4, 1e-3, 1e-2};
constexpr size_t kHighest[] = {1, 3, 5, 10};
constexpr size_t kMostDropped = 5;  // at most one in so many

class Varying {
 public:
  Varying(std::span<const SurfacePoint> points, const SurfaceFit& fit, std::span<const std::string> variables)
      : points_(points), fit_(fit), variables_(variables.begin(), variables.end()) {
    for (const std::string_view name : variable_names(fit.spec.form))
      if (variables.empty()) variables_.emplace_back(name);
    VARSCALE_CHECK(variables_.size() == variable_names(fit.spec.form).size(), "{} names of variables", variables.size());
  }

  Sensitivity run() {
    estimators();
    if (fit_.spec.form != Form::kPower) irreducible();
    fewer_points();
    return std::move(result_);
  }

 private:
  void add(std::string group, std::string change, std::span<const SurfacePoint> points, const SurfaceSpec& spec,
           std::span<const SurfaceLaw> starts = {}) {
    try {
      const bool searched = spec.estimator == Estimator::kHuber || spec.estimator == Estimator::kLad;
      SurfaceFit fit = searched ? fit_surface_from(points, spec, starts) : fit_surface(points, spec);
      result_.variants.push_back({std::move(group), std::move(change), std::move(fit)});
    } catch (const base::UserError& error) {
      result_.not_done.push_back({std::move(change), error.what()});
    }
  }

  // Minima to start a robust estimator from: the fit's own, and those of least squares of the logarithms.
  std::vector<SurfaceLaw> starts() const {
    std::vector<SurfaceLaw> starts = fit_.minima;
    SurfaceSpec spec = fit_.spec;
    spec.estimator = Estimator::kVpnls, spec.space = Space::kLog;
    const SurfaceFit log_fit = fit_surface(points_, spec);
    starts.insert(starts.end(), log_fit.minima.begin(), log_fit.minima.end());
    return starts;
  }

  void estimators() {
    const SurfaceSpec& own = fit_.spec;
    SurfaceSpec spec = own;
    spec.estimator = Estimator::kVpnls;
    for (const Space space : {Space::kLinear, Space::kLog}) {
      spec.space = space;
      if (own.estimator == Estimator::kVpnls && own.space == space) continue;
      add("estimator", fmt::format("vpnls in {} space", space == Space::kLinear ? "linear" : "log"), points_, spec);
    }
    if (spec.form == Form::kDataConstrained || spec.form == Form::kBnsl) return;  // which have no other estimator
    const std::vector<SurfaceLaw> from = starts();
    spec.space = Space::kLog;
    spec.estimator = Estimator::kHuber;
    for (const double delta : kThresholds) {
      if (own.estimator == Estimator::kHuber && own.delta == delta) continue;
      spec.delta = delta;
      add("estimator", fmt::format("huber, delta {:g}", delta), points_, spec, from);
    }
    spec.estimator = Estimator::kLad;
    if (own.estimator != Estimator::kLad) add("estimator", "lad", points_, spec, from);
  }

  void irreducible() {
    const double E = fit_.law.constant("E");
    for (const double step : {-kEStep, kEStep}) {
      SurfaceSpec spec = fit_.spec;
      spec.given_e = E + step;
      add("E", fmt::format("E {:g} {}", kEStep, step < 0 ? "lower" : "higher"), points_, spec, fit_.minima);
    }
  }

  void without(std::string change, const std::vector<bool>& dropped) {
    std::vector<SurfacePoint> kept;
    for (size_t i = 0; i < points_.size(); ++i)
      if (!dropped[i]) kept.push_back(points_[i]);
    add("points", std::move(change), kept, fit_.spec, fit_.minima);
  }

  void fewer_points() {
    std::vector<size_t> order(points_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::ranges::stable_sort(order, [&](size_t a, size_t b) { return points_[a].y > points_[b].y; });
    for (const size_t count : kHighest) {
      if (count * kMostDropped > points_.size()) break;
      std::vector<bool> dropped(points_.size());
      for (size_t k = 0; k < count; ++k) dropped[order[k]] = true;
      without(count == 1 ? "without the highest value" : fmt::format("without the {} highest values", count), dropped);
    }
    const auto furthest = std::ranges::max_element(fit_.residuals, {}, [](double r) { return std::abs(r); });
    std::vector<bool> dropped(points_.size());
    dropped[static_cast<size_t>(furthest - fit_.residuals.begin())] = true;
    without("without the point furthest from the law", dropped);
    for (size_t v = 0; v < variables_.size(); ++v) {
      const auto [least, most] = std::ranges::minmax(points_, {}, [v](const SurfacePoint& p) { return p.x[v]; });
      for (const auto& [end, word] : {std::pair{least.x[v], "smallest"}, std::pair{most.x[v], "largest"}}) {
        for (size_t i = 0; i < points_.size(); ++i) dropped[i] = points_[i].x[v] == end;
        without(fmt::format("without the {} {}", word, variables_[v]), dropped);
      }
    }
  }

  std::span<const SurfacePoint> points_;
  const SurfaceFit& fit_;
  std::vector<std::string> variables_;
  Sensitivity result_;
};

}  // namespace

Sensitivity vary(std::span<const SurfacePoint> points, const SurfaceFit& fit, std::span<const std::string> variables) {
  return Varying(points, fit, variables).run();
}

std::vector<SurfacePoint> surface_points(std::span<const Observation> points) {
  std::vector<SurfacePoint> result;
  for (const Observation& p : points) result.push_back({{p.x}, p.y});
  return result;
}

SurfaceSpec surface_spec(const ERule& e_rule, Space space) {
  SurfaceSpec spec{.form = Form::kPowerE, .estimator = Estimator::kVpnls, .space = space};
  if (const auto* given = std::get_if<EGiven>(&e_rule)) {
    if (given->value == 0) spec.form = Form::kPower;
    else spec.given_e = given->value;
  }
  return spec;
}

std::vector<Disagreement> disagreements(const Sensitivity& sensitivity, std::span<const NamedInterval> intervals) {
  std::vector<Disagreement> apart;
  for (const Variant& variant : sensitivity.variants) {
    if (variant.group != "estimator") continue;
    for (const auto& [constant, interval] : intervals) {
      const double value = variant.fit.law.constant(constant);
      if (!interval.contains(value)) apart.push_back({std::string(constant), variant.change, value, interval});
    }
  }
  return apart;
}

}  // namespace varscale::fit
