#include "fit/surface_bootstrap.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "base/error.hpp"
#include "base/random.hpp"
#include "fit/terms/groups.hpp"
#include "fit/terms/in_parallel.hpp"

namespace varscale::fit {
namespace {

constexpr int64_t kLeastResamples = 100, kMostDraws = 1000;
constexpr uint64_t kFirstRunDrawn = 1 << 22;

double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double covariance_of(const std::vector<double>& a, const std::vector<double>& b) {
  const double mean_a = mean_of(a), mean_b = mean_of(b);
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - mean_a) * (b[i] - mean_b);
  return sum / static_cast<double>(a.size() - 1);
}

// Pooled over the places with several points, else of what the law leaves over; nothing where neither is there.
std::optional<Noise> noise_of(std::span<const SurfacePoint> points, const SurfaceFit& fit) {
  std::map<Place, double> number;  // of each place, for an x that seed_noise() can pool by
  std::vector<Observation> repeats;
  for (const SurfacePoint& p : points) {
    const auto [place, fresh] = number.try_emplace(p.x, static_cast<double>(number.size() + 1));
    repeats.push_back({place->second, p.y});
  }
  if (auto noise = seed_noise(repeats)) return noise;
  const int64_t degrees = static_cast<int64_t>(points.size()) - constant_count(fit.spec);
  if (degrees <= 0) return std::nullopt;
  double sum = 0;
  for (const SurfacePoint& p : points) sum += std::pow(p.y - fit.law.at(p.x), 2);
  return Noise{std::sqrt(sum / static_cast<double>(degrees)), degrees, "residuals of the fit"};
}

SurfaceLaw refit(std::span<const SurfacePoint> resample, const SurfaceFit& fit) {
  const SurfaceSpec& spec = fit.spec;
  const bool searched =
      spec.estimator == Estimator::kHuber || spec.estimator == Estimator::kLad || spec.form == Form::kBnsl;
  return searched ? fit_surface_from(resample, spec, fit.minima).law : fit_surface(resample, spec).law;
}

}  // namespace

std::optional<SurfaceBootstrap> bootstrap_surface(std::span<const SurfacePoint> points, const SurfaceFit& fit,
                                                  const BootstrapOptions& options) {
  if (options.resamples < kLeastResamples)
    throw base::UserError("{} bootstrap resamples; expected at least {}", options.resamples, kLeastResamples);
  std::set<Place> places;
  for (const SurfacePoint& p : points) places.insert(p.x);
  SurfaceBootstrap result;
  result.level = options.level;
  if (static_cast<int64_t>(places.size()) < kFewSizes) {
    result.method = BootstrapMethod::kParametric;
    result.noise = noise_of(points, fit);
    if (!result.noise) return std::nullopt;
  }
  const std::vector<std::vector<size_t>> runs = grouped(points, [](const SurfacePoint& p) { return p.run; });
  result.runs = static_cast<int64_t>(runs.size());

  const auto count = static_cast<size_t>(options.resamples);
  std::vector<int64_t> redrawn(count);
  result.laws.resize(count);
  in_parallel(count, [&](size_t b) {
    const base::RandomStream random(options.seed, "surface bootstrap", b);
    std::vector<SurfacePoint> resample;
    if (result.noise) {
      resample.assign(points.begin(), points.end());
      const double sd = draw_deviation(*result.noise, random);
      // A draw at or below E would not be a loss; half the law is far outside any real noise.
      for (size_t i = 0; i < resample.size(); ++i) {
        const double law = fit.law.at(resample[i].x);
        resample[i].y = std::max(law + sd * random.normal(i), 0.5 * law);
        if (fit.spec.given_e) resample[i].y = std::max(resample[i].y, std::nextafter(*fit.spec.given_e, 1e300));
      }
    } else {
      uint64_t draw = kFirstRunDrawn;
      for (;;) {
        resample.clear();
        for (size_t k = 0; k < runs.size(); ++k)
          for (const size_t i : runs[random.below(draw++, runs.size())]) resample.push_back(points[i]);
        if (too_few(resample, fit.spec).empty()) break;
        if (++redrawn[b] == kMostDraws)
          throw base::UserError("{} of {} resamples of {} runs in a row do not determine the form {}; expected more runs",
                                kMostDraws, kMostDraws, runs.size(), name(fit.spec.form));
      }
    }
    result.laws[b] = refit(resample, fit);
  });
  result.redrawn = std::accumulate(redrawn.begin(), redrawn.end(), int64_t{0});
  return result;
}

std::vector<double> SurfaceBootstrap::values(const std::function<double(const SurfaceLaw&)>& of) const {
  std::vector<double> values;
  values.reserve(laws.size());
  for (const SurfaceLaw& law : laws) values.push_back(of(law));
  return values;
}

Interval SurfaceBootstrap::interval(const std::function<double(const SurfaceLaw&)>& of) const {
  return central_interval(values(of), level);
}

Interval SurfaceBootstrap::interval(std::string_view constant) const {
  return interval([constant](const SurfaceLaw& law) { return law.constant(constant); });
}

Spread SurfaceBootstrap::spread() const {
  const size_t count = laws.front().constants.size();
  std::vector<std::vector<double>> columns;
  for (size_t k = 0; k < count; ++k)
    columns.push_back(values([k](const SurfaceLaw& law) { return law.constants[k]; }));
  Spread spread;
  for (size_t k = 0; k < count; ++k) {
    std::vector<double>& row = spread.covariance.emplace_back();
    for (size_t l = 0; l < count; ++l) row.push_back(covariance_of(columns[k], columns[l]));
    spread.se.push_back(std::sqrt(row[k]));
  }
  return spread;
}

double compute_exponent(const SurfaceLaw& law) {
  const double alpha = law.constant("alpha"), beta = law.constant("beta");
  return beta / (alpha + beta);
}

double deviation(const std::vector<double>& values) { return std::sqrt(covariance_of(values, values)); }

}  // namespace varscale::fit
