#include "fit/bootstrap.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::fit {
namespace {

constexpr int64_t kFewestResamples = 100;
// Where each kind of draw begins in a resample's stream.
constexpr uint64_t kFirstChiSquare = 1 << 20;
constexpr uint64_t kNewRun = 1 << 21;
constexpr uint64_t kFirstChoice = 1 << 22;

template <class Member>
Interval interval_of(const Bootstrap& bootstrap, Member member) {
  std::vector<double> values;
  values.reserve(bootstrap.laws.size());
  for (const PowerLaw& law : bootstrap.laws) values.push_back(member(law));
  return central_interval(std::move(values), bootstrap.level);
}

}  // namespace

double draw_deviation(const Noise& noise, const base::RandomStream& random) {
  double chi_square = 0;
  for (int64_t k = 0; k < noise.degrees_of_freedom; ++k) {
    const double z = random.normal(kFirstChiSquare + static_cast<uint64_t>(k));
    chi_square += z * z;
  }
  if (chi_square == 0) return noise.sd;
  return noise.sd * std::sqrt(static_cast<double>(noise.degrees_of_freedom) / chi_square);
}

std::optional<Noise> seed_noise(std::span<const Observation> points) {
  std::map<double, std::vector<double>> by_size;
  for (const Observation& p : points) by_size[p.x].push_back(p.y);
  double sum = 0;
  int64_t degrees = 0;
  for (const auto& [size, values] : by_size) {
    double mean = 0;
    for (double y : values) mean += y / static_cast<double>(values.size());
    for (double y : values) sum += (y - mean) * (y - mean);
    degrees += static_cast<int64_t>(values.size()) - 1;
  }
  if (degrees == 0) return std::nullopt;
  return Noise{std::sqrt(sum / static_cast<double>(degrees)), degrees, "repeated seeds"};
}

std::optional<Noise> estimate_noise(std::span<const Observation> points, const PowerFit& fit) {
  if (auto noise = seed_noise(points)) return noise;
  const int64_t degrees = static_cast<int64_t>(points.size()) - constant_count(fit.e_rule);
  if (degrees <= 0) return std::nullopt;
  double sum = 0;
  for (const Observation& p : points) sum += (p.y - fit.law.at(p.x)) * (p.y - fit.law.at(p.x));
  return Noise{std::sqrt(sum / static_cast<double>(degrees)), degrees, "residuals of the fit"};
}

Bootstrap bootstrap_fit(std::span<const Observation> points, const PowerFit& fit,
                        const Noise& noise, const BootstrapOptions& options) {
  return bootstrap_fit(points, fit, Redraw{noise, {}}, options);
}

Bootstrap bootstrap_fit(std::span<const Observation> points, const PowerFit& fit,
                        const Redraw& redraw, const BootstrapOptions& options) {
  const Noise& noise = redraw.noise;
  if (options.resamples < kFewestResamples)
    throw base::UserError("{} bootstrap resamples; expected at least {}", options.resamples,
                          kFewestResamples);
  VARSCALE_CHECK(points.size() < kFirstChiSquare, "{} points in one fit", points.size());
  VARSCALE_CHECK(noise.sd >= 0 && noise.degrees_of_freedom > 0,
                 "noise {} from {} degrees of freedom", noise.sd, noise.degrees_of_freedom);
  Bootstrap result;
  result.method = fit.distinct_sizes < kFewSizes || redraw.deviation ? BootstrapMethod::kParametric
                                                                     : BootstrapMethod::kByRun;
  result.noise = noise;
  result.level = options.level;

  std::vector<Observation> resample(points.begin(), points.end());
  for (int64_t b = 0; b < options.resamples; ++b) {
    const base::RandomStream random(options.seed, "bootstrap", static_cast<uint64_t>(b));
    const double sd = draw_deviation(noise, random);
    result.errors.push_back(sd * random.normal(kNewRun));
    if (result.method == BootstrapMethod::kParametric) {
      // A draw at or below E would not be a loss; half the law is far outside any real noise.
      for (size_t i = 0; i < points.size(); ++i) {
        const double law = fit.law.at(points[i].x);
        const double deviation = redraw.deviation ? redraw.deviation(i, sd, random) : sd * random.normal(i);
        resample[i].y = std::max(law + deviation, 0.5 * law);
      }
      if (const auto* given = std::get_if<EGiven>(&fit.e_rule))
        for (Observation& p : resample) p.y = std::max(p.y, std::nextafter(given->value, 1e300));
    } else {
      uint64_t draw = kFirstChoice;
      for (bool enough = false; !enough;) {
        for (Observation& p : resample) p = points[random.below(draw++, points.size())];
        enough =
            static_cast<int64_t>(distinct_sizes(resample).size()) >= constant_count(fit.e_rule);
        if (!enough) ++result.redrawn;
      }
    }
    result.laws.push_back(fit_power_law(resample, fit.e_rule, fit.space).law);
  }
  return result;
}

Interval Bootstrap::E() const {
  return interval_of(*this, [](const PowerLaw& law) { return law.E; });
}
Interval Bootstrap::B() const {
  return interval_of(*this, [](const PowerLaw& law) { return law.B; });
}
Interval Bootstrap::alpha() const {
  return interval_of(*this, [](const PowerLaw& law) { return law.alpha; });
}
Interval Bootstrap::law_at(double x) const {
  return interval_of(*this, [x](const PowerLaw& law) { return law.at(x); });
}

Interval Bootstrap::new_runs_at(double x, int64_t runs, const PowerLaw& fitted) const {
  VARSCALE_CHECK(runs >= 1 && errors.size() == laws.size(), "{} runs, {} errors, {} laws", runs,
                 errors.size(), laws.size());
  const double centre = fitted.at(x), shrink = 1 / std::sqrt(static_cast<double>(runs));
  std::vector<double> values;
  values.reserve(laws.size());
  for (size_t b = 0; b < laws.size(); ++b)
    values.push_back(centre + (centre + shrink * errors[b] - laws[b].at(x)));
  return central_interval(std::move(values), level);
}

double quantile(std::vector<double> values, double p) {
  VARSCALE_CHECK(!values.empty() && p >= 0 && p <= 1, "quantile {} of {} values", p, values.size());
  std::sort(values.begin(), values.end());
  const double place = p * static_cast<double>(values.size() - 1);
  const size_t below = std::min(static_cast<size_t>(place), values.size() - 1);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

Interval central_interval(std::vector<double> values, double level) {
  std::sort(values.begin(), values.end());
  return {quantile(values, 0.5 - level / 2), quantile(values, 0.5 + level / 2)};
}

}  // namespace varscale::fit
