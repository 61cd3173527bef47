#include "fit/terms/held_fit.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "fit/surface_bootstrap.hpp"

namespace varscale::fit {
namespace {

constexpr int kMostHeldSteps = 300;
constexpr double kNoGain = 1e-14;        // relative: the objective is a minimum
constexpr double kFarCoefficient = 600;  // of a coefficient's logarithm from the fit; exponents end long before
using Columns = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, 0, kMostUnbound, kMostUnbound>;
using Column = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, kMostUnbound, 1>;

}  // namespace

// Of the objective: half the gradient, and its Gauss-Newton matrix.
struct HeldFit::Derivatives {
  Column down;  // J' r
  Columns square;
  // Constants that follow others when one is held: d p / d unknowns, row by row.
  Columns follow;
};

double HeldConstant::of_law(const SurfaceLaw& law) const {
  return kind == Kind::kRatio ? compute_exponent(law) : law.constant(name);
}

HeldFit::HeldFit(std::span<const SurfacePoint> points, const SurfaceFit& fit)
    : points_(points),
      spec_(fit.spec),
      centred_(points, fit.spec, shape_of(fit.spec.form).repeats ? fit.law.constant("R") : 0),
      has_repeats_(shape_of(fit.spec.form).repeats),
      terms_(static_cast<int>(centred_.t.size())),
      exponents_(centred_.exponents),
      count_(1 + terms_ + exponents_ + (has_repeats_ ? 1 : 0)) {
  const Constants constants = centred_.constants(fit.law);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  largest_ = *std::ranges::max_element(centred_.y);
  start_[0] = constants.E;
  low_[0] = centred_.free_e ? 0 : centred_.given_e;
  high_[0] = centred_.free_e ? kInfinity : centred_.given_e;
  for (int j = 0; j < terms_; ++j) start_[coefficient(j)] = constants.c[j], high_[coefficient(j)] = kInfinity;
  for (int e = 0; e < exponents_; ++e) {
    start_[exponent(e)] = constants.theta[e];
    low_[exponent(e)] = kSmallestAlpha, high_[exponent(e)] = kLargestAlpha;
  }
  if (has_repeats_) {
    start_[repeats()] = std::log(centred_.repeats);
    low_[repeats()] = std::log(kSmallestRepeats), high_[repeats()] = std::log(kLargestRepeats);
  }
}

std::vector<HeldConstant> HeldFit::constants() const {
  using Kind = HeldConstant::Kind;
  const std::vector<std::string_view> names = constant_names(spec_.form);
  std::vector<HeldConstant> all;
  size_t k = 0;
  if (shape_of(spec_.form).has_e) {
    if (centred_.free_e) all.push_back({std::string(names[k]), Kind::kE});
    ++k;
  }
  for (int j = 0; j < terms_; ++j) all.push_back({std::string(names[k++]), Kind::kCoefficient, j});
  for (int e = 0; e < exponents_; ++e) all.push_back({std::string(names[k++]), Kind::kExponent, e});
  if (has_repeats_) all.push_back({std::string(names[k++]), Kind::kRepeats});
  if (spec_.form == Form::kChinchilla) all.push_back({"a", Kind::kRatio});
  return all;
}

double HeldFit::coordinate(const HeldConstant& held, const Unbound& p) const {
  switch (held.kind) {
    case HeldConstant::Kind::kE:
      return p[0];
    case HeldConstant::Kind::kCoefficient:
      return std::log(p[coefficient(held.index)]) + p[exponent(centred_.exponent[held.index])] * centred_.mean_t[held.index];
    case HeldConstant::Kind::kExponent:
      return std::log(p[exponent(held.index)]);
    case HeldConstant::Kind::kRepeats:
      return p[repeats()];
    case HeldConstant::Kind::kRatio:
      break;
  }
  return std::log(p[exponent(1)] / p[exponent(0)]);
}

double HeldFit::coordinate_of(const HeldConstant& held, double value) const {
  if (held.kind == HeldConstant::Kind::kE) return value;
  return held.kind == HeldConstant::Kind::kRatio ? std::log(value / (1 - value)) : std::log(value);
}

double HeldFit::value(const HeldConstant& held, double coordinate) const {
  if (held.kind == HeldConstant::Kind::kE) return coordinate;
  return held.kind == HeldConstant::Kind::kRatio ? 1 / (1 + std::exp(-coordinate)) : std::exp(coordinate);
}

double HeldFit::unit(const HeldConstant& held) const { return held.kind == HeldConstant::Kind::kE ? largest_ : 1; }

double HeldFit::limit(const HeldConstant& held, int direction) const {
  switch (held.kind) {
    case HeldConstant::Kind::kE:
      return direction > 0 ? largest_ : 0;
    case HeldConstant::Kind::kCoefficient:
      return coordinate(held, start_) + direction * kFarCoefficient;
    case HeldConstant::Kind::kExponent:
      return std::log(direction > 0 ? kLargestAlpha : kSmallestAlpha);
    case HeldConstant::Kind::kRepeats:
      return std::log(direction > 0 ? kLargestRepeats : kSmallestRepeats);
    case HeldConstant::Kind::kRatio:
      break;
  }
  return direction * std::log(kLargestAlpha / kSmallestAlpha);
}

bool HeldFit::vanished() const {
  return std::any_of(start_.begin() + coefficient(0), start_.begin() + exponent(0), [](double c) { return c <= 0; });
}

bool HeldFit::on_search_bound(const Unbound& p) const {
  for (int k = exponent(0); k < count_; ++k)
    if (p[k] <= low_[k] || p[k] >= high_[k]) return true;
  return false;
}

void HeldFit::hold(const HeldConstant& held, double at, Unbound& p) const {
  switch (held.kind) {
    case HeldConstant::Kind::kE:
      p[0] = at;
      break;
    case HeldConstant::Kind::kCoefficient:
      p[coefficient(held.index)] = std::exp(at - p[exponent(centred_.exponent[held.index])] * centred_.mean_t[held.index]);
      break;
    case HeldConstant::Kind::kExponent:
      p[exponent(held.index)] = std::clamp(std::exp(at), kSmallestAlpha, kLargestAlpha);
      break;
    case HeldConstant::Kind::kRepeats:
      p[repeats()] = at;
      break;
    case HeldConstant::Kind::kRatio:
      p[exponent(0)] =
          std::clamp(p[exponent(0)], kSmallestAlpha * std::max(1.0, std::exp(-at)), kLargestAlpha * std::min(1.0, std::exp(-at)));
      p[exponent(1)] = std::clamp(p[exponent(0)] * std::exp(at), kSmallestAlpha, kLargestAlpha);
      break;
  }
}

double HeldFit::objective(const Unbound& p, Derivatives* derivatives) const {
  if (derivatives != nullptr) {
    derivatives->down.setZero(count_);
    derivatives->square.setZero(count_, count_);
  }
  double sum = 0;
  Column slope(count_);
  const double r_value = has_repeats_ ? std::exp(p[repeats()]) : 0;
  for (size_t i = 0; i < points_.size(); ++i) {
    double law = p[0];
    slope.setZero();
    slope[0] = 1;
    for (int j = 0; j < terms_; ++j) {
      const double theta = p[exponent(centred_.exponent[j])];
      double t = centred_.t[j][i];
      const bool repeated = has_repeats_ && j == 1;
      if (repeated) t = std::log(effective_data(points_[i].x[1], points_[i].x[2], r_value)) - centred_.mean_t[j];
      const double growth = std::exp(-theta * t), part = p[coefficient(j)] * growth;
      law += part;
      slope[coefficient(j)] = growth;
      slope[exponent(centred_.exponent[j])] -= part * t;
      if (repeated)
        slope[repeats()] = -theta * part * r_value * log_slope_of_effective_data(points_[i].x[1], points_[i].x[2], r_value);
    }
    if (!(law > 0 && std::isfinite(law))) return std::numeric_limits<double>::infinity();
    const bool logarithmic = spec_.space == Space::kLog;
    const double r = logarithmic ? centred_.log_y[i] - std::log(law) : centred_.y[i] - law;
    if (logarithmic) slope /= law;
    sum += r * r;
    if (derivatives == nullptr) continue;
    derivatives->down += r * slope;
    derivatives->square.noalias() += slope * slope.transpose();
  }
  return sum;
}

// Levenberg and Marquardt's method; unknowns on a bound that the step would cross stay there.
double HeldFit::minimise(const HeldConstant& held, double at, Unbound& p) const {
  // Which constant is held, and what its unknowns carry with them.
  using Kind = HeldConstant::Kind;
  int fixed = 0;
  if (held.kind == Kind::kCoefficient) fixed = coefficient(held.index);
  if (held.kind == Kind::kExponent) fixed = exponent(held.index);
  if (held.kind == Kind::kRepeats) fixed = repeats();
  if (held.kind == Kind::kRatio) fixed = exponent(1);
  std::array<double, kMostUnbound> low = low_, high = high_;
  if (held.kind == Kind::kRatio) {
    low[exponent(0)] = kSmallestAlpha * std::max(1.0, std::exp(-at));
    high[exponent(0)] = kLargestAlpha * std::min(1.0, std::exp(-at));
  }
  hold(held, at, p);
  Derivatives here;
  double now = objective(p, &here), damping = 1e-4;
  for (int step = 0; step < kMostHeldSteps; ++step) {
    here.follow.setIdentity(count_, count_);
    here.follow(fixed, fixed) = 0;
    if (held.kind == Kind::kCoefficient)
      here.follow(fixed, exponent(centred_.exponent[held.index])) = -centred_.mean_t[held.index] * p[fixed];
    if (held.kind == Kind::kRatio) here.follow(fixed, exponent(0)) = std::exp(at);
    const Column down = here.follow.transpose() * here.down;
    const Columns square = here.follow.transpose() * here.square * here.follow;
    bool moved = false;
    double gain = 0;
    for (int attempt = 0; attempt < 40 && !moved; ++attempt) {
      Columns matrix = square;
      Column right = down;
      for (int k = 0; k < count_; ++k) {
        const bool stays =
            k == fixed || !(square(k, k) > 0) || (p[k] <= low[k] && down[k] <= 0) || (p[k] >= high[k] && down[k] >= 0);
        if (stays) {
          matrix.row(k).setZero(), matrix.col(k).setZero();
          matrix(k, k) = 1, right[k] = 0;
        } else {
          matrix(k, k) *= 1 + damping;
        }
      }
      const Column scale = matrix.diagonal().cwiseSqrt().cwiseInverse();
      const Column by =
          scale.cwiseProduct((scale.asDiagonal() * matrix * scale.asDiagonal()).ldlt().solve(scale.cwiseProduct(right).eval()));
      Unbound trial = p;
      for (int k = 0; k < count_; ++k)
        if (k != fixed) trial[k] = std::clamp(p[k] + by[k], low[k], high[k]);
      hold(held, at, trial);
      Derivatives there;
      const double sum = objective(trial, &there);
      if (sum < now) {
        gain = now - sum;
        moved = true;
        p = trial, now = sum, here = there;
        damping = damping / 10 < 1e-12 ? 0 : damping / 10;
      } else {
        damping = std::max(10 * damping, 1e-10);
      }
    }
    if (!moved || gain <= kNoGain * now) break;
  }
  return now;
}

}  // namespace varscale::fit
