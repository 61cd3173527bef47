#include "fit/profile.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.hpp"
#include "fit/terms/held_fit.hpp"

namespace varscale::fit {
namespace {

constexpr double kFirstStep = 1e-3;  // of a logarithm; of E, in units of the largest y
constexpr double kEndFound = 1e-10;  // width of the last bracket, relative
constexpr int kMostBisections = 100;

// From the fit's own value to where the objective has risen to `limit`.
std::optional<double> end_of(const HeldFit& model, const HeldConstant& held, const Unbound& at_fit, double limit, int direction) {
  const double origin = model.coordinate(held, at_fit), far = model.limit(held, direction);
  Unbound below = at_fit;
  double inside = origin, outside = origin, step = kFirstStep * model.unit(held);
  for (;; step *= 2) {
    if (model.on_search_bound(below) || inside == far) return std::nullopt;
    outside = direction > 0 ? std::min(inside + step, far) : std::max(inside - step, far);
    Unbound there = below;
    if (model.minimise(held, outside, there) > limit) break;
    below = there, inside = outside;
  }
  for (int k = 0; k < kMostBisections && std::abs(outside - inside) > kEndFound * std::max(std::abs(inside), model.unit(held));
       ++k) {
    const double middle = 0.5 * (inside + outside);
    Unbound there = below;
    if (model.minimise(held, middle, there) > limit)
      outside = middle;
    else
      below = there, inside = middle;
  }
  if (model.on_search_bound(below)) return std::nullopt;
  return model.value(held, inside);
}

void check(const SurfaceSpec& spec) {
  if (spec.estimator != Estimator::kVpnls)
    throw base::UserError("profile intervals are of least squares; expected the estimator vpnls instead of {}",
                          name(spec.estimator));
  if (spec.form == Form::kBnsl)
    throw base::UserError("profile intervals are not computed for the form bnsl; expected another form");
}

}  // namespace

const ProfileEnds& ProfileIntervals::of(std::string_view name) const {
  const auto found = std::ranges::find(constants, name, &ProfileEnds::name);
  VARSCALE_CHECK(found != constants.end(), "no profile of {}", name);
  return *found;
}

std::optional<ProfileIntervals> profile_intervals(std::span<const SurfacePoint> points, const SurfaceFit& fit,
                                                  const ProfileOptions& options) {
  check(fit.spec);
  if (!(options.level > 0 && options.level < 1))
    throw base::UserError("the level is {:g}; expected a share between 0 and 1", options.level);
  ProfileIntervals profile{.level = options.level};
  if (options.noise) {
    profile.noise = *options.noise;
  } else {
    const int64_t degrees = static_cast<int64_t>(points.size()) - constant_count(fit.spec);
    if (degrees <= 0) return std::nullopt;
    profile.noise = {std::sqrt(fit.objective / static_cast<double>(degrees)), degrees, "residuals of the fit"};
  }
  const double ends_at = profile.noise.sd * student_t(options.level, profile.noise.degrees_of_freedom);
  profile.rise = ends_at * ends_at;  // F with 1 and nu degrees of freedom is the square of t
  const HeldFit model(points, fit);
  for (const HeldConstant& held : model.constants()) {
    ProfileEnds& ends = profile.constants.emplace_back(ProfileEnds{.name = held.name});
    ends.value = held.of_law(fit.law);
    if (model.vanished()) continue;
    ends.low = end_of(model, held, model.start(), fit.objective + profile.rise, -1);
    ends.high = end_of(model, held, model.start(), fit.objective + profile.rise, 1);
  }
  if (fit.spec.form == Form::kChinchilla) {
    const ProfileEnds& a = profile.of("a");
    ProfileEnds b{.name = "b", .value = 1 - a.value};
    if (a.high) b.low = 1 - *a.high;
    if (a.low) b.high = 1 - *a.low;
    profile.constants.push_back(b);
  }
  return profile;
}

double profiled_objective(std::span<const SurfacePoint> points, const SurfaceFit& fit, std::string_view name, double value) {
  check(fit.spec);
  const HeldFit model(points, fit);
  const std::vector<HeldConstant> all = model.constants();
  const auto held = std::ranges::find(all, name, &HeldConstant::name);
  VARSCALE_CHECK(held != all.end(), "no constant {} to hold", name);
  Unbound p = model.start();
  return model.minimise(*held, model.coordinate_of(*held, value), p);
}

double student_t(double level, int64_t degrees_of_freedom) {
  VARSCALE_CHECK(level > 0 && level < 1 && degrees_of_freedom > 0, "t of level {} and {} degrees of freedom", level,
                 degrees_of_freedom);
  // The share within t as a function of the angle atan(t / sqrt(nu)).
  const auto within = [degrees_of_freedom](double angle) {
    const double cosine2 = std::cos(angle) * std::cos(angle);
    const bool odd = degrees_of_freedom % 2 == 1;
    double factor = odd ? std::cos(angle) : 1, sum = 0;
    for (int64_t k = odd ? 1 : 0; k <= degrees_of_freedom - 2 && factor > 1e-18; k += 2) {
      sum += factor;
      factor *= cosine2 * static_cast<double>(k + 1) / static_cast<double>(k + 2);
    }
    return odd ? 2 / std::numbers::pi * (angle + std::sin(angle) * sum) : std::sin(angle) * sum;
  };
  double low = 0, high = std::numbers::pi / 2;
  for (int k = 0; k < 100; ++k) {
    const double middle = 0.5 * (low + high);
    (within(middle) < level ? low : high) = middle;
  }
  return std::tan(low) * std::sqrt(static_cast<double>(degrees_of_freedom));
}

}  // namespace varscale::fit
