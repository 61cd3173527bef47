#include "fit/profile.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "fit/surface_bootstrap.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

// Six sizes by five data sets, every second with its data seen eight times where the form asks for it.
std::vector<SurfacePoint> scattered(const SurfaceLaw& law, double sd, uint64_t seed) {
  const base::RandomStream random(seed, "synthetic profile");
  std::vector<SurfacePoint> points;
  for (double n : {5e7, 1.5e8, 4e8, 1e9, 3e9, 1e10}) {
    for (double d : {1e9, 4e9, 1.5e10, 6e10, 3e11}) {
      SurfacePoint& p = points.emplace_back();
      p.x = {n, d, points.size() % 2 == 0 ? d : d / 8};
      if (law.form == Form::kOvertrain) p.x = {6 * n * d, d / n};
      if (law.form == Form::kPowerE) p.x = {n * std::sqrt(d / 1e9)};
      p.y = law.at(p.x) + sd * random.normal(points.size());
    }
  }
  return points;
}

using Table = std::vector<std::vector<double>>;

Table inverse(Table a) {  // of a symmetric positive definite one, by Gauss and Jordan
  const size_t n = a.size();
  for (size_t k = 0; k < n; ++k) {
    const double pivot = a[k][k];
    a[k][k] = 1;
    for (double& value : a[k]) value /= pivot;
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      const double factor = std::exchange(a[i][k], 0);
      for (size_t j = 0; j < n; ++j) a[i][j] -= factor * a[k][j];
    }
  }
  return a;
}

// Standard errors of the linearised problem: derivatives by differences, of each constant and of a.
std::vector<double> standard_errors(const SurfaceFit& fit, std::span<const SurfacePoint> points) {
  const size_t count = fit.law.constants.size();
  const auto seen = [&](const SurfaceLaw& law, size_t i) {
    return fit.spec.space == Space::kLog ? std::log(law.at(points[i].x)) : law.at(points[i].x);
  };
  Table slopes(count), square(count, std::vector<double>(count));
  for (size_t k = 0; k < count; ++k) {
    SurfaceLaw above = fit.law, below = fit.law;
    above.constants[k] *= 1 + 1e-6, below.constants[k] *= 1 - 1e-6;  // by logarithms, so that columns are of one size
    for (size_t i = 0; i < points.size(); ++i) slopes[k].push_back((seen(above, i) - seen(below, i)) / 2e-6);
  }
  for (size_t k = 0; k < count; ++k)
    for (size_t l = 0; l < count; ++l)
      square[k][l] = std::inner_product(slopes[k].begin(), slopes[k].end(), slopes[l].begin(), 0.0);
  const double variance = fit.objective / static_cast<double>(points.size() - count);
  const Table covariance = inverse(square);
  std::vector<double> errors;
  for (size_t k = 0; k < count; ++k) errors.push_back(std::sqrt(variance * covariance[k][k]) * fit.law.constants[k]);
  if (fit.spec.form == Form::kChinchilla) {
    const double a = compute_exponent(fit.law);  // da = a (1 - a) (d ln beta - d ln alpha)
    errors.push_back(a * (1 - a) * std::sqrt(variance * (covariance[3][3] + covariance[4][4] - 2 * covariance[3][4])));
  }
  return errors;
}

TEST(StudentT, IsThatOfPublishedTables) {
  EXPECT_NEAR(student_t(0.9, 1), 6.313752, 1e-6);
  EXPECT_NEAR(student_t(0.95, 2), 4.302653, 1e-6);
  EXPECT_NEAR(student_t(0.9, 5), 2.015048, 1e-6);
  EXPECT_NEAR(student_t(0.95, 10), 2.228139, 1e-6);
  EXPECT_NEAR(student_t(0.99, 30), 2.749996, 1e-6);
  EXPECT_NEAR(student_t(0.9, 1000000), 1.644855, 2e-6);
}

// With noise so small that the law is straight across an interval, both rules are one. Intervals of 1e-3 of a constant
// bend by about as much; derivatives by differences have 1e-9.
TEST(Profile, OfLittleNoiseIsStudentsInterval) {
  const std::vector<SurfaceLaw> laws = {{Form::kPowerE, {1.9, 120, 0.27}},
                                        {Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}},
                                        {Form::kOvertrain, {1.5, 200, 190, 0.12}},
                                        {Form::kDataConstrained, {1.87, 521, 1488, 0.353, 0.353, 15.4}}};
  for (const SurfaceLaw& law : laws) {
    const std::vector<SurfacePoint> points = scattered(law, 1e-6, 4);
    for (const Space space : {Space::kLinear, Space::kLog}) {
      const SurfaceFit fit = fit_surface(points, {.form = law.form, .space = space});
      const ProfileIntervals profile = *profile_intervals(points, fit, {});
      const std::vector<double> errors = standard_errors(fit, points);
      ASSERT_GE(profile.constants.size(), errors.size());
      const double t = student_t(0.9, static_cast<int64_t>(points.size()) - constant_count(fit.spec));
      for (size_t k = 0; k < errors.size(); ++k) {
        const ProfileEnds& ends = profile.constants[k];
        ASSERT_TRUE(ends.low && ends.high) << name(law.form) << " " << ends.name;
        EXPECT_NEAR((ends.value - *ends.low) / (t * errors[k]), 1, 5e-3) << name(law.form) << " " << ends.name;
        EXPECT_NEAR((*ends.high - ends.value) / (t * errors[k]), 1, 5e-3) << name(law.form) << " " << ends.name;
      }
    }
  }
}

// The least sum of squares with E held, by the scan and Newton's method of the estimator itself, and with B held, by
// a fine scan of the exponent with E in closed form.
double with_e(std::span<const SurfacePoint> points, double E) {
  return fit_surface(points, {.form = Form::kPowerE, .given_e = E}).objective;
}
double with_b(std::span<const SurfacePoint> points, double B) {
  const auto at = [&](double alpha) {
    double mean = 0, sum = 0;
    for (const SurfacePoint& p : points) mean += (p.y - B * std::pow(p.x[0], -alpha)) / static_cast<double>(points.size());
    for (const SurfacePoint& p : points) sum += std::pow(p.y - std::max(mean, 0.0) - B * std::pow(p.x[0], -alpha), 2);
    return sum;
  };
  double best = 0.001, width = 0.001;
  for (double alpha = 0.001; alpha < 1; alpha += width)
    if (at(alpha) < at(best)) best = alpha;
  for (width /= 4; width > 1e-12; width /= 2)
    for (const double next : {best - width, best + width})
      if (at(next) < at(best)) best = next;
  return at(best);
}

TEST(Profile, OfFewPointsIsLopsidedAsABruteForceSearchFindsIt) {
  const SurfaceLaw law{Form::kPowerE, {4.0, 8, 0.2}};
  const base::RandomStream random(6, "five points");
  std::vector<SurfacePoint> points;
  for (double x : {1e4, 6e4, 3e5, 2e6, 1e7})
    points.push_back({{x}, law.at(std::array{x}) + 0.006 * random.normal(points.size())});
  const SurfaceFit fit = fit_surface(points, {.form = Form::kPowerE});
  const ProfileIntervals profile = *profile_intervals(points, fit, {});
  const double limit = fit.objective + profile.rise;
  const ProfileEnds &E = profile.of("E"), &B = profile.of("B");
  ASSERT_TRUE(E.low && E.high && B.low && B.high);
  EXPECT_LT(*E.high - E.value, 0.85 * (E.value - *E.low));
  // An end is found to 1e-10, and the objective rises there by its own size over about the width.
  for (const double end : {*E.low, *E.high}) EXPECT_NEAR(with_e(points, end) / limit, 1, 1e-6);
  for (const double end : {*B.low, *B.high}) EXPECT_NEAR(with_b(points, end) / limit, 1, 1e-6);
  // Nothing between the ends is excluded, and all beyond is.
  for (double share = 0.02; share < 1; share += 0.02) EXPECT_LT(with_e(points, *E.low + share * (*E.high - *E.low)), limit);
  const double lowest = std::ranges::min_element(points, {}, &SurfacePoint::y)->y;
  for (double e = 0; e < lowest; e += 0.01) EXPECT_TRUE(E.contains(e) || with_e(points, e) > limit) << e;
}

// With the others searched from nothing instead of from their neighbours, the ends of a surface are no lower.
TEST(Profile, OfASurfaceIsTheGlobalMinimumWithEHeld) {
  const std::vector<SurfacePoint> points = scattered({Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}}, 0.02, 7);
  for (const Space space : {Space::kLinear, Space::kLog}) {
    const SurfaceFit fit = fit_surface(points, {.space = space});
    const ProfileIntervals profile = *profile_intervals(points, fit, {.level = 0.95});
    for (const double end : {*profile.of("E").low, *profile.of("E").high})
      EXPECT_NEAR(fit_surface(points, {.space = space, .given_e = end}).objective / (fit.objective + profile.rise), 1, 1e-6);
    for (const ProfileEnds& ends : profile.constants) {
      if (ends.name == "b") continue;
      for (const double end : {*ends.low, *ends.high})
        EXPECT_NEAR(profiled_objective(points, fit, ends.name, end) / (fit.objective + profile.rise), 1, 1e-6) << ends.name;
    }
    EXPECT_NEAR(*profile.of("a").low + *profile.of("b").high, 1, 1e-12);
  }
}

TEST(Profile, TakesAGivenNoise) {
  const std::vector<SurfacePoint> points = scattered({Form::kPowerE, {1.9, 120, 0.27}}, 1e-3, 8);
  const SurfaceFit fit = fit_surface(points, {.form = Form::kPowerE});
  const ProfileIntervals own = *profile_intervals(points, fit, {}),
                         given = *profile_intervals(points, fit, {.noise = Noise{1e-3, 4, "test"}});
  EXPECT_NEAR(own.rise, fit.objective / 27 * std::pow(student_t(0.9, 27), 2), 1e-12);
  EXPECT_NEAR(given.rise, 1e-6 * 2.131847 * 2.131847, 1e-11);
}

TEST(Profile, IsOpenWhereNothingIsExcluded) {
  // One step and then noise: E may be anything down to 0, or the power may have died out at once.
  std::vector<SurfacePoint> points;
  const double y[] = {4.50, 4.40, 4.42, 4.36, 4.40};
  for (size_t i = 0; i < 5; ++i) points.push_back({{std::pow(2.0, static_cast<double>(i))}, y[i]});
  const SurfaceFit fit = fit_surface(points, {.form = Form::kPowerE});
  const ProfileIntervals profile = *profile_intervals(points, fit, {});
  EXPECT_FALSE(profile.of("E").low);
  EXPECT_TRUE(profile.of("E").contains(0));
  EXPECT_FALSE(profile.of("alpha").high);
  points.resize(3);
  EXPECT_FALSE(profile_intervals(points, fit_surface(points, {.form = Form::kPowerE}), {}));  // as many constants as points
}

TEST(Profile, RefusesWhatIsNotLeastSquares) {
  const std::vector<SurfacePoint> points = scattered({Form::kPower, {12, 0.1}}, 0.01, 9);
  const SurfaceFit line = fit_surface(points, {Form::kPower, Estimator::kLsq, Space::kLog});
  EXPECT_THAT([&] { profile_intervals(points, line, {}); }, ThrowsMessage<base::UserError>(HasSubstr("instead of lsq")));
  const SurfaceFit fit = fit_surface(points, {Form::kPower});
  EXPECT_THAT([&] { profile_intervals(points, fit, {.level = 1}); }, ThrowsMessage<base::UserError>(HasSubstr("the level is 1")));
}

}  // namespace
}  // namespace varscale::fit
