// The form bnsl of fit/surface.hpp.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "fit/profile.hpp"
#include "fit/surface_bootstrap.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;

const SurfaceLaw kBroken{Form::kBnsl, {2.0, 40, 0.12, 0.25, 2e7, 0.6}};

// Sixteen sizes over four and a half decades.
std::vector<SurfacePoint> broken(const SurfaceLaw& law, double sd = 0) {
  const base::RandomStream random(2, "synthetic break");
  std::vector<SurfacePoint> points;
  for (int k = 0; k < 16; ++k) {
    SurfacePoint& p = points.emplace_back();
    p.x = {1e5 * std::pow(2.0, k)};
    p.y = law.at(p.x) * std::exp(sd * random.normal(points.size()));
  }
  return points;
}

// By the formula as it is printed, not by logarithms as the fit has it.
TEST(SmoothBreak, IsTheFormulaOfThePaper) {
  for (const double x : {1e5, 3e7, 2e9}) {
    const double formula = 2.0 + 40 * std::pow(x, -0.12) * std::pow(1 + std::pow(x / 2e7, 1 / 0.6), -0.25 * 0.6);
    EXPECT_NEAR(kBroken.at(std::array{x}) / formula, 1, 1e-13);
  }
}

// Exact data leave rounding of 1e-16; six constants that make up for each other multiply it by some 1e7.
TEST(SmoothBreak, IsRecoveredFromExactDataInBothSpaces) {
  // One that becomes steeper with E searched, and one that flattens, with E given.
  for (const SurfaceLaw& law : {kBroken, SurfaceLaw{Form::kBnsl, {1.2, 300, 0.4, -0.28, 5e6, 0.3}}}) {
    for (const Space space : {Space::kLinear, Space::kLog}) {
      SurfaceSpec spec{.form = Form::kBnsl, .space = space};
      if (law.constant("c1") < 0) spec.given_e = law.constant("E");
      const SurfaceFit fit = fit_surface(broken(law), spec);
      for (const std::string_view name : constant_names(Form::kBnsl))
        EXPECT_NEAR(fit.law.constant(name) / law.constant(name), 1, 1e-5) << name;
      EXPECT_EQ(fit.bound, "");
    }
  }
}

TEST(SmoothBreak, WithoutABreakIsThePowerLawAndSaysSo) {
  const SurfaceLaw law{Form::kPowerE, {4.2, 30, 0.25}};
  const SurfaceFit fit = fit_surface(broken(law), {.form = Form::kBnsl});
  EXPECT_EQ(fit.bound, "c1 = 0");
  EXPECT_NEAR(fit.law.constant("c0"), 0.25, 1e-6);
  EXPECT_NEAR(fit.law.constant("E"), 4.2, 1e-6);
}

TEST(SmoothBreak, OfNoisyDataHasNoLowerNeighbourAndFitsBetterThanAPower) {
  const std::vector<SurfacePoint> points = broken(kBroken, 0.002);
  const SurfaceFit fit = fit_surface(points, {.form = Form::kBnsl, .space = Space::kLog});
  EXPECT_LT(fit.objective, 0.5 * fit_surface(points, {.form = Form::kPowerE, .space = Space::kLog}).objective);
  EXPECT_EQ(fit.bound, "");
  for (size_t k = 0; k < fit.law.constants.size(); ++k)
    for (const double step : {-1e-4, 1e-4}) {
      SurfaceLaw moved = fit.law;
      moved.constants[k] *= 1 + step;
      EXPECT_GT(objective_of(moved, points, fit.spec), fit.objective) << constant_names(Form::kBnsl)[k];
    }
}

// Where the bend only begins within the points, d is held between them and said to be on its bound.
TEST(SmoothBreak, BeyondThePointsIsNamedAsABound) {
  const SurfaceLaw law{Form::kBnsl, {0.5, 40, 0.12, 0.6, 2e10, 0.6}};
  const SurfaceFit fit = fit_surface(broken(law), {.form = Form::kBnsl, .given_e = 0.5});
  EXPECT_THAT(fit.bound, StartsWith("d = "));
  EXPECT_NEAR(fit.law.constant("d") / (1e5 * std::pow(2.0, 14)), 1, 1e-9);  // the second largest size
}

TEST(SmoothBreak, HasIntervalsFromRefitsOfItsMinima) {
  const std::vector<SurfacePoint> points = broken(kBroken, 0.001);
  const SurfaceFit fit = fit_surface(points, {.form = Form::kBnsl, .given_e = 2.0});
  const SurfaceBootstrap bootstrap = *bootstrap_surface(points, fit, {.resamples = 100, .seed = 1});
  EXPECT_EQ(bootstrap.method, BootstrapMethod::kByRun);
  EXPECT_TRUE(bootstrap.interval("c0").contains(fit.law.constant("c0")));
  EXPECT_GT(bootstrap.interval("c1").low, 0);
  for (const SurfaceLaw& law : bootstrap.laws) EXPECT_EQ(law.constant("E"), 2.0);
}

TEST(SmoothBreak, RefusesWhatDoesNotDetermineIt) {
  const std::vector<SurfacePoint> all = broken(kBroken);
  const auto refuses = [](std::span<const SurfacePoint> points, const SurfaceSpec& spec, const char* words) {
    EXPECT_THAT([&] { fit_surface(points, spec); }, ThrowsMessage<base::UserError>(HasSubstr(words)));
  };
  refuses(std::span(all).first(6), {Form::kBnsl}, "needs 7 distinct sizes, some before and some beyond its break; there are 6");
  refuses(all, {Form::kBnsl, Estimator::kHuber, Space::kLog}, "bnsl is not fitted by huber");
  const SurfaceFit fit = fit_surface(all, {Form::kBnsl});
  EXPECT_THAT([&] { profile_intervals(all, fit, {}); },
              ThrowsMessage<base::UserError>(HasSubstr("not computed for the form bnsl")));
}

}  // namespace
}  // namespace varscale::fit
