// Frontiers against closed forms, a search along the cost, and the values of published constants.
#include "fit/frontier.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

const SurfaceLaw kRounded{Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}};  // arXiv 2203.15556, as printed

TEST(Frontier, OfThePrintedConstantsIsTheClosedForm) {
  const Frontier f = analytic_frontier(kRounded);
  // Worked out apart from this code, to six digits; half a unit of the last one.
  EXPECT_NEAR(f.G, 1.34471, 5e-6);
  EXPECT_NEAR(f.a, 0.451613, 5e-7);
  EXPECT_NEAR(f.above_e, 813.68, 5e-3);
  EXPECT_NEAR(f.loss_exponent, 0.153548, 5e-7);
  const Optimum best = f.at(1e20);
  EXPECT_NEAR(best.N, 6.4486e8, 5e3);
  EXPECT_NEAR(best.D, 2.5846e10, 5e5);
  EXPECT_NEAR(best.loss, 2.599850, 5e-7);
}

TEST(Frontier, OfTheConstantsRefittedToThePublishedPoints) {
  // To as many digits as the constants have, which themselves have six: a few units of the fifth.
  const Frontier f = analytic_frontier({Form::kChinchilla, {1.817218, 477.826, 2143.417, 0.347310, 0.367172}});
  EXPECT_NEAR(f.G, 0.113207, 1e-5);
  EXPECT_NEAR(f.a, 0.513900, 2e-6);
  EXPECT_NEAR(f.above_e, 1981.48, 0.02);
  EXPECT_NEAR(f.loss_exponent, 0.178482, 1e-6);
  const Optimum best = f.at(5.88e23);
  EXPECT_NEAR(best.N, 7.397e10, 1e7);
  EXPECT_NEAR(best.D / best.N, 17.91, 6e-3);
  EXPECT_NEAR(best.loss, 1.973338, 2e-6);
}

// The size of least loss at compute C, by golden section in ln N.
double searched(const SurfaceLaw& law, const ComputeCost& cost, double C) {
  const auto loss = [&](double log_n) {
    const double N = std::exp(log_n);
    return law.at(Place{N, cost.data(N, C)});
  };
  const double ratio = (std::sqrt(5.0) - 1) / 2;
  double low = std::log(1e5), high = std::log(1e14);
  while (high - low > 1e-8) {
    const double left = high - ratio * (high - low), right = low + ratio * (high - low);
    (loss(left) < loss(right) ? high : low) = loss(left) < loss(right) ? right : left;
  }
  return std::exp((low + high) / 2);
}

TEST(Frontier, IsWhereASearchAlongTheCostFindsTheLeastLoss) {
  for (const ComputeCost& cost : {ComputeCost{}, ComputeCost{6.98, 0.975}, ComputeCost{0.4, 1.2}}) {
    const Frontier f = analytic_frontier(kRounded, cost);
    for (const double C : {1e17, 1e20, 3e23}) {
      const Optimum best = f.at(C);
      // A flat minimum is found to about the root of the rounding of the loss, 1e-8, over its curvature.
      EXPECT_NEAR(best.N / searched(kRounded, cost, C), 1, 1e-6);
      EXPECT_NEAR(cost.of(best.N, best.D) / C, 1, 1e-12);
      EXPECT_NEAR(best.loss / kRounded.at(Place{best.N, best.D}), 1, 1e-12);
    }
    EXPECT_NEAR(std::log(f.at(1e21).N / f.at(1e20).N) / std::log(10), f.a, 1e-12);
    EXPECT_NEAR(std::log(f.at(1e21).D / f.at(1e20).D) / std::log(10), f.b, 1e-12);
    EXPECT_NEAR(cost.n_power * f.a + f.b, 1, 1e-12);
  }
}

TEST(Frontier, CostIsFittedToWhatRunsHaveCost) {
  std::vector<CostPoint> points;
  const ComputeCost truth{6.98, 0.975};
  for (const double N : {6e6, 4e7, 3e8, 2e9})
    for (const double D : {1e9, 4e9}) points.push_back({N, D, truth.of(N, D)});
  const CostFit fit = fit_cost(points);
  EXPECT_NEAR(fit.cost.k, truth.k, 1e-10);
  EXPECT_NEAR(fit.cost.n_power, truth.n_power, 1e-12);
  EXPECT_LT(fit.largest_deviation, 1e-12);
  EXPECT_NEAR(fit.most / fit.least, std::pow(2e9 / 6e6, 0.025), 1e-12);
  EXPECT_GT(fit.median, fit.least);
  EXPECT_LT(fit.median, fit.most);
  points[0].C *= 1.1, points[1].C *= 1.1;
  EXPECT_GT(fit_cost(points).largest_deviation, 0.02);  // some of ln 1.1 is left over
}

TEST(Frontier, CostOfOneSizeIsProportionalToIt) {
  const CostFit fit = fit_cost(std::vector<CostPoint>{{1e6, 1e9, 5e15}, {1e6, 2e9, 1e16}});
  EXPECT_EQ(fit.cost.n_power, 1);
  EXPECT_DOUBLE_EQ(fit.cost.k, 5);
}

TEST(Frontier, IsRefusedWhereThereIsNoOptimum) {
  EXPECT_THAT([] { analytic_frontier({Form::kOvertrain, {1, 1, 1, 0.1}}); },
              ThrowsMessage<base::UserError>(HasSubstr("a frontier of the form overtrain")));
  EXPECT_THAT([] { analytic_frontier({Form::kChinchilla, {1.69, 0, 410.7, 0.34, 0.28}}); },
              ThrowsMessage<base::UserError>(HasSubstr("A = 0 has no compute-optimal size")));
}

TEST(PowerLine, GoesThroughAnExactLineAndNeedsTwoPlaces) {
  const std::vector<double> x = {1e3, 1e5, 1e6}, y = {3 * std::pow(1e3, 0.4), 3 * std::pow(1e5, 0.4), 3 * std::pow(1e6, 0.4)};
  const PowerLine line = *fit_power_line(x, y);
  EXPECT_NEAR(line.exponent, 0.4, 1e-13);
  EXPECT_NEAR(line.coefficient, 3, 1e-11);
  EXPECT_FALSE(fit_power_line(std::vector{2.0, 2.0}, std::vector{1.0, 3.0}));
  EXPECT_THAT([&] { fit_power_line(x, std::vector{1.0, 0.0, 1.0}); },
              ThrowsMessage<base::UserError>(HasSubstr("a value of 0 where a logarithm is taken")));
}

}  // namespace
}  // namespace varscale::fit
