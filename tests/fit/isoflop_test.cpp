// Parabolas of equal compute: what they find, and how far they are off on a surface without noise.
#include "fit/isoflop.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

const SurfaceLaw kUneven{Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}};
const SurfaceLaw kEven{Form::kChinchilla, {1.69, 406.4, 410.7, 0.3, 0.3}};
const std::vector<double> kBudgets = {1e18, 1e19, 1e20, 1e21};
const std::vector<double> kAround = {-1.2, -0.6, 0, 0.6, 1.2};  // of ln N

// Groups whose sizes lie kAround their centre, `drift` of ln N a budget further from the optimum each.
std::vector<RunPoint> groups_on(const SurfaceLaw& law, double drift = 0, double noise = 0, uint64_t seed = 0) {
  const base::RandomStream random(seed, "synthetic isoflop");
  const Frontier truth = analytic_frontier(law);
  std::vector<RunPoint> points;
  for (size_t j = 0; j < kBudgets.size(); ++j) {
    for (const double around : kAround) {
      const double N = truth.at(kBudgets[j]).N * std::exp(around + drift * static_cast<double>(j));
      const double D = truth.cost.data(N, kBudgets[j]);
      points.push_back({N, D, kBudgets[j], law.at(Place{N, D}) + noise * random.normal(points.size())});
    }
  }
  return points;
}

// Where a parabola's vertex lies, as ln N over the optimum, when sizes lie `around` it: the loss above E is there
// P e^(-alpha w) + Q e^(beta w) with alpha P = beta Q, and on a symmetric grid the even and the odd part of the
// least squares do not mix.
double vertex_shift(double alpha, double beta, const std::vector<double>& around) {
  double w2 = 0, odd = 0, even = 0, norm = 0;
  for (const double w : around) w2 += w * w;
  const double mean = w2 / static_cast<double>(around.size());
  for (const double w : around) {
    const double f = std::exp(-alpha * w) / alpha + std::exp(beta * w) / beta, u = w * w - mean;
    odd += w * f, even += u * f, norm += u * u;
  }
  return -(odd / w2) / (2 * even / norm);
}

TEST(IsoFlop, SizesAlikeAroundTheOptimumBiasTheSizeAndNotItsExponent) {
  const IsoFlop iso = isoflop(groups_on(kUneven));
  const Frontier truth = analytic_frontier(kUneven);
  ASSERT_EQ(iso.vertices(), 4);
  EXPECT_NEAR(iso.N->exponent, truth.a, 1e-9);  // rounding alone
  EXPECT_NEAR(iso.D->exponent, truth.b, 1e-9);
  const double shift = vertex_shift(0.34, 0.28, kAround);
  EXPECT_GT(std::abs(shift), 0.01);  // a bias to speak of
  for (const IsoFlopGroup& group : iso.groups)
    EXPECT_NEAR(std::log(group.vertex.N / truth.at(group.C).N), shift, 1e-9);
}

TEST(IsoFlop, IsNotBiasedWhereTheExponentsAreEqual) {
  const IsoFlop iso = isoflop(groups_on(kEven));
  for (const IsoFlopGroup& group : iso.groups)
    EXPECT_NEAR(group.vertex.N / analytic_frontier(kEven).at(group.C).N, 1, 1e-9);
}

TEST(IsoFlop, SizesThatDriftBiasTheExponent) {
  const double drifted = isoflop(groups_on(kUneven, 0.2)).N->exponent;
  EXPECT_GT(std::abs(drifted - analytic_frontier(kUneven).a), 1e-4);
}

TEST(IsoFlop, EstimatesItsBiasFromTheLaw) {
  const Frontier truth = analytic_frontier(kUneven);
  for (const double drift : {0.0, 0.1, -0.2}) {
    const std::vector<RunPoint> points = groups_on(kUneven, drift);
    const IsoFlop iso = isoflop(points);
    const IsoFlopBias bias = *isoflop_bias(points, iso, kUneven, truth.cost);
    EXPECT_NEAR(iso.N->exponent - bias.a_shift, truth.a, 1e-12);
    EXPECT_NEAR(iso.D->exponent - bias.b_shift, truth.b, 1e-12);
    ASSERT_EQ(bias.factors.size(), 4u);
    for (size_t j = 0; j < 4; ++j)
      EXPECT_NEAR(iso.groups[j].vertex.N / bias.factors[j] / truth.at(kBudgets[j]).N, 1, 1e-12);
    if (drift == 0) {
      EXPECT_NEAR(std::log(bias.n_factor), vertex_shift(0.34, 0.28, kAround), 1e-9);
      EXPECT_NEAR(bias.a_shift, 0, 1e-9);
    }
  }
}

TEST(IsoFlop, LeavesGroupsWithoutAVertexInsideOutAndSaysWhy) {
  std::vector<RunPoint> points = groups_on(kUneven);
  std::vector<RunPoint> beyond = groups_on(kUneven, 1.0);
  for (size_t i = 0; i < 5; ++i) {
    points[i] = beyond[15 + i];      // three too far up: the optimum is below them all
    points[i].C = kBudgets[3] * 10;  // a budget of its own
  }
  points.resize(17);                 // two sizes of the last budget
  const IsoFlop iso = isoflop(points);
  ASSERT_EQ(iso.groups.size(), 4u);
  EXPECT_EQ(iso.vertices(), 2);
  EXPECT_EQ(iso.groups[2].left_out, "2 sizes; a parabola needs 3");
  EXPECT_EQ(iso.groups[3].left_out, "the vertex lies beyond the smallest size");
  points.resize(8);  // one group with a vertex
  EXPECT_FALSE(isoflop(points).N);
}

TEST(IsoFlop, GroupsRunsWhoseComputeIsEqualToOnePercent) {
  std::vector<RunPoint> points = groups_on(kUneven);
  for (size_t i = 0; i < points.size(); ++i) points[i].C *= 1 + 0.0045 * std::cos(static_cast<double>(i));
  EXPECT_EQ(isoflop(points).groups.size(), 4u);
  points[0].C *= 1.02;
  EXPECT_EQ(isoflop(points).groups.size(), 5u);
}

TEST(IsoFlop, RefusesAValueThatIsNotPositive) {
  std::vector<RunPoint> points = groups_on(kUneven);
  points[3].loss = 0;
  EXPECT_THAT([&] { isoflop(points); }, ThrowsMessage<base::UserError>(HasSubstr("loss 0; expected finite positive")));
}

TEST(IsoFlop, IntervalsHoldTheExponentOfTheParabolasAsOftenAsTheySay) {
  const double exact = isoflop(groups_on(kUneven)).N->exponent;
  int held = 0;
  constexpr int kSweeps = 100;
  for (int seed = 0; seed < kSweeps; ++seed) {
    const std::vector<RunPoint> points = groups_on(kUneven, 0, 0.003, static_cast<uint64_t>(seed));
    const auto intervals = bootstrap_isoflop(points, isoflop(points), {.resamples = 400, .seed = 1});
    ASSERT_TRUE(intervals);
    held += intervals->a.contains(exact);
  }
  // 90 of 100 are expected; a binomial count has deviation 3, so 2.5 of them on either side.
  EXPECT_GE(held, 82);
  EXPECT_LE(held, 97);
}

TEST(IsoFlop, HasNoIntervalsWhereNothingTellsTheNoise) {
  std::vector<RunPoint> points;
  const std::vector<RunPoint> all = groups_on(kUneven);
  for (size_t i = 0; i < all.size(); ++i)
    if (i % 5 != 0 && i % 5 != 4) points.push_back(all[i]);  // three sizes a budget
  const IsoFlop iso = isoflop(points);
  ASSERT_TRUE(iso.N);
  EXPECT_FALSE(bootstrap_isoflop(points, iso, {.resamples = 100}));
}

}  // namespace
}  // namespace varscale::fit
