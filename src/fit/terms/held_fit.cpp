#include "fit/terms/held_fit.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "fit/surface_bootstrap.hpp"

namespace varscale::fit {
namespace {

constexpr double kFarCoefficient = 600;  // of a coefficient's logarithm from the fit; exponents end long before

}  // namespace

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

double HeldFit::objective(const Unbound& p, Squares* squares) const {
  if (squares != nullptr) {
    squares->down.setZero(count_);
    squares->square.setZero(count_, count_);
  }
  double sum = 0;
  UnknownVector slope(count_);
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
    if (squares == nullptr) continue;
    squares->down += r * slope;
    squares->square.noalias() += slope * slope.transpose();
  }
  return sum;
}

double HeldFit::minimise(const HeldConstant& held, double at, Unbound& p) const {
  using Kind = HeldConstant::Kind;
  int fixed = 0;
  if (held.kind == Kind::kCoefficient) fixed = coefficient(held.index);
  if (held.kind == Kind::kExponent) fixed = exponent(held.index);
  if (held.kind == Kind::kRepeats) fixed = repeats();
  if (held.kind == Kind::kRatio) fixed = exponent(1);
  std::array<double, kMostUnknowns> low = low_, high = high_;
  low[fixed] = -std::numeric_limits<double>::infinity(), high[fixed] = -low[fixed];  // it follows, or does not move
  if (held.kind == Kind::kRatio) {
    low[exponent(0)] = kSmallestAlpha * std::max(1.0, std::exp(-at));
    high[exponent(0)] = kLargestAlpha * std::min(1.0, std::exp(-at));
  }
  const auto held_at = [&](const UnknownVector& unknowns) {
    Unbound all{};
    std::copy(unknowns.begin(), unknowns.end(), all.begin());
    hold(held, at, all);
    return all;
  };
  UnknownVector unknowns = Eigen::Map<const UnknownVector>(p.data(), count_);
  const double sum = minimise_within(
      [&](const UnknownVector& trial, Squares* squares) {
        const Unbound all = held_at(trial);
        const double value = objective(all, squares);
        if (squares == nullptr || !std::isfinite(value)) return value;
        // The constant that is held moves with the unknowns that it is made of.
        UnknownMatrix follow = UnknownMatrix::Identity(count_, count_);
        follow(fixed, fixed) = 0;
        if (held.kind == Kind::kCoefficient)
          follow(fixed, exponent(centred_.exponent[held.index])) = -centred_.mean_t[held.index] * all[fixed];
        if (held.kind == Kind::kRatio) follow(fixed, exponent(0)) = std::exp(at);
        squares->down = (follow.transpose() * squares->down).eval();
        squares->square = (follow.transpose() * squares->square * follow).eval();
        return value;
      },
      low, high, unknowns);
  p = held_at(unknowns);
  return sum;
}

}  // namespace varscale::fit
