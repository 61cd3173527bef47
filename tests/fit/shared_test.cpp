#include "fit/shared.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::fit {
namespace {

std::vector<Observation> group(const PowerLaw& law, double first, int count, double sd = 0, uint64_t seed = 0) {
  const base::RandomStream random(seed, "shared test");
  std::vector<Observation> points;
  for (int k = 0; k < count; ++k) {
    const double x = first * std::pow(2.5, k);
    points.push_back({x, law.at(x) + sd * random.normal(static_cast<uint64_t>(k))});
  }
  return points;
}

TEST(Shared, RecoversTheExponentAndEachGroupsConstants) {
  const PowerLaw a{3.0, 20, 0.2}, b{2.5, 15, 0.2};
  const Shared shared = fit_shared(group(a, 1e5, 5), group(b, 3e5, 4), {});
  // The flat bottom of a sum of squares leaves half the digits of a double to a search by values.
  EXPECT_NEAR(shared.alpha, 0.2, 1e-7);
  EXPECT_NEAR(shared.laws[0].E, 3.0, 1e-6);
  EXPECT_NEAR(shared.laws[1].E, 2.5, 1e-6);
  EXPECT_NEAR(shared.laws[1].B, 15, 1e-4);
}

TEST(Shared, OneEGivesTheMultiplierOfSize) {
  const double k = 1.7;
  const PowerLaw a{3.0, 20, 0.2}, b{3.0, 20 * std::pow(k, -0.2), 0.2};  // b at x is a at k x
  const Shared shared = fit_shared(group(a, 1e5, 4), group(b, 1e5, 4), {.same_e = true});
  EXPECT_NEAR(shared.multiplier(), k, 1e-5);
}

// Where the groups are one and the same, the shared fit is the fit of either.
TEST(Shared, IsTheSingleFitOfEqualGroups) {
  const auto points = group({3.0, 20, 0.2}, 1e5, 6, 0.01);
  const PowerFit single = fit_power_law(points, EFree{});
  const Shared shared = fit_shared(points, points, {.same_e = true});
  EXPECT_NEAR(shared.alpha, single.law.alpha, 1e-6);
  EXPECT_NEAR(shared.laws[0].E, single.law.E, 1e-5);
  EXPECT_NEAR(shared.objective, 2 * single.objective, 1e-12);
}

TEST(Shared, AHeavierGroupDecidesTheExponent) {
  const auto a = group({3.0, 20, 0.2}, 1e5, 6), b = group({3.0, 20, 0.3}, 1e5, 6);
  EXPECT_NEAR(fit_shared(a, b, {.weight = {1e8, 1}}).alpha, 0.2, 1e-3);
  EXPECT_NEAR(fit_shared(a, b, {.weight = {1, 1e8}}).alpha, 0.3, 1e-3);
}

TEST(Shared, NoConstantIsNegative) {
  const PowerLaw rising{0, 2, 0.1};
  auto a = group(rising, 1e5, 5);
  for (Observation& p : a) p.y = 2 - p.y / 2;  // rises with x
  const Shared shared = fit_shared(a, group({3.0, 20, 0.2}, 1e5, 5), {});
  EXPECT_EQ(shared.laws[0].B, 0);
  EXPECT_NEAR(shared.alpha, 0.2, 1e-6);
}

// 90 % intervals hold the truth in 90 % of the sweeps: of 100, 82 to 97 with probability 0.99 (binomial).
TEST(Shared, IntervalsCover) {
  const double k = 1.3;
  const PowerLaw a{3.0, 20, 0.2}, b{3.0, 20 * std::pow(k, -0.2), 0.2};
  int alpha_held = 0, multiplier_held = 0;
  for (uint64_t s = 0; s < 100; ++s) {
    std::vector<Observation> runs[2];
    for (uint64_t seed = 0; seed < 2; ++seed) {  // every size twice, which tells the noise
      for (const Observation& p : group(a, 1e5, 5, 0.005, 4 * s + seed)) runs[0].push_back(p);
      for (const Observation& p : group(b, 1e5, 5, 0.005, 4 * s + 2 + seed)) runs[1].push_back(p);
    }
    const std::array noise = {*seed_noise(runs[0]), *seed_noise(runs[1])};
    const SharedOptions options{.same_e = true};
    std::vector<double> alphas, multipliers;
    for (const Shared& each : bootstrap_shared(runs[0], runs[1], fit_shared(runs[0], runs[1], options), noise, options,
                                               {.resamples = 100, .seed = s, .level = 0.9})) {
      alphas.push_back(each.alpha);
      multipliers.push_back(each.multiplier());
    }
    alpha_held += central_interval(alphas, 0.9).contains(0.2) ? 1 : 0;
    multiplier_held += central_interval(multipliers, 0.9).contains(k) ? 1 : 0;
  }
  RecordProperty("alpha", alpha_held);
  RecordProperty("multiplier", multiplier_held);
  EXPECT_GE(alpha_held, 82);
  EXPECT_LE(alpha_held, 97);
  EXPECT_GE(multiplier_held, 82);
  EXPECT_LE(multiplier_held, 97);
}

TEST(Shared, RefusesTooFewSizesInEitherGroup) {
  const auto enough = group({3.0, 20, 0.2}, 1e5, 4), few = group({3.0, 20, 0.2}, 1e5, 2);
  EXPECT_THROW(fit_shared(enough, few, {}), base::UserError);
  EXPECT_THROW(fit_shared(few, enough, {}), base::UserError);
}

}  // namespace
}  // namespace varscale::fit
