#include "evaluate/kernel_distance.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/error.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::evaluate {
namespace {

// Pair by pair.
double by_pairs(const Tensor& x_ND, const Tensor& y_MD) {
  const int64_t n = x_ND.size(0), m = y_MD.size(0);
  const auto k = [](const Tensor& a_D, const Tensor& b_D) {
    return std::pow(at::dot(a_D, b_D).item<double>() / static_cast<double>(a_D.numel()) + 1, 3);
  };
  double xx = 0, yy = 0, xy = 0;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) xx += i == j ? 0 : k(x_ND[i], x_ND[j]);
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < m; ++j) yy += i == j ? 0 : k(y_MD[i], y_MD[j]);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < m; ++j) xy += k(x_ND[i], y_MD[j]);
  const auto a = static_cast<double>(n), b = static_cast<double>(m);
  return xx / (a * (a - 1)) + yy / (b * (b - 1)) - 2 * xy / (a * b);
}

TEST(KernelDistance, OfWholeSetsIsTheSumOverPairs) {
  const Tensor x = test::hash_v("x", {9, 5}), y = test::hash_v("y", {9, 5}) + 0.5;
  EXPECT_NEAR(squared_discrepancy(x, y.slice(0, 0, 6)), by_pairs(x, y.slice(0, 0, 6)), 1e-13);
  const KernelDistance whole = kernel_distance(x, y, {.subsets = 3, .subset_size = 9});
  EXPECT_NEAR(whole.mean, by_pairs(x, y), 1e-13);
  EXPECT_NEAR(whole.deviation, 0, 1e-13);
}

TEST(KernelDistance, OfSubsetsEstimatesThatOfTheWholeSets) {
  const Tensor x = test::hash_v("x", {60, 4}), y = test::hash_v("y", {50, 4}) + 0.5;
  const KernelOptions options{.subsets = 400, .subset_size = 15, .seed = 3};
  const KernelDistance kid = kernel_distance(x, y, options);
  const double whole = squared_discrepancy(x, y), error = kid.deviation / std::sqrt(400.);
  EXPECT_GT(kid.deviation, 0);
  EXPECT_NEAR(kid.mean, whole, 4 * error);
  EXPECT_LT(4 * error, 0.2 * whole);  // so the test can tell
  EXPECT_EQ(kernel_distance(x, y, options).mean, kid.mean);
  KernelOptions other = options;
  other.seed = 4;
  EXPECT_NE(kernel_distance(x, y, other).mean, kid.mean);
}

TEST(KernelDistance, OfTwoHalvesOfOneSetIsZeroOnAverageAndMayBeNegative) {
  double sum = 0, squares = 0, least = 0;
  constexpr int kSets = 60;
  for (int i = 0; i < kSets; ++i) {
    const Tensor x = test::hash_v(fmt::format("set {}", i), {40, 4});
    const double d = squared_discrepancy(x.slice(0, 0, 20), x.slice(0, 20));
    sum += d, squares += d * d, least = std::min(least, d);
  }
  EXPECT_LT(std::abs(sum / kSets), 4 * std::sqrt(squares) / kSets);
  EXPECT_LT(least, 0);
}

TEST(KernelDistance, RefusesSubsetsLargerThanASet) {
  EXPECT_THROW(kernel_distance(at::rand({9, 2}), at::rand({8, 2}), {.subsets = 1, .subset_size = 9}), base::UserError);
  EXPECT_THROW(kernel_distance(at::rand({9, 2}), at::rand({8, 2}), {.subsets = 1, .subset_size = 1}), base::UserError);
}

}  // namespace
}  // namespace varscale::evaluate
