#include "fit/power_law.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "base/error.hpp"

namespace varscale::fit {
namespace {

constexpr int kScanPoints = 128;        // log-spaced exponents looked at before the bisection
constexpr int kBisections = 60;         // to the last bit of a double
constexpr int kMostReweightings = 200;  // inner iterations in log space

// The points in the coordinates in which the linear part is well conditioned: z = x / x0 with x0 the
// geometric mean, so that y = E + b z^-alpha with b = B x0^-alpha.
struct Centred {
  std::vector<double> log_z, y, log_y;
  double log_x0 = 0;
};

Centred centre(std::span<const Observation> points) {
  Centred c;
  for (const Observation& p : points) {
    c.log_z.push_back(std::log(p.x));
    c.y.push_back(p.y);
    c.log_y.push_back(std::log(p.y));
  }
  c.log_x0 =
      std::accumulate(c.log_z.begin(), c.log_z.end(), 0.0) / static_cast<double>(points.size());
  for (double& v : c.log_z) v -= c.log_x0;
  return c;
}

// The best E and b at one exponent, the objective there and its derivative by alpha.
struct Profile {
  double E = 0, b = 0, objective = 0, slope = 0;
};

class Profiler {
 public:
  Profiler(const Centred& points, std::optional<double> given_e, Space space)
      : points_(points),
        given_e_(given_e),
        space_(space),
        target_(points.y),
        weight_(points.y.size(), 1) {
    growth_.resize(points.y.size());
  }

  Profile at(double alpha) {
    // growth = z^-alpha - 1 keeps its digits where alpha is small: y = (E + b) + b growth.
    for (size_t i = 0; i < growth_.size(); ++i) growth_[i] = std::expm1(-alpha * points_.log_z[i]);
    target_ = points_.y;
    std::fill(weight_.begin(), weight_.end(), 1.0);
    Profile p;
    solve_linear(p);
    if (space_ == Space::kLog) reweight(p);
    finish(p);
    return p;
  }

 private:
  // Non-negative weighted least squares of target = E + b (1 + growth), in closed form.
  void solve_linear(Profile& p) const {
    double sw = 0, su = 0, sy = 0;
    for (size_t i = 0; i < growth_.size(); ++i) {
      sw += weight_[i];
      su += weight_[i] * growth_[i];
      sy += weight_[i] * target_[i];
    }
    const double mean_u = su / sw, mean_y = sy / sw;
    if (!given_e_) {
      double uu = 0, uy = 0;
      for (size_t i = 0; i < growth_.size(); ++i) {
        const double u = growth_[i] - mean_u;
        uu += weight_[i] * u * u;
        uy += weight_[i] * u * (target_[i] - mean_y);
      }
      p.b = uy / uu;
      p.E = mean_y - p.b * (1 + mean_u);
      if (p.b >= 0 && p.E >= 0) return;
      if (p.b < 0) {
        p.b = 0;
        p.E = mean_y;
        return;
      }
    }
    p.E = given_e_.value_or(0);
    double uu = 0, uy = 0;
    for (size_t i = 0; i < growth_.size(); ++i) {
      const double u = 1 + growth_[i];
      uu += weight_[i] * u * u;
      uy += weight_[i] * u * (target_[i] - p.E);
    }
    p.b = std::max(0.0, uy / uu);
  }

  // Gauss-Newton for residuals ln y - ln(E + b u): each step is a linear problem with weights 1 / law^2.
  void reweight(Profile& p) {
    for (int round = 0; round < kMostReweightings; ++round) {
      const Profile before = p;
      for (size_t i = 0; i < growth_.size(); ++i) {
        const double law = p.E + p.b * (1 + growth_[i]);
        weight_[i] = 1 / (law * law);
        target_[i] = law * (1 + points_.log_y[i] - std::log(law));
      }
      solve_linear(p);
      const double scale = std::abs(before.E) + std::abs(before.b);
      if (std::abs(p.E - before.E) + std::abs(p.b - before.b) <= 1e-15 * scale) break;
    }
  }

  // E and b are optimal, so the total derivative by alpha is the partial one.
  void finish(Profile& p) const {
    for (size_t i = 0; i < growth_.size(); ++i) {
      const double part = p.b * (1 + growth_[i]);
      const double law = p.E + part;
      const double slope = part * points_.log_z[i];  // -d law / d alpha
      if (space_ == Space::kLinear) {
        const double r = points_.y[i] - law;
        p.objective += r * r;
        p.slope += 2 * r * slope;
      } else {
        const double r = points_.log_y[i] - std::log(law);
        p.objective += r * r;
        p.slope += 2 * r * slope / law;
      }
    }
  }

  const Centred& points_;
  std::optional<double> given_e_;
  Space space_;
  std::vector<double> growth_, target_, weight_;
};

double scan_alpha(int k) {
  const double low = std::log(kSmallestAlpha), high = std::log(kLargestAlpha);
  return std::exp(low + (high - low) * k / (kScanPoints - 1));
}

double search_alpha(Profiler& profiler) {
  double best_objective = std::numeric_limits<double>::infinity();
  int best = 0;
  for (int k = 0; k < kScanPoints; ++k) {
    const double objective = profiler.at(scan_alpha(k)).objective;
    if (objective < best_objective) best_objective = objective, best = k;
  }
  double low = scan_alpha(std::max(best - 1, 0));
  double high = scan_alpha(std::min(best + 1, kScanPoints - 1));
  if (best == 0 && profiler.at(low).slope >= 0) return kSmallestAlpha;
  if (best == kScanPoints - 1 && profiler.at(high).slope <= 0) return kLargestAlpha;
  for (int i = 0; i < kBisections; ++i) {
    const double middle = 0.5 * (low + high);
    (profiler.at(middle).slope < 0 ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

void describe_residuals(std::span<const Observation> points, PowerFit& fit) {
  const bool log_space = fit.space == Space::kLog;
  double mean = 0;
  for (const Observation& p : points) mean += (log_space ? std::log(p.y) : p.y);
  mean /= static_cast<double>(points.size());
  double about_mean = 0;
  for (const Observation& p : points) {
    const double y = log_space ? std::log(p.y) : p.y;
    const double law = fit.law.at(p.x);
    const double r = y - (log_space ? std::log(law) : law);
    fit.residuals.push_back(r);
    fit.objective += r * r;
    fit.max_residual = std::max(fit.max_residual, std::abs(r));
    about_mean += (y - mean) * (y - mean);
  }
  fit.rmse = std::sqrt(fit.objective / static_cast<double>(points.size()));
  fit.r2 = about_mean > 0 ? 1 - fit.objective / about_mean : 0;
}

}  // namespace

double PowerLaw::at(double x) const { return E + B * std::pow(x, -alpha); }

std::string_view form_name(const ERule& e_rule) noexcept {
  const auto* given = std::get_if<EGiven>(&e_rule);
  return given != nullptr && given->value == 0 ? "power" : "power_e";
}

int64_t constant_count(const ERule& e_rule) noexcept {
  return std::holds_alternative<EFree>(e_rule) ? 3 : 2;
}

std::vector<double> distinct_sizes(std::span<const Observation> points) {
  std::vector<double> sizes;
  for (const Observation& p : points) sizes.push_back(p.x);
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

void check_points(std::span<const Observation> points, const ERule& e_rule) {
  for (size_t i = 0; i < points.size(); ++i) {
    const auto [x, y] = points[i];
    if (!(std::isfinite(x) && x > 0 && std::isfinite(y) && y > 0))
      throw base::UserError(
          "point {} has x = {:g} and y = {:g}; a fit needs finite positive numbers", i + 1, x, y);
  }
  const std::vector<double> sizes = distinct_sizes(points);
  const int64_t need = constant_count(e_rule);
  if (static_cast<int64_t>(sizes.size()) < need) {
    std::string list;
    for (double size : sizes) list += fmt::format("{}{:.6g}", list.empty() ? "" : ", ", size);
    throw base::UserError(
        "the form {} with E {} has {} constants and needs as many distinct sizes; there {} {} ({})",
        form_name(e_rule), need == 3 ? "free" : "given", need, sizes.size() == 1 ? "is" : "are",
        sizes.size(), sizes.empty() ? "none" : list);
  }
  if (const auto* given = std::get_if<EGiven>(&e_rule)) {
    const auto lowest = std::min_element(points.begin(), points.end(),
                                         [](const auto& a, const auto& b) { return a.y < b.y; });
    if (!(std::isfinite(given->value) && given->value >= 0 && given->value < lowest->y))
      throw base::UserError(
          "E is given as {:g}, which is not between 0 and the smallest value {:.6g}", given->value,
          lowest->y);
  }
}

PowerFit fit_power_law(std::span<const Observation> points, const ERule& e_rule, Space space) {
  check_points(points, e_rule);
  const auto* given = std::get_if<EGiven>(&e_rule);
  const Centred centred = centre(points);
  Profiler profiler(centred, given ? std::optional(given->value) : std::nullopt, space);
  const double alpha = search_alpha(profiler);
  const Profile best = profiler.at(alpha);

  PowerFit fit;
  fit.law = {best.E, best.b * std::exp(alpha * centred.log_x0), alpha};
  fit.e_rule = e_rule;
  fit.space = space;
  fit.distinct_sizes = static_cast<int64_t>(distinct_sizes(points).size());
  if (best.b == 0)
    fit.bound = "B = 0";
  else if (alpha == kSmallestAlpha || alpha == kLargestAlpha)
    fit.bound = fmt::format("alpha = {:g}", alpha);
  else if (!given && best.E == 0)
    fit.bound = "E = 0";
  describe_residuals(points, fit);
  return fit;
}

}  // namespace varscale::fit
