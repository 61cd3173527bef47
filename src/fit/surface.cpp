#include "fit/surface.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "base/error.hpp"
#include "fit/terms/law_parts.hpp"
#include "fit/terms/smooth_break.hpp"
#include "fit/terms/terms.hpp"

namespace varscale::fit {
namespace {

constexpr double kAtBest = 1e-6;       // relative difference of objectives
constexpr size_t kMostMinima = 4;
constexpr size_t kFewestBreakSizes = 7;  // more than constants
constexpr double kWorthKeeping = 1.05;  // minima with an objective beyond this factor are not kept

struct FormName {
  Form form;
  std::string_view name;
  std::vector<std::string_view> variables, constants;
};

const FormName& named(Form form) {
  static const FormName kNames[] = {
      {Form::kPower, "power", {"x"}, {"B", "alpha"}},
      {Form::kPowerE, "power_e", {"x"}, {"E", "B", "alpha"}},
      {Form::kChinchilla, "chinchilla", {"N", "D"}, {"E", "A", "B", "alpha", "beta"}},
      {Form::kOvertrain, "overtrain", {"C", "M"}, {"E", "a", "b", "eta"}},
      {Form::kDataConstrained, "data_constrained", {"N", "D", "U"}, {"E", "A", "B", "alpha", "beta", "R"}},
      {Form::kBnsl, "bnsl", {"x"}, {"E", "B", "c0", "c1", "d", "f"}},
  };
  for (const FormName& each : kNames)
    if (each.form == form) return each;
  return kNames[0];
}

void describe(std::span<const double> seen, SurfaceFit& fit) {
  double mean = 0, about_mean = 0, squares = 0;
  for (const double value : seen) mean += value / static_cast<double>(seen.size());
  for (size_t i = 0; i < seen.size(); ++i) {
    about_mean += (seen[i] - mean) * (seen[i] - mean);
    squares += fit.residuals[i] * fit.residuals[i];
    fit.max_residual = std::max(fit.max_residual, std::abs(fit.residuals[i]));
  }
  fit.rmse = std::sqrt(squares / static_cast<double>(seen.size()));
  fit.r2 = about_mean > 0 ? 1 - squares / about_mean : 0;
}

// As the estimator of `spec` takes it: y, ln y, or for kLsq ln(y - E).
double in_space(double y, const SurfaceSpec& spec) {
  if (spec.space == Space::kLinear) return y;
  return std::log(spec.estimator == Estimator::kLsq ? y - spec.given_e.value_or(0) : y);
}

void describe_residuals(std::span<const SurfacePoint> points, SurfaceFit& fit) {
  std::vector<double> seen;
  for (const SurfacePoint& p : points) {
    seen.push_back(in_space(p.y, fit.spec));
    fit.residuals.push_back(seen.back() - in_space(fit.law.at(p.x), fit.spec));
  }
  describe(seen, fit);
}

// The weighted straight line of ln(y - E) on ln x.
EndPoint straight_line(std::span<const SurfacePoint> points, const Terms& terms) {
  double weight = 0, mean_t = 0, mean_z = 0, tt = 0, tz = 0;
  for (size_t i = 0; i < points.size(); ++i) {
    const double w = points[i].weight;
    weight += w;
    mean_t += w * terms.t[0][i];
    mean_z += w * std::log(points[i].y - terms.given_e);
  }
  mean_t /= weight, mean_z /= weight;
  for (size_t i = 0; i < points.size(); ++i) {
    const double t = terms.t[0][i] - mean_t;
    tt += points[i].weight * t * t;
    tz += points[i].weight * t * (std::log(points[i].y - terms.given_e) - mean_z);
  }
  EndPoint end;
  end.constants.E = terms.given_e;
  end.constants.theta[0] = -tz / tt;
  end.constants.c[0] = std::exp(mean_z - tz / tt * mean_t);
  for (size_t i = 0; i < points.size(); ++i) {
    const double r = std::log(points[i].y - terms.given_e) - mean_z - tz / tt * (terms.t[0][i] - mean_t);
    end.objective += points[i].weight * r * r;
  }
  return end;
}

SurfaceFit finish(std::span<const SurfacePoint> points, const SurfaceSpec& spec, std::vector<EndLaw> ends) {
  SurfaceFit fit;
  fit.spec = spec;
  fit.starts = static_cast<int64_t>(ends.size());
  std::stable_sort(ends.begin(), ends.end(), [](const EndLaw& a, const EndLaw& b) { return a.objective < b.objective; });
  const EndLaw& best = ends.front();
  // The floor lets exact data, whose objective is rounding, count as reached.
  const double limit = best.objective * (1 + kAtBest) + 1e-20;
  fit.starts_at_best = std::ranges::count_if(ends, [&](const EndLaw& e) { return e.objective <= limit; });
  fit.law = best.law;
  fit.objective = objective_of(fit.law, points, spec);
  fit.bound = bound_of(fit.law, spec, points);
  double last = -1;
  for (const EndLaw& end : ends) {
    if (fit.minima.size() == kMostMinima || end.objective > kWorthKeeping * best.objective) break;
    if (last >= 0 && end.objective <= last * (1 + kAtBest) + 1e-20) continue;
    last = end.objective;
    fit.minima.push_back(end.law);
  }
  describe_residuals(points, fit);
  return fit;
}

std::vector<EndLaw> laws_of(const Terms& terms, const std::vector<EndPoint>& ends) {
  std::vector<EndLaw> laws;
  for (const EndPoint& end : ends) laws.push_back({terms.law(end.constants), end.objective});
  return laws;
}

size_t distinct(std::span<const SurfacePoint> points, size_t variable) {
  std::set<double> values;
  for (const SurfacePoint& p : points) values.insert(p.x[variable]);
  return values.size();
}

// Whether ln x[1] is a straight line of ln x[0] in all points: then powers of one are powers of the other.
bool rise_together(std::span<const SurfacePoint> points) {
  const double n = static_cast<double>(points.size());
  double mean[2] = {}, products[2][2] = {};
  for (const SurfacePoint& p : points)
    for (size_t v = 0; v < 2; ++v) mean[v] += std::log(p.x[v]) / n;
  for (const SurfacePoint& p : points)
    for (size_t v = 0; v < 2; ++v)
      for (size_t w = 0; w < 2; ++w) products[v][w] += (std::log(p.x[v]) - mean[v]) * (std::log(p.x[w]) - mean[w]);
  const double both = products[0][1] * products[0][1], each = products[0][0] * products[1][1];
  return both >= each * (1 - 1e-12);
}

}  // namespace

std::string_view name(Form form) noexcept { return named(form).name; }

std::string_view name(Estimator estimator) noexcept {
  switch (estimator) {
    case Estimator::kVpnls:
      return "vpnls";
    case Estimator::kHuber:
      return "huber";
    case Estimator::kLad:
      return "lad";
    case Estimator::kLsq:
      break;
  }
  return "lsq";
}

std::vector<std::string_view> variable_names(Form form) { return named(form).variables; }
std::vector<std::string_view> constant_names(Form form) { return named(form).constants; }

std::vector<std::string_view> exponent_names(Form form) {
  std::vector<std::string_view> names;
  for (const std::string_view name : constant_names(form))
    if (name == "alpha" || name == "beta" || name == "eta" || name == "c0" || name == "c1") names.push_back(name);
  return names;
}

int64_t constant_count(const SurfaceSpec& spec) {
  return static_cast<int64_t>(constant_names(spec.form).size()) - (spec.given_e ? 1 : 0);
}

double SurfaceLaw::constant(std::string_view wanted) const {
  const std::vector<std::string_view> names = constant_names(form);
  const auto found = std::find(names.begin(), names.end(), wanted);
  VARSCALE_CHECK(found != names.end(), "the form {} has no constant {}", name(form), wanted);
  return constants[static_cast<size_t>(found - names.begin())];
}

double objective_of(const SurfaceLaw& law, std::span<const SurfacePoint> points, const SurfaceSpec& spec) {
  double sum = 0;
  for (const SurfacePoint& p : points) {
    const double r = std::abs(in_space(p.y, spec) - in_space(law.at(p.x), spec));
    switch (spec.estimator) {
      case Estimator::kVpnls:
        sum += r * r;
        break;
      case Estimator::kLsq:
        sum += p.weight * r * r;
        break;
      case Estimator::kHuber:
        sum += r <= spec.delta ? 0.5 * r * r : spec.delta * (r - 0.5 * spec.delta);
        break;
      case Estimator::kLad:
        sum += r;
        break;
    }
  }
  return sum;
}

std::string too_few(std::span<const SurfacePoint> points, const SurfaceSpec& spec) {
  const std::vector<std::string_view> variables = variable_names(spec.form);
  const int64_t need = constant_count(spec);
  std::set<Place> places;
  for (const SurfacePoint& p : points) places.insert(p.x);
  if (static_cast<int64_t>(places.size()) < need)
    return fmt::format("the form {} with {} constants needs as many distinct {}; there {} {}", name(spec.form), need,
                       variables.size() == 1   ? "sizes"
                       : variables.size() == 2 ? fmt::format("pairs of {} and {}", variables[0], variables[1])
                                               : fmt::format("triples of {}", fmt::join(variables, ", ")),
                       places.size() == 1 ? "is" : "are", places.size());
  if (spec.form == Form::kBnsl && distinct(points, 0) < kFewestBreakSizes)
    return fmt::format("the form bnsl needs {} distinct sizes, some before and some beyond its break; there are {}",
                       kFewestBreakSizes, distinct(points, 0));
  if (variables.size() == 1) return "";
  // A power of one variable beside a free E has three constants, and two where only their level is shared. M enters
  // with both signs of one exponent: two values tell a from b.
  const size_t each = spec.form == Form::kOvertrain ? 2 : spec.given_e ? 2 : 3;
  for (size_t v = 0; v < 2; ++v)
    if (const size_t have = distinct(points, v); have < each)
      return fmt::format("the form {} needs {} distinct {}; there {} {}", name(spec.form), each, variables[v],
                         have == 1 ? "is" : "are", have);
  if (rise_together(points))
    return fmt::format("{} is a power of {} in all points, so that the terms of the form {} cannot be told apart",
                       variables[1], variables[0], name(spec.form));
  if (spec.form == Form::kDataConstrained) {
    // Where every point repeats its data as often, B takes up what R would say.
    double fewest = std::numeric_limits<double>::infinity(), most = 0;
    for (const SurfacePoint& p : points) {
      const double times = std::max(p.x[1] / p.x[2], 1.0);
      fewest = std::min(fewest, times), most = std::max(most, times);
    }
    if (most <= fewest * (1 + 1e-9))
      return "the form data_constrained needs points that repeat their data differently often, as D / U says; all are alike";
  }
  return "";
}

void check_spec(const SurfaceSpec& spec) {
  if (spec.estimator != Estimator::kVpnls && spec.space == Space::kLinear)
    throw base::UserError("the estimator {} takes residuals of logarithms; expected log space, or the estimator vpnls",
                          name(spec.estimator));
  const bool straight = spec.form == Form::kPower || (spec.form == Form::kPowerE && spec.given_e);
  if (spec.estimator == Estimator::kLsq && !straight)
    throw base::UserError(
        "the form {}{} is no straight line of logarithms; expected the estimator vpnls, huber or lad, or for lsq the form "
        "power, or power_e with E given",
        name(spec.form), spec.form == Form::kPowerE ? " with E free" : "");
  if ((spec.form == Form::kDataConstrained || spec.form == Form::kBnsl) && spec.estimator != Estimator::kVpnls)
    throw base::UserError("the form {} is not fitted by {}; expected the estimator vpnls", name(spec.form), name(spec.estimator));
  if (spec.form == Form::kPower && spec.given_e)
    throw base::UserError("the form power has no E to give; expected the form power_e");
  if (!(spec.delta > 0 && std::isfinite(spec.delta)))
    throw base::UserError("the Huber threshold is {:g}; expected a positive number", spec.delta);
}

void check_surface(std::span<const SurfacePoint> points, const SurfaceSpec& spec) {
  check_spec(spec);
  const std::vector<std::string_view> variables = variable_names(spec.form);
  double lowest = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < points.size(); ++i) {
    const SurfacePoint& p = points[i];
    const auto check = [i](std::string_view what, double value) {
      if (!(std::isfinite(value) && value > 0))
        throw base::UserError("point {} has {} = {:g}; a fit needs finite positive numbers", i + 1, what, value);
    };
    for (size_t v = 0; v < variables.size(); ++v) check(variables[v], p.x[v]);
    check("y", p.y);
    check("weight", p.weight);
    lowest = std::min(lowest, p.y);
  }
  if (const std::string reason = too_few(points, spec); !reason.empty()) throw base::UserError(reason);
  if (spec.given_e && !(std::isfinite(*spec.given_e) && *spec.given_e >= 0 && *spec.given_e < lowest))
    throw base::UserError("E is given as {:g}, which is not between 0 and the smallest value {:.6g}", *spec.given_e, lowest);
}

SurfaceFit fit_surface(std::span<const SurfacePoint> points, const SurfaceSpec& spec) {
  check_surface(points, spec);
  if (spec.form == Form::kDataConstrained) return finish(points, spec, project_repeats(points, spec));
  if (spec.form == Form::kBnsl) return finish(points, spec, search_break(points, spec));
  const Terms terms(points, spec);
  switch (spec.estimator) {
    case Estimator::kVpnls:
      return finish(points, spec, laws_of(terms, project(terms, spec.space)));
    case Estimator::kHuber:
    case Estimator::kLad:
      return finish(points, spec, laws_of(terms, search_grid(terms, spec.estimator, spec.delta)));
    case Estimator::kLsq:
      break;
  }
  return finish(points, spec, laws_of(terms, {straight_line(points, terms)}));
}

SurfaceFit fit_surface_from(std::span<const SurfacePoint> points, const SurfaceSpec& spec,
                            std::span<const SurfaceLaw> starts) {
  check_surface(points, spec);
  VARSCALE_CHECK(!starts.empty(), "a search from no start");
  if (spec.form == Form::kBnsl) return finish(points, spec, search_break_from(points, spec, starts));
  VARSCALE_CHECK(spec.estimator == Estimator::kHuber || spec.estimator == Estimator::kLad, "{} has no starts",
                 name(spec.estimator));
  const Terms terms(points, spec);
  std::vector<Constants> from;
  for (const SurfaceLaw& law : starts) from.push_back(terms.constants(law));
  return finish(points, spec, laws_of(terms, search_from(terms, spec.estimator, spec.delta, from)));
}

}  // namespace varscale::fit
