#include "fit/bootstrap.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "fit/held_out.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

const PowerLaw kLaw{4.217, 2.32, 0.185};
const std::vector<double> kFiveSizes = {75e3, 593e3, 2.00e6, 4.73e6, 9.24e6};
constexpr double kNoiseSd = 0.003;

// `seeds` runs at the first `repeated` sizes, one at the others.
std::vector<Observation> sweep(uint64_t seed, const std::vector<double>& sizes, int seeds,
                               size_t repeated) {
  const base::RandomStream random(seed, "synthetic sweep");
  std::vector<Observation> points;
  for (size_t k = 0; k < sizes.size(); ++k)
    for (int s = 0; s < (k < repeated ? seeds : 1); ++s)
      points.push_back({sizes[k], kLaw.at(sizes[k]) + kNoiseSd * random.normal(points.size())});
  return points;
}

TEST(SeedNoise, IsPooledOverTheSizesThatHaveRepeats) {
  const std::vector<Observation> points = {{1, 5.0}, {1, 5.2}, {2, 4.0},
                                           {2, 4.1}, {2, 4.2}, {3, 3.0}};
  const auto noise = seed_noise(points);
  ASSERT_TRUE(noise);
  EXPECT_EQ(noise->degrees_of_freedom, 3);
  EXPECT_NEAR(noise->sd, std::sqrt((0.02 + 0.02) / 3), 1e-12);
  EXPECT_FALSE(seed_noise(std::vector<Observation>{{1, 5.0}, {2, 4.0}}));
}

TEST(SeedNoise, FallsBackToResidualsAndSaysSo) {
  const std::vector<Observation> points = sweep(1, kFiveSizes, 1, 0);
  const PowerFit fit = fit_power_law(points, EFree{});
  const auto noise = estimate_noise(points, fit);
  ASSERT_TRUE(noise);
  EXPECT_EQ(noise->source, "residuals of the fit");
  EXPECT_EQ(noise->degrees_of_freedom, 2);
  EXPECT_NEAR(noise->sd, std::sqrt(fit.objective / 2), 1e-12);
  const std::vector<Observation> three(points.begin(), points.begin() + 3);
  EXPECT_FALSE(estimate_noise(three, fit_power_law(three, EFree{})));
}

TEST(Quantile, InterpolatesBetweenOrderStatistics) {
  EXPECT_DOUBLE_EQ(quantile({3, 1, 2}, 0.5), 2);
  EXPECT_DOUBLE_EQ(quantile({4, 1, 2, 3}, 0.25), 1.75);
  EXPECT_DOUBLE_EQ(quantile({5}, 0.9), 5);
}

TEST(Bootstrap, IsAFunctionOfItsSeed) {
  const std::vector<Observation> points = sweep(3, kFiveSizes, 2, 3);
  const PowerFit fit = fit_power_law(points, EFree{});
  const Noise noise = *estimate_noise(points, fit);
  const Bootstrap a = bootstrap_fit(points, fit, noise, {.resamples = 200, .seed = 5});
  const Bootstrap b = bootstrap_fit(points, fit, noise, {.resamples = 200, .seed = 5});
  const Bootstrap c = bootstrap_fit(points, fit, noise, {.resamples = 200, .seed = 6});
  EXPECT_EQ(a.method, BootstrapMethod::kParametric);
  EXPECT_EQ(a.alpha().low, b.alpha().low);
  EXPECT_NE(a.alpha().low, c.alpha().low);
}

TEST(Bootstrap, ResamplesRunsFromEightSizesOnAndCountsRedraws) {
  const std::vector<double> sizes = {1e5, 2e5, 4e5, 8e5, 16e5, 32e5, 64e5, 128e5};
  const std::vector<Observation> points = sweep(4, sizes, 1, 0);
  const PowerFit fit = fit_power_law(points, EFree{});
  const Bootstrap bootstrap =
      bootstrap_fit(points, fit, *estimate_noise(points, fit), {.resamples = 500, .seed = 1});
  EXPECT_EQ(bootstrap.method, BootstrapMethod::kByRun);
  EXPECT_EQ(bootstrap.laws.size(), 500u);
  // Two or fewer distinct of eight: 28 (2/8)^8 - 6 (1/8)^7, about 4e-4 a draw; 500 draws hardly see it.
  EXPECT_LT(bootstrap.redrawn, 5);
  EXPECT_TRUE(bootstrap.alpha().contains(fit.law.alpha));
}

TEST(Bootstrap, RefusesTooFewResamples) {
  const std::vector<Observation> points = sweep(3, kFiveSizes, 2, 3);
  const PowerFit fit = fit_power_law(points, EFree{});
  EXPECT_THAT([&] { bootstrap_fit(points, fit, *estimate_noise(points, fit), {.resamples = 10}); },
              ThrowsMessage<base::UserError>(HasSubstr("at least 100")));
}

// With E and the exponent's curvature known (two constants, little noise) the estimate of the law is
// linear in the data, and its interval is Student's: the bootstrap must be as wide.
TEST(Bootstrap, IsAsWideAsStudentsTWhenTheNoiseIsKnownFromFewSeeds) {
  const std::vector<Observation> points = sweep(9, kFiveSizes, 2, 2);
  const PowerFit fit = fit_power_law(points, EGiven{4.217, "test"});
  const Noise noise{0.001, 2, "test"};
  const Bootstrap bootstrap = bootstrap_fit(points, fit, noise, {.resamples = 8000, .seed = 2});
  // Width of a new run's interval = 2 t sqrt(1 + h) sd with the leverage h of the linearised problem.
  const double x = 16e6;
  double uu = 0, uv = 0, vv = 0;
  for (const auto& [size, y] : points) {
    const double u = std::pow(size, -fit.law.alpha), v = -fit.law.B * u * std::log(size);
    uu += u * u, uv += u * v, vv += v * v;
  }
  const double u = std::pow(x, -fit.law.alpha), v = -fit.law.B * u * std::log(x);
  const double h = (u * u * vv - 2 * u * v * uv + v * v * uu) / (uu * vv - uv * uv);
  const double t_90_at_2 = 2.91999;
  const Interval interval = bootstrap.new_runs_at(x, 1, fit.law);
  // 8,000 resamples: the 5 % quantile of t with 2 degrees has a relative error of about 2 %; 8 % is 4 sd.
  EXPECT_NEAR((interval.high - interval.low) / (2 * t_90_at_2 * std::sqrt(1 + h) * noise.sd), 1,
              0.08);
}

// Share of synthetic sweeps whose 90 % intervals hold the truth. 40 repetitions have a standard error of
// 4.7 % at 90 %: 31 is 3 sd below the nominal 36. The other side has no bound worth testing at 40.
TEST(Coverage, OfParametricIntervalsAtFiveSizesIsNearNominal) {
  constexpr int kRepetitions = 40, kFewest = 31;
  int alpha = 0, E = 0, loss = 0, gain = 0;
  for (uint64_t r = 0; r < kRepetitions; ++r) {
    const std::vector<Observation> points = sweep(100 + r, kFiveSizes, 2, 4);
    const PowerFit fit = fit_power_law(points, EFree{});
    const BootstrapOptions options{.resamples = 1000, .seed = r};
    const Bootstrap bootstrap = bootstrap_fit(points, fit, *estimate_noise(points, fit), options);
    alpha += bootstrap.alpha().contains(kLaw.alpha);
    E += bootstrap.E().contains(kLaw.E);
    const HeldOut held = hold_out_largest(points, EFree{}, options).front();
    loss += held.prediction.y_interval->contains(held.verdict.observed_y);
    gain += *held.verdict.covers;
  }
  EXPECT_GE(alpha, kFewest);
  EXPECT_GE(E, kFewest);
  EXPECT_GE(loss, kFewest);
  EXPECT_EQ(gain, loss);  // the gain is the loss seen from the mean of the size before it
  RecordProperty("alpha", alpha);
  RecordProperty("loss", loss);
}

TEST(HeldOut, PredictsExactDataExactly) {
  std::vector<Observation> points;
  for (double size : kFiveSizes) points.push_back({size, kLaw.at(size)});
  const HeldOut held = hold_out_largest(points, EFree{}, {.resamples = 100}).front();
  EXPECT_NEAR(held.prediction.y, kLaw.at(9.24e6), 1e-8);
  EXPECT_NEAR(held.prediction.gain, kLaw.at(4.73e6) - kLaw.at(9.24e6), 1e-8);
  EXPECT_NEAR(held.verdict.relative_error, 0, 1e-8);
  EXPECT_EQ(held.prediction.previous_x, 4.73e6);
}

// The recipe's own figures: d5 from d1-d4 is 4.3375 against 4.3350, gain .0146 against .0171.
// Two inputs' rounding (sizes to three digits) moves the prediction by some 1e-4.
TEST(HeldOut, ReproducesTheQuickstartPrediction) {
  const std::vector<Observation> table = {
      {75e3, 4.5081}, {593e3, 4.4134}, {2.00e6, 4.3769}, {4.73e6, 4.3521}, {9.24e6, 4.3350}};
  const HeldOut held = hold_out_largest(table, EFree{}, {.resamples = 100}).front();
  EXPECT_NEAR(held.verdict.observed_gain, 0.0171, 1e-12);
  EXPECT_NEAR(held.prediction.y, 4.338, 0.001);
}

TEST(HeldOut, LooksAtNoRowOfTheHeldOutSize) {
  std::vector<Observation> points = sweep(12, kFiveSizes, 2, 3);
  const HeldOut before = hold_out_largest(points, EFree{}, {.resamples = 100}).front();
  points.back().y += 0.1;
  const HeldOut after = hold_out_largest(points, EFree{}, {.resamples = 100}).front();
  EXPECT_EQ(before.prediction.y, after.prediction.y);
  EXPECT_EQ(before.prediction.gain_interval->low, after.prediction.gain_interval->low);
  EXPECT_NE(before.verdict.observed_gain, after.verdict.observed_gain);
}

TEST(HeldOut, HoldsSeveralSizesOut) {
  std::vector<Observation> points = sweep(12, kFiveSizes, 2, 3);
  const auto held = hold_out_largest(points, EFree{}, {.resamples = 100}, 2);
  ASSERT_EQ(held.size(), 2u);
  EXPECT_EQ(held[0].prediction.fit.distinct_sizes, 3);
  EXPECT_EQ(held[1].prediction.previous_x, 2.00e6);
}

TEST(HeldOut, RefusesWhenTooFewSizesAreLeft) {
  const std::vector<Observation> three = {{1, 3.0}, {2, 2.0}, {3, 1.7}};
  EXPECT_THAT([&] { hold_out_largest(three, EFree{}, {}); },
              ThrowsMessage<base::UserError>(HasSubstr("holding 1 of 3 sizes out leaves 2")));
  EXPECT_NO_THROW(hold_out_largest(three, EGiven{0, ""}, {.resamples = 100}));
}

TEST(HeldOut, HasNoIntervalWhereNothingTellsTheNoise) {
  const std::vector<Observation> four = {{1, 3.0}, {2, 2.5}, {4, 2.2}, {8, 2.05}};
  const HeldOut held = hold_out_largest(four, EFree{}, {}).front();
  EXPECT_FALSE(held.prediction.gain_interval);
  EXPECT_FALSE(held.verdict.covers);
}

TEST(Predict, RefusesASizeInsideTheFittedRange) {
  const std::vector<Observation> three = {{1, 3.0}, {2, 2.0}, {3, 1.7}};
  EXPECT_THAT([&] { predict(three, 2.5, EFree{}, {}); },
              ThrowsMessage<base::UserError>(HasSubstr("not above the largest fitted size")));
}

}  // namespace
}  // namespace varscale::fit
