// Laws that are sums of powers, of one or several variables, through one point per run.
//
//   std::vector<SurfacePoint> points = {{{44e6, 1.2e9}, 3.91}, {{70e6, 3.4e9}, 3.52}, ...};   // {N, D}, loss
//   SurfaceFit fit = fit_surface(points, {.form = Form::kChinchilla});     // E + A / N^alpha + B / D^beta
//   fit.law.constant("alpha"), fit.law.at(x), fit.objective, fit.bound
//   SurfaceFit check = fit_surface(points, {Form::kChinchilla, Estimator::kHuber, Space::kLog});
//
// Forms       power        B x^-alpha                               (x)     E is 0
//             power_e      E + B x^-alpha                           (x)
//             chinchilla   E + A N^-alpha + B D^-beta               (N, D)  arXiv 2203.15556, approach 3
//             overtrain    E + (a M^eta + b M^-eta) C^-eta          (C, M)  arXiv 2403.08540; M is tokens per parameter
//             data_constrained   E + A N^-alpha + B D'^-beta            (N, D, U)  arXiv 2305.16264: of D tokens seen U are
//                        distinct, and D' = U (1 + R (1 - exp(-(D/U - 1) / R))) fresh ones would be worth as much; D' is
//                        D where nothing is repeated, and no repetition adds more than R U. R is searched outside the
//                        others, at the roots of the profiled objective's derivative. N is taken as it is. kVpnls only.
//             bnsl         E + B x^-c0 (1 + (x/d)^(1/f))^(-c1 f)    (x)     arXiv 2210.14891 with one break: slope c0 well before
//                        d and c0 + c1 well beyond, f is the width of the bend in ln x. d is searched between the second
//                        smallest and the second largest size, f in 0.02 to 20, and c1 in 0 to 5 (from -5 where E is given:
//                        what flattens is E's else). First a scan with E and B at their best, then Levenberg and
//                        Marquardt's method from its best places. kVpnls only.
// Estimators  kVpnls  least squares. Exponents outside, by a scan of their whole range and Newton's method from every
//                     minimum of the scan; the linear constants inside, by non-negative least squares (arXiv 2603.22339).
//                     In log space the inner problem is not linear: there it is solved by Gauss-Newton steps, each a
//                     non-negative least-squares problem with weights 1 / law^2, until the constants stand still. The
//                     scan then stands on relative residuals, which are linear; it only chooses where Newton begins.
//             kHuber  the sum of Huber losses (threshold delta) of ln y - ln law, and
//             kLad    the sum of their magnitudes: both by Ceres (BFGS) from the whole grid of starts of arXiv
//                     2203.15556 (4,500 for chinchilla) with tight tolerances, each end point finished by Newton's
//                     method. For the sum of magnitudes the threshold then falls to 1e-8 and the points that the
//                     law meets are met exactly. Log space only.
//             kLsq    the weighted straight line of ln(y - E) on ln x: `power`, or `power_e` with E given.
// Units       x and y are the caller's, and so are the constants; the starts of kHuber and kLad are the published
//             numbers in these units.
// Threads     Starts are shared among threads; the result does not depend on how many there are.
// Errors      UserError: fewer distinct sizes than the form needs, variables that tell two terms not apart, a value that
//             is not finite and positive, a given E that is not below the smallest y, an estimator that the form or the
//             space does not have.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fit/power_law.hpp"

namespace varscale::fit {

enum class Form { kPower, kPowerE, kChinchilla, kOvertrain, kDataConstrained, kBnsl };
enum class Estimator { kVpnls, kHuber, kLad, kLsq };

std::string_view name(Form form) noexcept;
std::string_view name(Estimator estimator) noexcept;
std::vector<std::string_view> variable_names(Form form);  // {"x"}, {"N", "D"}, {"C", "M"} or {"N", "D", "U"}
std::vector<std::string_view> exponent_names(Form form);  // alpha, beta, eta, c0, c1: those of constant_names()
std::vector<std::string_view> constant_names(Form form);  // E (where the form has it), coefficients, exponents, R

inline constexpr size_t kMostVariables = 3;
using Place = std::array<double, kMostVariables>;  // as variable_names(form), the rest 0

struct SurfacePoint {
  Place x{};
  double y = 0;
  double weight = 1;  // of its squared residual; kLsq only
  int64_t run = -1;   // points of one run are resampled together; -1: a run of its own
};

inline constexpr double kSmallestRepeats = 0.05, kLargestRepeats = 1e4;  // bounds of R

struct SurfaceLaw {
  Form form = Form::kChinchilla;
  std::vector<double> constants;  // as constant_names(form)

  double at(std::span<const double> x) const;
  double constant(std::string_view name) const;
};

struct SurfaceSpec {
  Form form = Form::kChinchilla;
  Estimator estimator = Estimator::kVpnls;
  Space space = Space::kLinear;
  std::optional<double> given_e = {};  // E stated instead of searched; not for `power`
  double delta = 1e-3;                 // threshold of kHuber
};

struct SurfaceFit {
  SurfaceLaw law;
  SurfaceSpec spec;
  double objective = 0;  // sum of (weighted) squares, of Huber losses, or of magnitudes
  int64_t starts = 0;
  int64_t starts_at_best = 0;        // ended within 1e-6 (relative) of the best objective
  std::vector<double> residuals;     // y - law, ln y - ln law, or for kLsq ln(y - E) - ln(law - E)
  double rmse = 0;                   // root of the mean squared residual
  double r2 = 0;                     // 1 - sum of squared residuals / sum of squares about the mean, in the same space
  double max_residual = 0;           // largest magnitude
  std::string bound;                 // empty, or which constant lies on its bound: "E = 0", "alpha = 5", "A = 0"
  std::vector<SurfaceLaw> minima;    // distinct minima that starts ended in, the best first, at most four
};

SurfaceFit fit_surface(std::span<const SurfacePoint> points, const SurfaceSpec& spec);
// kHuber and kLad, or the form bnsl, from these laws alone, instead of the grid: where the minima are known, as in a bootstrap.
SurfaceFit fit_surface_from(std::span<const SurfacePoint> points, const SurfaceSpec& spec,
                            std::span<const SurfaceLaw> starts);

// What the estimator of `spec` minimises, at any law.
double objective_of(const SurfaceLaw& law, std::span<const SurfacePoint> points, const SurfaceSpec& spec);

// The refusals above, without a fit.
void check_surface(std::span<const SurfacePoint> points, const SurfaceSpec& spec);
void check_spec(const SurfaceSpec& spec);  // those of form, estimator, space and E alone
// Why these points do not determine the constants; empty where they do.
std::string too_few(std::span<const SurfacePoint> points, const SurfaceSpec& spec);
int64_t constant_count(const SurfaceSpec& spec);  // that are searched

}  // namespace varscale::fit
