// How far the constants of a law move under other choices that someone could have made as well.
//
//   Sensitivity s = vary(points, fit);
//   for (const Variant& v : s.variants) fmt::print("{}: {}\n", v.change, v.fit.law.constant("alpha"));
//   std::vector<Disagreement> apart = disagreements(s, {{"alpha", bootstrap.interval("alpha")}});
//
// Choices, by group
//   estimator   vpnls in linear and in log space, huber at thresholds 1e-4, 1e-3 and 1e-2, lad; but the fit's own
//   E           given as kEStep below and above the fit's, in the units of y; not for `power`
//   points      without the 1, 3, 5 or 10 highest values (at most a fifth of all), without the point furthest from the law,
//               and without the smallest or the largest value of each variable
// huber and lad start from the minima that vpnls finds, so they are the optima near those, not a search of the grid.
// What cannot be done, such as E above the smallest y, is named instead.
//
// Errors   UserError as in surface.hpp.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fit/bootstrap.hpp"
#include "fit/surface.hpp"

namespace varscale::fit {

inline constexpr double kEStep = 0.1;

struct Variant {
  std::string group, change;
  SurfaceFit fit;
};

struct NotVaried {
  std::string change, reason;
};

struct Sensitivity {
  std::vector<Variant> variants;
  std::vector<NotVaried> not_done;
};

// `variables` are what the form's variables are called in `change`; empty: as variable_names() has them.
Sensitivity vary(std::span<const SurfacePoint> points, const SurfaceFit& fit,
                 std::span<const std::string> variables = {});

// The points of a law of one size.
std::vector<SurfacePoint> surface_points(std::span<const Observation> points);
// The same fit in the words of surface.hpp: `power` for E given as 0, else `power_e`, by vpnls.
SurfaceSpec surface_spec(const ERule& e_rule, Space space);

// An estimator whose constant lies outside the interval of the headline's.
struct Disagreement {
  std::string constant, change;
  double value = 0;
  Interval interval;
};
struct NamedInterval {
  std::string_view constant;
  Interval interval;
};
std::vector<Disagreement> disagreements(const Sensitivity& sensitivity, std::span<const NamedInterval> intervals);

}  // namespace varscale::fit
