#include "evaluate/frechet.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/error.hpp"
#include "tests/evaluate/fixture_json.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::evaluate {
namespace {

Gaussian gaussian_of(const Tensor& x_ND) {
  GaussianStatistics statistics(x_ND.size(1));
  statistics.add(x_ND);
  return statistics.gaussian();
}

double distance(const Tensor& x_ND, const Tensor& y_MD) {
  return frechet_distance(gaussian_of(x_ND), gaussian_of(y_MD));
}

// [2,2], row by row.
Tensor two_by_two(const std::vector<double>& values) { return at::tensor(values, at::kDouble).view({2, 2}); }

// From the points: Tr (S1 S2)^(1/2) is the sum of the singular values of X Y^T, both centred and scaled.
double by_singular_values(const Tensor& x_ND, const Tensor& y_MD) {
  const auto scaled = [](const Tensor& x) {
    return (x - x.mean(0)) / std::sqrt(static_cast<double>(x.size(0) - 1));
  };
  const Tensor x = scaled(x_ND), y = scaled(y_MD);
  return ((x_ND.mean(0) - y_MD.mean(0)).square().sum() + x.square().sum() + y.square().sum() -
          2 * at::linalg_svdvals(at::mm(x, y.t())).sum())
      .item<double>();
}

TEST(FrechetDistance, EqualsThePublicEvaluators) {
  for (const auto& c : reference_values("frechet")) {
    const std::string name = c.at("name").get<std::string>();
    const auto stored = [&](const char* mean, const char* covariance) {
      const Tensor mean_D = vector_of(c.at(mean));
      return Gaussian{mean_D, vector_of(c.at(covariance)).view({mean_D.numel(), -1})};
    };
    const double got = frechet_distance(stored("mu1", "sigma1"), stored("mu2", "sigma2"));
    // Where covariances lack rank the reference's own two values differ by up to 1e-8, and from the exact one,
    // which the next test takes, by up to 7e-8; elsewhere the two agree to 4e-13 relative.
    const double value = c.at("value").get<double>(), scale = std::max(1.0, value);
    const double tolerance = name.starts_with("rank_deficient") ? 1e-7 : 3e-12 * scale;
    EXPECT_NEAR(got, value, tolerance) << name;
    EXPECT_NEAR(got, c.at("value_eig").get<double>(), tolerance) << name;
    if (c.at("x").is_null()) continue;
    const Gaussian x = gaussian_of(rows_of(c.at("x")));
    EXPECT_TRUE(at::allclose(x.mean_D, vector_of(c.at("mu1")), 0, 1e-14)) << name;
    EXPECT_TRUE(at::allclose(x.covariance_DD.flatten(), vector_of(c.at("sigma1")), 0, 1e-14)) << name;
  }
}

TEST(FrechetDistance, IsExactWhereCovariancesLackRank) {
  for (const auto& c : reference_values("frechet")) {
    if (c.at("x").is_null()) continue;
    const Tensor x = rows_of(c.at("x")), y = rows_of(c.at("y"));
    EXPECT_NEAR(distance(x, y), by_singular_values(x, y), 1e-12) << c.at("name");
  }
  // 30 and 50 images of 160 features on a common large mean.
  const Tensor x = test::hash_v("x", {30, 160}) + 5, y = 2 * test::hash_v("y", {50, 160}) + 5;
  const double want = by_singular_values(x, y);
  EXPECT_NEAR(distance(x, y), want, 1e-12 * want);
  EXPECT_NEAR(distance(y, x), want, 1e-12 * want);
}

// Few images are kept themselves, many are not: the distance does not depend on which way it is taken.
TEST(FrechetDistance, OfFewImagesIsThatOfTheirCovariances) {
  const Tensor few = test::hash_v("few", {30, 160}) + 5, most = test::hash_v("most", {159, 160}) + 5.5,
               many = test::hash_v("many", {700, 160}) + 5.25;
  const auto without_images = [](const Tensor& x_ND) {
    Gaussian gaussian = gaussian_of(x_ND);
    gaussian.root_ND = Tensor();
    return gaussian;
  };
  EXPECT_TRUE(gaussian_of(most).root_ND.defined());
  EXPECT_FALSE(gaussian_of(many).root_ND.defined());
  EXPECT_FALSE(gaussian_of(test::hash_v("wide", {1025, 1100})).root_ND.defined());
  const std::vector<std::pair<Tensor, Tensor>> pairs = {{few, most}, {few, many}, {many, few}, {most, many}};
  for (const auto& [x, y] : pairs) {
    const double want = frechet_distance(without_images(x), without_images(y));
    EXPECT_NEAR(distance(x, y), want, 1e-9 * want);
  }
  // In batches, and merged: the images are still all there.
  GaussianStatistics parts(160), other(160);
  parts.add(few.slice(0, 0, 11)), parts.add(few.slice(0, 11, 20)), other.add(few.slice(0, 20));
  parts.merge(other);
  EXPECT_TRUE(at::allclose(parts.gaussian().root_ND, gaussian_of(few).root_ND, 0, 1e-14));
  parts.add(most);  // too many by now
  EXPECT_FALSE(parts.gaussian().root_ND.defined());
  other.merge(parts);
  EXPECT_FALSE(other.gaussian().root_ND.defined());
}

TEST(FrechetDistance, HasItsClosedForms) {
  const Tensor zero = at::zeros({2}, at::kDouble), eye = at::eye(64, at::kDouble);
  EXPECT_DOUBLE_EQ(frechet_distance({at::zeros({64}, at::kDouble), eye}, {at::ones({64}, at::kDouble), eye}), 64);
  const Tensor a = two_by_two({2, .5, .5, 1});
  const Tensor b = two_by_two({1, -.3, -.3, 3});
  EXPECT_NEAR(frechet_distance({zero, a}, {zero, b}), 0.929311854967774, 1e-13);
  const Tensor wide = two_by_two({9, 0, 0, 4}), narrow = two_by_two({1, 0, 0, 16});
  EXPECT_NEAR(frechet_distance({zero, wide}, {zero, narrow}), 4 + 4, 1e-12);  // (3 - 1)^2 + (2 - 4)^2
  const Tensor nothing = at::zeros({2, 2}, at::kDouble);
  EXPECT_NEAR(frechet_distance({zero, nothing}, {zero, a}), 3, 1e-14);
  EXPECT_NEAR(frechet_distance({zero, a}, {zero, nothing}), 3, 1e-14);

  const Tensor x = test::hash_v("x", {40, 12}), y = test::hash_v("y", {40, 12}) + 0.3;
  EXPECT_NEAR(distance(x, x), 0, 1e-13);
  EXPECT_NEAR(distance(3 * x, 3 * y), 9 * distance(x, y), 1e-11);
}

TEST(GaussianStatistics, OfPartsAndOfMergedRanksEqualTheWhole) {
  // A mean 1e6 times the deviation: plain sums of squares would lose all digits of the covariance.
  const Tensor x = 1e-2 * test::hash_v("x", {100, 7}) + 1e4;
  const Tensor centred = x - x.mean(0);
  const Tensor want = at::mm(centred.t(), centred) / 99;
  GaussianStatistics parts(7), other(7), empty(7);
  for (int64_t i = 0; i < 60; i += 11) parts.add(x.slice(0, i, std::min<int64_t>(i + 11, 60)));
  other.add(x.slice(0, 60));
  parts.merge(other);
  parts.merge(empty);
  empty.merge(parts);
  for (const GaussianStatistics* statistics : {&parts, &empty}) {
    EXPECT_EQ(statistics->count(), 100);
    EXPECT_TRUE(at::allclose(statistics->gaussian().mean_D, x.mean(0), 1e-15, 0));
    EXPECT_TRUE(at::allclose(statistics->gaussian().covariance_DD, want, 0, 1e-6 * want.abs().max().item<double>()));
  }
}

TEST(GaussianStatistics, RefusesTooFewImagesAndNonFiniteFeatures) {
  GaussianStatistics statistics(2);
  statistics.add(at::ones({1, 2}));
  EXPECT_EQ(base::message_of<base::UserError>([&] { statistics.gaussian(); }),
            "a covariance needs at least 2 images, there are 1");
  EXPECT_THROW(statistics.add(at::full({1, 2}, std::numeric_limits<float>::infinity())), base::UserError);
}

}  // namespace
}  // namespace varscale::evaluate
