#include "fit/terms/smooth_break.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "fit/terms/bounded_squares.hpp"
#include "fit/terms/in_parallel.hpp"

namespace varscale::fit {
namespace {

constexpr double kScannedSlope[] = {0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6};
constexpr double kScannedChange[] = {-0.8, -0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6};
constexpr double kScannedWidth[] = {0.05, 0.2, 0.8, 3};
constexpr int kScannedPlaces = 8, kScanEnds = 48;
constexpr double kLargestChange = 5, kSharpest = 0.02, kWidest = 20;  // of c1 and f
constexpr double kNoBreak = 1e-6;                                     // of ln law
constexpr int kUnknowns = 6;                                          // E, b, c0, c1, ln d, ln f
enum { kE, kB, kC0, kC1, kLogD, kLogF };

double softplus(double t) { return t > 0 ? t + std::log1p(std::exp(-t)) : std::log1p(std::exp(t)); }

class Break {
 public:
  Break(std::span<const SurfacePoint> points, const SurfaceSpec& spec) : spec_(spec) {
    for (const SurfacePoint& p : points) {
      z_.push_back(std::log(p.x[0]));
      y_.push_back(p.y), log_y_.push_back(std::log(p.y));
      centre_ += z_.back() / static_cast<double>(points.size());
    }
    for (double& z : z_) z -= centre_;
    std::vector<double> sizes = z_;
    std::ranges::sort(sizes);
    sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
    const double given = spec.given_e.value_or(0), far = std::numeric_limits<double>::infinity();
    // A power that flattens out, c1 = -c0 with f = 1 / c0, is E + B x^-c0 itself: where E is searched, only it flattens.
    low = {given, 0, kSmallestAlpha, spec.given_e ? -kLargestChange : 0, sizes[kSizesBeyondBreak - 1], std::log(kSharpest)};
    high = {spec.given_e ? given : far, far, kLargestAlpha, kLargestChange, sizes[sizes.size() - kSizesBeyondBreak],
            std::log(kWidest)};
  }

  std::array<double, kUnknowns> low{}, high{};

  double sum(const UnknownVector& p, Squares* squares) const {
    if (squares != nullptr) squares->down.setZero(kUnknowns), squares->square.setZero(kUnknowns, kUnknowns);
    const double f = std::exp(p[kLogF]);
    double total = 0;
    for (size_t i = 0; i < z_.size(); ++i) {
      const double past = z_[i] - p[kLogD], bend = f * softplus(past / f), share = 1 / (1 + std::exp(-past / f));
      const double growth = std::exp(-p[kC0] * z_[i] - p[kC1] * bend), part = p[kB] * growth, law = p[kE] + part;
      if (!(law > 0 && std::isfinite(law))) return std::numeric_limits<double>::infinity();
      const bool logarithmic = spec_.space == Space::kLog;
      const double r = logarithmic ? log_y_[i] - std::log(law) : y_[i] - law;
      total += r * r;
      if (squares == nullptr) continue;
      UnknownVector slope(kUnknowns);
      slope << 1, growth, -part * z_[i], -part * bend, part * p[kC1] * share, -part * p[kC1] * (bend - share * past);
      if (logarithmic) slope /= law;
      squares->down += r * slope;
      squares->square.noalias() += slope * slope.transpose();
    }
    return total;
  }

  // E and b by non-negative least squares at the others; in log space of relative residuals.
  double fill(UnknownVector& p) const {
    const double f = std::exp(p[kLogF]);
    double w = 0, g = 0, y = 0, gg = 0, gy = 0, yy = 0;
    for (size_t i = 0; i < z_.size(); ++i) {
      const double growth = std::exp(-p[kC0] * z_[i] - p[kC1] * f * softplus((z_[i] - p[kLogD]) / f));
      const double weight = spec_.space == Space::kLog ? 1 / (y_[i] * y_[i]) : 1;
      w += weight, g += weight * growth, y += weight * y_[i];
      gg += weight * growth * growth, gy += weight * growth * y_[i], yy += weight * y_[i] * y_[i];
    }
    p[kE] = spec_.given_e.value_or(0);
    p[kB] = std::max(0.0, (gy - p[kE] * g) / gg);
    if (!spec_.given_e) {
      const double b = (w * gy - g * y) / (w * gg - g * g), e = (y - b * g) / w;
      if (b >= 0 && e >= 0) p[kE] = e, p[kB] = b;
      if (b < 0) p[kE] = y / w, p[kB] = 0;
    }
    return yy - 2 * (p[kE] * y + p[kB] * gy) + p[kE] * p[kE] * w + 2 * p[kE] * p[kB] * g + p[kB] * p[kB] * gg;
  }

  EndLaw descend(UnknownVector p) const {
    EndLaw end;
    end.objective = minimise_within([this](const UnknownVector& at, Squares* squares) { return sum(at, squares); }, low, high, p);
    end.law = {Form::kBnsl,
               {p[kE], p[kB] * std::exp(p[kC0] * centre_), p[kC0], p[kC1], std::exp(p[kLogD] + centre_), std::exp(p[kLogF])}};
    return end;
  }

  UnknownVector unknowns(const SurfaceLaw& law) const {
    UnknownVector p(kUnknowns);
    p << law.constants[0], law.constants[1] * std::exp(-law.constants[2] * centre_), law.constants[2], law.constants[3],
        std::log(law.constants[4]) - centre_, std::log(law.constants[5]);
    for (int k = 0; k < kUnknowns; ++k) p[k] = std::clamp(p[k], low[k], high[k]);
    return p;
  }

 private:
  SurfaceSpec spec_;
  std::vector<double> z_, y_, log_y_;  // z is ln x about its mean
  double centre_ = 0;
};

std::vector<EndLaw> descend(const Break& model, const std::vector<UnknownVector>& starts) {
  std::vector<EndLaw> ends(starts.size());
  in_parallel(starts.size(), [&](size_t i) { ends[i] = model.descend(starts[i]); });
  return ends;
}

}  // namespace

double broken_power(const SurfaceLaw& law, double x) {
  const double log_x = std::log(x), f = law.constants[5];
  return law.constants[1] *
         std::exp(-law.constants[2] * log_x - law.constants[3] * f * softplus((log_x - std::log(law.constants[4])) / f));
}

std::vector<EndLaw> search_break(std::span<const SurfacePoint> points, const SurfaceSpec& spec) {
  const Break model(points, spec);
  std::vector<std::pair<double, UnknownVector>> scan;
  for (const double slope : kScannedSlope)
    for (const double change : kScannedChange) {
      if (change < model.low[kC1]) continue;
      for (const double width : kScannedWidth)
        for (int k = 0; k < kScannedPlaces; ++k) {
          UnknownVector p(kUnknowns);
          p << 0, 0, slope, change, model.low[kLogD] + (model.high[kLogD] - model.low[kLogD]) * k / (kScannedPlaces - 1),
              std::log(width);
          const double objective = model.fill(p);
          scan.emplace_back(objective, p);
        }
    }
  std::ranges::stable_sort(scan, {}, [](const auto& one) { return one.first; });
  std::vector<UnknownVector> starts;
  for (int k = 0; k < kScanEnds; ++k) starts.push_back(scan[static_cast<size_t>(k)].second);
  return descend(model, starts);
}

std::vector<EndLaw> search_break_from(std::span<const SurfacePoint> points, const SurfaceSpec& spec,
                                      std::span<const SurfaceLaw> starts) {
  const Break model(points, spec);
  std::vector<UnknownVector> from;
  for (const SurfaceLaw& law : starts) from.push_back(model.unknowns(law));
  return descend(model, from);
}

std::string bound_of_break(const SurfaceLaw& law, std::span<const SurfacePoint> points) {
  const double c0 = law.constant("c0"), c1 = law.constant("c1"), d = law.constant("d"), f = law.constant("f");
  const Break model(points, {.form = Form::kBnsl});
  const UnknownVector p = model.unknowns(law);
  double moved = 0;
  for (const SurfacePoint& point : points) moved = std::max(moved, std::abs(c1) * f * softplus(std::log(point.x[0] / d) / f));
  if (moved <= kNoBreak) return "c1 = 0";
  if (c0 <= kSmallestAlpha || c0 >= kLargestAlpha) return fmt::format("c0 = {:.6g}", c0);
  if (std::abs(c1) >= kLargestChange) return fmt::format("c1 = {:.6g}", c1);
  if (p[kLogD] <= model.low[kLogD] + 1e-9 || p[kLogD] >= model.high[kLogD] - 1e-9) return fmt::format("d = {:.6g}", d);
  if (f <= kSharpest * (1 + 1e-9) || f >= kWidest * (1 - 1e-9)) return fmt::format("f = {:.6g}", f);
  return "";
}

}  // namespace varscale::fit
