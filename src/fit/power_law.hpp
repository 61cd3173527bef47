// Power laws y = E + B x^-alpha through one point per run.
//
//   std::vector<Observation> points = {{75e3, 4.508}, {593e3, 4.413}, {2.0e6, 4.377}, {4.7e6, 4.352}};
//   PowerFit fit = fit_power_law(points, EFree{});            // fit.law.alpha, fit.law.E, ...
//   PowerFit power = fit_power_law(points, EGiven{0, "no irreducible loss assumed"});
//   HuberCheck check = fit_log_huber(points, EFree{});        // another estimator, for comparison
//
// The estimator is VPNLS (arXiv 2603.22339): the exponent is searched outside, by a deterministic scan
// of the whole range and bisection of the derivative of the profiled objective; E and B are solved
// inside by non-negative least squares. It needs no starts and has no tolerance to stop short of.
// Every run is one observation; repeated seeds are several observations at one x.
//
// Units    x and y are the caller's; B carries y x^alpha. Losses are nats per token.
// Errors   UserError: fewer distinct x than the form has constants (names them), a value that is not
//          finite and positive, a given E that is not below the smallest y.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace varscale::fit {

struct Observation {
  double x;  // model size, FLOPs or images
  double y;  // loss or error rate
};

struct PowerLaw {
  double E = 0, B = 0, alpha = 0;
  double at(double x) const;
};

// The irreducible part E: searched with the rest, or stated by the user with where it comes from.
struct EFree {};
struct EGiven {
  double value = 0;
  std::string source;
};
using ERule = std::variant<EFree, EGiven>;

std::string_view form_name(
    const ERule& e_rule) noexcept;                     // "power" for E given as 0, else "power_e"
int64_t constant_count(const ERule& e_rule) noexcept;  // 3 with E free, 2 with E given

// Where residuals are taken: y - law, or ln y - ln law.
enum class Space { kLinear, kLog };

struct PowerFit {
  PowerLaw law;
  ERule e_rule;
  Space space = Space::kLinear;
  int64_t distinct_sizes = 0;
  double objective = 0;           // sum of squared residuals
  std::vector<double> residuals;  // observed - law in the fit's space, in the order of the points
  double rmse = 0;                // root of the mean squared residual
  double r2 = 0;            // 1 - objective / sum of squares about the mean; in the fit's space
  double max_residual = 0;  // largest magnitude
  std::string bound;  // empty, or which constant lies on its bound: "E = 0", "alpha = 5", "B = 0"
};

inline constexpr double kSmallestAlpha = 1e-3;
inline constexpr double kLargestAlpha = 5;

PowerFit fit_power_law(std::span<const Observation> points, const ERule& e_rule,
                       Space space = Space::kLinear);

// Least Huber loss of ln y - ln law (threshold delta), by Ceres from a grid of starts: the procedure of
// arXiv 2203.15556 (approach 3) with tight tolerances. A check on fit_power_law, not the estimate.
struct HuberCheck {
  PowerLaw law;
  double delta = 1e-3;
  double objective = 0;  // sum of Huber losses at the best end point
  int64_t starts = 0;
  int64_t starts_at_best = 0;  // ended within 1e-6 (relative) of the best objective
};

HuberCheck fit_log_huber(std::span<const Observation> points, const ERule& e_rule,
                         double delta = 1e-3);

// The refusals above, without a fit.
void check_points(std::span<const Observation> points, const ERule& e_rule);

// Distinct x in rising order.
std::vector<double> distinct_sizes(std::span<const Observation> points);

}  // namespace varscale::fit
