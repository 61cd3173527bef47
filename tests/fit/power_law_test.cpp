#include "fit/power_law.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<Observation> on_law(const PowerLaw& law, const std::vector<double>& sizes) {
  std::vector<Observation> points;
  for (double x : sizes) points.push_back({x, law.at(x)});
  return points;
}

const std::vector<double> kDepthSizes = {75e3, 593e3, 2.00e6, 4.73e6, 9.24e6, 16e6};

// Exact data leave only rounding; 1e-8 leaves room for its growth by the condition of the problem
// (E and B trade against each other over two decades of size).
constexpr double kExact = 1e-8;

TEST(PowerLaw, IsRecoveredFromExactDataWithEFree) {
  for (double alpha : {0.05, 0.185, 0.5, 1.7}) {
    const PowerLaw law{4.217, 0.3 * std::pow(1e6, alpha), alpha};
    const PowerFit fit = fit_power_law(on_law(law, kDepthSizes), EFree{});
    EXPECT_NEAR(fit.law.alpha, law.alpha, kExact) << alpha;
    EXPECT_NEAR(fit.law.E / law.E, 1, kExact) << alpha;
    EXPECT_NEAR(fit.law.B / law.B, 1, 20 * kExact) << alpha;  // B = b x0^alpha: ln x0 is about 14
    EXPECT_EQ(fit.bound, "");
    EXPECT_EQ(form_name(fit.e_rule), "power_e");
  }
}

TEST(PowerLaw, IsRecoveredInLogSpaceToo) {
  const PowerLaw law{4.217, 2.32, 0.185};
  const PowerFit fit = fit_power_law(on_law(law, kDepthSizes), EFree{}, Space::kLog);
  EXPECT_NEAR(fit.law.alpha, law.alpha, kExact);
  EXPECT_NEAR(fit.law.E / law.E, 1, kExact);
}

TEST(PowerLaw, WithEGivenIsRecoveredFromTwoSizes) {
  const PowerLaw law{4.5, 1.1, 0.23};
  const PowerFit fit = fit_power_law(on_law(law, {1e6, 1e8}), EGiven{4.5, "stated"});
  EXPECT_NEAR(fit.law.alpha, law.alpha, kExact);
  EXPECT_EQ(fit.law.E, 4.5);
  EXPECT_EQ(std::get<EGiven>(fit.e_rule).source, "stated");
}

TEST(PowerLaw, WithEGivenAsZeroInLogSpaceIsTheStraightLineOfLogarithms) {
  const std::vector<Observation> points = {{1, 8.1}, {2, 6.9}, {4, 6.2}, {8, 5.3}, {16, 4.9}};
  double sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (const auto& [x, y] : points) {
    sx += std::log(x), sy += std::log(y), sxx += std::log(x) * std::log(x),
        sxy += std::log(x) * std::log(y);
  }
  const double n = static_cast<double>(points.size());
  const double slope = (n * sxy - sx * sy) / (n * sxx - sx * sx);
  const PowerFit fit = fit_power_law(points, EGiven{0, "none assumed"}, Space::kLog);
  EXPECT_NEAR(fit.law.alpha, -slope, kExact);
  EXPECT_NEAR(fit.law.B, std::exp((sy - slope * sx) / n), 1e-7);
  EXPECT_EQ(form_name(fit.e_rule), "power");
}

TEST(PowerLaw, ExponentDependsOnTheAssumedE) {
  // reference: data of the paper's law with E = 4.5 give 0.23 for that E and far less for E = 0.
  const PowerLaw law{4.5, 1.0 * std::pow(1e8, 0.23), 0.23};
  const auto points = on_law(law, {2e7, 1e8, 3e8, 1e9, 2e9});
  EXPECT_LT(fit_power_law(points, EGiven{0, ""}).law.alpha, 0.06);
  EXPECT_LT(fit_power_law(points, EGiven{4.4, ""}).law.alpha, 0.23);
  EXPECT_GT(fit_power_law(points, EGiven{4.6, ""}).law.alpha, 0.23);
}

TEST(PowerLaw, FitHasNoLowerNeighbour) {
  std::vector<Observation> points = on_law({4.2, 2.3, 0.185}, kDepthSizes);
  const base::RandomStream random(7, "test");
  for (size_t i = 0; i < points.size(); ++i) points[i].y += 0.003 * random.normal(i);
  for (Space space : {Space::kLinear, Space::kLog}) {
    const PowerFit fit = fit_power_law(points, EFree{}, space);
    const auto objective = [&](PowerLaw law) {
      double sum = 0;
      for (const auto& [x, y] : points) {
        const double r = space == Space::kLog ? std::log(y / law.at(x)) : y - law.at(x);
        sum += r * r;
      }
      return sum;
    };
    EXPECT_NEAR(objective(fit.law), fit.objective, 1e-15);
    for (double step : {-1e-4, 1e-4}) {
      EXPECT_GT(objective({fit.law.E * (1 + step), fit.law.B, fit.law.alpha}), fit.objective);
      EXPECT_GT(objective({fit.law.E, fit.law.B * (1 + step), fit.law.alpha}), fit.objective);
      EXPECT_GT(objective({fit.law.E, fit.law.B, fit.law.alpha * (1 + step)}), fit.objective);
    }
  }
}

TEST(PowerLaw, NamesTheBoundItLiesOn) {
  // Rising values: no decay to find. A plain power law: nothing left for E.
  EXPECT_EQ(fit_power_law(std::vector<Observation>{{1, 1}, {2, 1.1}, {3, 1.3}}, EFree{}).bound,
            "B = 0");
  const std::vector<Observation> steeper = {{1, 100}, {10, 10}, {100, 0.5}};
  EXPECT_EQ(fit_power_law(steeper, EFree{}, Space::kLog).bound, "E = 0");
}

TEST(PowerLaw, RefusesFewerSizesThanConstantsAndNamesThem) {
  const std::vector<Observation> two = {{75e3, 4.5}, {75e3, 4.51}, {593e3, 4.4}};
  EXPECT_THAT(
      [&] { fit_power_law(two, EFree{}); },
      ThrowsMessage<base::UserError>(testing::AllOf(HasSubstr("needs as many distinct sizes"),
                                                    HasSubstr("75000, 593000"), HasSubstr("3"))));
  EXPECT_NO_THROW(fit_power_law(two, EGiven{0, ""}));
}

TEST(PowerLaw, RefusesAnEThatIsNotBelowTheSmallestLoss) {
  const std::vector<Observation> points = {{1, 4.5}, {2, 4.4}, {3, 4.35}};
  EXPECT_THAT(
      [&] {
        fit_power_law(points, EGiven{4.35, "a guess"});
      },
      ThrowsMessage<base::UserError>(HasSubstr("4.35")));
}

TEST(PowerLaw, RefusesValuesThatAreNotNumbers) {
  const std::vector<Observation> points = {{1, 4.5}, {2, std::nan("")}, {3, 4.35}};
  EXPECT_THAT([&] { fit_power_law(points, EFree{}); },
              ThrowsMessage<base::UserError>(HasSubstr("point 2")));
}

// The recipe's published table (d1 to d5, block parameters, mean validation loss): E 4.217, B 2.32,
// alpha 0.185, rms .0012. The inputs have 3 to 4 digits of size and 4 decimals of loss; moving them by
// half a digit moves E by about .004 and alpha by about .004, hence the tolerances.
TEST(PowerLaw, ReproducesTheQuickstartTable) {
  const std::vector<Observation> table = {
      {75e3, 4.5081}, {593e3, 4.4134}, {2.00e6, 4.3769}, {4.73e6, 4.3521}, {9.24e6, 4.3350}};
  const PowerFit fit = fit_power_law(table, EFree{});
  EXPECT_NEAR(fit.law.E, 4.217, 0.004);
  EXPECT_NEAR(fit.law.alpha, 0.185, 0.004);
  EXPECT_NEAR(fit.law.B, 2.32, 0.1);  // ln B moves with alpha times ln x0, about 14
  EXPECT_NEAR(fit.rmse, 0.0012, 0.0003);
}

TEST(LogHuber, AgreesWithTheEstimatorOnExactData) {
  const PowerLaw law{4.217, 2.32, 0.185};
  const HuberCheck check = fit_log_huber(on_law(law, kDepthSizes), EFree{});
  // Its objective vanishes quadratically: digits stop at the root of the solver's tolerance.
  EXPECT_NEAR(check.law.alpha, law.alpha, 1e-5);
  EXPECT_NEAR(check.law.E, law.E, 1e-4);
  EXPECT_EQ(check.starts, 75);
  EXPECT_GT(check.starts_at_best, check.starts / 2);
}

// With residuals under delta the Huber loss is half the square, so both estimators have one objective.
TEST(LogHuber, EqualsLeastSquaresOfLogarithmsWhereAllResidualsAreSmall) {
  std::vector<Observation> points = on_law({4.2, 2.3, 0.185}, kDepthSizes);
  const base::RandomStream random(11, "test");
  for (size_t i = 0; i < points.size(); ++i) points[i].y += 0.001 * random.normal(i);
  for (const ERule& rule : {ERule{EFree{}}, ERule{EGiven{4.0, "test"}}}) {
    const PowerFit fit = fit_power_law(points, rule, Space::kLog);
    ASSERT_LT(fit.max_residual, 1e-3 * (std::holds_alternative<EFree>(rule) ? 1 : 100));
    const HuberCheck check = fit_log_huber(points, rule, /*delta=*/1.0);
    EXPECT_NEAR(2 * check.objective / fit.objective, 1, 1e-9);
    EXPECT_NEAR(check.law.alpha, fit.law.alpha, 1e-5);
    EXPECT_NEAR(check.law.E, fit.law.E, 1e-4);
  }
}

TEST(LogHuber, IsLessMovedByAnOutlier) {
  const PowerLaw law{4.217, 2.32, 0.185};
  std::vector<Observation> points =
      on_law(law, {75e3, 300e3, 593e3, 1e6, 2e6, 3e6, 4.73e6, 9.24e6, 16e6});
  points[4].y += 0.05;
  const double huber = std::abs(fit_log_huber(points, EFree{}).law.alpha - law.alpha);
  const double squares =
      std::abs(fit_power_law(points, EFree{}, Space::kLog).law.alpha - law.alpha);
  EXPECT_LT(huber, 0.25 * squares);
}

}  // namespace
}  // namespace varscale::fit
