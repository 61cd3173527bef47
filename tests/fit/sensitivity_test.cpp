#include "fit/sensitivity.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/random.hpp"
#include "fit/surface_bootstrap.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

const SurfaceLaw kVaried{Form::kPowerE, {2.0, 30.0, 0.25}};

std::vector<SurfacePoint> varied(double sd, int count = 16) {
  const base::RandomStream random(11, "sensitivity");
  std::vector<SurfacePoint> points;
  for (int k = 0; k < count; ++k) {
    SurfacePoint& p = points.emplace_back();
    p.x = {1e5 * std::pow(2.0, k)};
    p.y = kVaried.at(p.x) * std::exp(sd * random.normal(static_cast<uint64_t>(k)));
  }
  return points;
}

const SurfaceFit& variant(const Sensitivity& s, const std::string& change) {
  const auto found = std::ranges::find(s.variants, change, &Variant::change);
  if (found == s.variants.end()) throw std::runtime_error("no variant " + change);
  return found->fit;
}

TEST(Sensitivity, LeavesTheConstantsOfExactPointsAsTheyAre) {
  const auto points = varied(0);
  const Sensitivity s = vary(points, fit_surface(points, {.form = Form::kPowerE}));
  std::vector<std::string> changes;
  for (const Variant& v : s.variants) {
    changes.push_back(v.change);
    if (v.group == "E") continue;
    // Robust losses have their optimum at the law; their last steps are of 1e-8 and less.
    EXPECT_NEAR(v.fit.law.constant("alpha"), 0.25, 1e-7) << v.change;
    EXPECT_NEAR(v.fit.law.constant("E"), 2.0, 1e-6) << v.change;
  }
  EXPECT_THAT(changes, testing::ElementsAre("vpnls in log space", "huber, delta 0.0001", "huber, delta 0.001",
                                            "huber, delta 0.01", "lad", "E 0.1 lower", "E 0.1 higher",
                                            "without the highest value", "without the 3 highest values",
                                            "without the point furthest from the law", "without the smallest x",
                                            "without the largest x"));
  EXPECT_THAT(s.not_done, IsEmpty());
}

// y - E' = B x^-alpha + (E - E'): the local exponent at a point is alpha (y - E) / (y - E'), so a lower E' flattens.
TEST(Sensitivity, ALowerEFlattensTheExponent) {
  const auto points = varied(0);
  const Sensitivity s = vary(points, fit_surface(points, {.form = Form::kPowerE}));
  EXPECT_LT(variant(s, "E 0.1 lower").law.constant("alpha"), 0.24);
  EXPECT_GT(variant(s, "E 0.1 higher").law.constant("alpha"), 0.26);
  EXPECT_NEAR(variant(s, "E 0.1 lower").law.constant("E"), 1.9, 1e-9);
}

TEST(Sensitivity, DropsWhatItSays) {
  const auto points = varied(0.01);
  const SurfaceFit fit = fit_surface(points, {.form = Form::kPowerE, .space = Space::kLog});
  const Sensitivity s = vary(points, fit, std::vector<std::string>{"N"});
  const std::vector<SurfacePoint> upper(points.begin() + 1, points.end());
  EXPECT_EQ(variant(s, "without the smallest N").law.constants, fit_surface(upper, fit.spec).law.constants);
  EXPECT_EQ(variant(s, "without the 3 highest values").residuals.size(), points.size() - 3);
}

TEST(Sensitivity, NamesAnEAboveTheSmallestValue) {
  SurfaceLaw near = kVaried;
  near.constants = {2.0, 0.5, 0.25};  // 0.1 above E lies above the largest sizes' values
  std::vector<SurfacePoint> points = varied(0);
  for (SurfacePoint& p : points) p.y = near.at(p.x);
  const Sensitivity s = vary(points, fit_surface(points, {.form = Form::kPowerE}));
  ASSERT_EQ(s.not_done.size(), 1u);
  EXPECT_EQ(s.not_done[0].change, "E 0.1 higher");
  EXPECT_THAT(s.not_done[0].reason, HasSubstr("not between 0 and the smallest value"));
}

// One gross outlier pulls least squares and leaves the magnitudes where they were.
TEST(Sensitivity, ReportsEstimatorsThatDisagree) {
  auto points = varied(0.001);
  points.back().y *= 1.2;
  SurfaceFit fit = fit_surface(points, {.form = Form::kPowerE, .estimator = Estimator::kLad, .space = Space::kLog});
  const Interval narrow{0.24, 0.26};
  ASSERT_TRUE(narrow.contains(fit.law.constant("alpha")));
  const auto apart = disagreements(vary(points, fit), std::vector<NamedInterval>{{"alpha", narrow}});
  ASSERT_FALSE(apart.empty());
  for (const Disagreement& each : apart) EXPECT_THAT(each.change, testing::AnyOf(HasSubstr("vpnls"), HasSubstr("0.01")));
  const auto within = disagreements(vary(points, fit), std::vector<NamedInterval>{{"alpha", {0, 5}}});
  EXPECT_THAT(within, IsEmpty());
}

TEST(Sensitivity, VariesTheFormsOfTwoVariables) {
  const SurfaceLaw law{Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}};
  std::vector<SurfacePoint> points;
  for (double n : {5e7, 1.5e8, 4e8, 1e9, 3e9})
    for (double d : {1e9, 4e9, 1.5e10, 6e10, 3e11}) {
      points.push_back({{n, d}, 0});
      points.back().y = law.at(points.back().x);
    }
  const Sensitivity s = vary(points, fit_surface(points, {.form = Form::kChinchilla}));
  for (const Variant& v : s.variants) {
    if (v.group == "E") continue;
    EXPECT_NEAR(compute_exponent(v.fit.law), 0.28 / 0.62, 1e-6) << v.change;
  }
  EXPECT_EQ(s.variants.size(), 5u + 2 + 3 + 1 + 4);
}

}  // namespace
}  // namespace varscale::fit
