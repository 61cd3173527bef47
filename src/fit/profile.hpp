// Profile intervals of a surface's constants: how far each may go while all others are searched anew.
//
//   SurfaceFit fit = fit_surface(points, {.form = Form::kPowerE});
//   std::optional<ProfileIntervals> profile = profile_intervals(points, fit, {.level = 0.95});
//   profile->of("E").low, profile->of("E").high      // nothing: open, no value on that side is excluded
//
// Rule    A constant may have the values at which the least objective, over all other constants, is at most
//         S + s^2 F(level; 1, nu): S is the fit's own, s^2 = S / (n - p) with nu = n - p, or a given noise with its
//         degrees of freedom (Bates & Watts 1988, Nonlinear Regression Analysis and Its Applications, chapter 6.1).
//         Where the law is linear in the constants these are Student's t intervals; where it is not, they follow the
//         bend that standard errors overlook. Each end is bracketed from the fit outwards and then bisected; the others
//         are found by Levenberg and Marquardt's method from where they were at the last value, within their bounds.
// Open    An end is open where the constant comes to its own bound (E = 0, exponents of 0.001 and 5) before the objective
//         has risen so far, or where an exponent or R lies on the bound of its search on the way: such an end would be of
//         the search, not of the data. All ends are open where a term of the fit has vanished.
// Noise   Independent and of one size in the fit's space. A given noise is in units of y, or of ln y in log space.
// Errors  UserError: another estimator than vpnls; the form bnsl; a level outside (0, 1).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fit/bootstrap.hpp"
#include "fit/surface.hpp"

namespace varscale::fit {

struct ProfileOptions {
  double level = 0.9;
  std::optional<Noise> noise = {};  // nothing: of the residuals
};

struct ProfileEnds {
  std::string name;
  double value = 0;
  std::optional<double> low = {}, high = {};  // nothing: open
  bool contains(double v) const noexcept { return (!low || *low <= v) && (!high || v <= *high); }
};

struct ProfileIntervals {
  double level = 0.9;
  Noise noise = {};
  double rise = 0;                          // s^2 F: of the objective, up to an end
  std::vector<ProfileEnds> constants = {};  // those searched, as constant_names(form); then a and b of chinchilla
  const ProfileEnds& of(std::string_view name) const;
};

// Nothing where there are no more points than constants and no noise is given.
std::optional<ProfileIntervals> profile_intervals(std::span<const SurfacePoint> points, const SurfaceFit& fit,
                                                  const ProfileOptions& options);

// The least objective with the constant `name` held at `value`. The others begin at the fit.
double profiled_objective(std::span<const SurfacePoint> points, const SurfaceFit& fit, std::string_view name, double value);

// t with P(|T| <= t) = level for whole degrees of freedom: its closed form (Abramowitz & Stegun 26.7.3, 26.7.4), bisected.
double student_t(double level, int64_t degrees_of_freedom);

}  // namespace varscale::fit
