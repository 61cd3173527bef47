// Envelopes of curves on a known surface, whose frontier is known in closed form.
#include "fit/envelope.hpp"

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

const SurfaceLaw kEnvelopeLaw{Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}};

Curve end_of(double N, double C, double factor = 1) {
  const double D = ComputeCost{}.data(N, C);
  return {.N = N, .points = {{C, D, factor * kEnvelopeLaw.at(Place{N, D})}}};
}

// One run for every size and budget: sizes 1e7 to 1e10, budgets 1e18 to 1e21.
std::vector<Curve> whole_grid(double sizes_per_decade, double budgets_per_decade, double noise = 0, uint64_t seed = 0) {
  const base::RandomStream random(seed, "synthetic envelope");
  std::vector<Curve> curves;
  for (int i = 0; i <= static_cast<int>(3 * sizes_per_decade); ++i)
    for (int j = 0; j <= static_cast<int>(3 * budgets_per_decade); ++j)
      curves.push_back(end_of(1e7 * std::pow(10, i / sizes_per_decade), 1e18 * std::pow(10, j / budgets_per_decade),
                              1 + noise * random.normal(curves.size())));
  return curves;
}

TEST(Envelope, ConvergesToTheFrontierAsSizesGetDenser) {
  const Frontier truth = analytic_frontier(kEnvelopeLaw);
  double last_excess = 0, excess = 0;
  for (const double per_decade : {2.0, 4.0, 8.0, 16.0}) {
    // Budgets so dense that what is between them does not matter.
    const Envelope envelope = envelope_of(whole_grid(per_decade, 100), {});
    excess = 0;
    for (const EnvelopeRow& row : envelope.rows) {
      const double above = row.loss - truth.at(row.C).loss;
      EXPECT_GT(above, -1e-12);
      excess += above / static_cast<double>(envelope.rows.size());
    }
    // The best size is off by up to half a step of ln N, and the loss is flat there: a quarter for half the step.
    if (last_excess > 0) {
      EXPECT_NEAR(last_excess / excess, 4, 0.5) << per_decade;
    }
    last_excess = excess;
    // Two sizes alike about the optimum are equally good but for the skew of the valley, which is the same everywhere.
    EXPECT_NEAR(envelope.N->exponent, truth.a, 2e-3);
    for (const Crossing& each : envelope.crossings) EXPECT_NEAR(std::log(each.N / truth.at(each.C).N), 0, 0.05);
    EXPECT_NEAR(envelope.N->exponent + envelope.D->exponent, 1, 1e-9);
  }
  EXPECT_LT(excess, 1e-3);
}

TEST(Envelope, JoinsTheEndsOfASize) {
  // With two budgets a decade the envelope lies between ends: straight lines of ln loss would be up to 7e-3 too high there.
  const Envelope envelope = envelope_of(whole_grid(8, 2), {});
  for (const EnvelopeRow& row : envelope.rows) EXPECT_NEAR(row.loss, kEnvelopeLaw.at(Place{row.N, row.D}), 1e-3);
  EXPECT_NEAR(envelope.N->exponent, analytic_frontier(kEnvelopeLaw).a, 5e-3);
}

TEST(Envelope, DropsBudgetsWhoseBestSizeIsAnEdge) {
  std::vector<Curve> curves;
  for (const double N : {4e7, 1e8, 2e8, 5e8})
    for (const double C : {1e17, 1e18, 1e19, 1e20, 1e21, 1e22}) curves.push_back(end_of(N, C));
  const Envelope inner = envelope_of(curves, {});
  const Envelope all = envelope_of(curves, {.edge_sizes = true});
  EXPECT_EQ(all.left_out(), 0);
  EXPECT_EQ(all.rows.front().N, 4e7);
  EXPECT_EQ(all.rows.back().N, 5e8);
  EXPECT_GT(inner.at_smallest, 0);
  EXPECT_GT(inner.at_largest, 0);
  EXPECT_EQ(inner.left_out(), inner.at_smallest + inner.at_largest);
  for (const EnvelopeRow& row : inner.rows) {
    EXPECT_GT(row.N, 4e7);
    EXPECT_LT(row.N, 5e8);
  }
  EXPECT_EQ(inner.crossings.size(), 3u);  // each size to the next; the best one lies between
  EXPECT_EQ(inner.N->exponent, all.N->exponent);
}

TEST(Envelope, DropsBudgetsThatTooFewSizesReach) {
  const Envelope envelope = envelope_of(std::vector{end_of(1e8, 1e19), end_of(1e8, 1e20), end_of(3e8, 1e19)}, {});
  EXPECT_EQ(envelope.too_few_sizes, envelope.budgets);
  EXPECT_FALSE(envelope.N);
  EXPECT_EQ(envelope.why_no_exponents, "the best size changes at 0 budgets; exponents need 3");
}

// One schedule a size, 40 checkpoints, above the surface by `penalty` where nothing of it has decayed yet.
std::vector<Curve> long_schedules(double penalty, double alternating = 0) {
  std::vector<Curve> curves;
  for (double N = 1e7; N < 1.1e10; N *= std::pow(10, 0.25)) {
    Curve& curve = curves.emplace_back(Curve{.N = N, .points = {}});
    for (int k = 1; k <= 40; ++k) {
      const double D = 4e11 * std::pow(2, (k - 40) / 4.0), left = k < 40 ? 1 : 0;
      const double zigzag = k % 2 == 0 ? alternating : -alternating;
      curve.points.push_back(
          {ComputeCost{}.of(N, D), D, kEnvelopeLaw.at(Place{N, D}) * (1 + penalty * left) * (1 + zigzag)});
    }
  }
  return curves;
}

TEST(Envelope, TakesUndecayedCheckpointsOnlyWhenAsked) {
  const Frontier truth = analytic_frontier(kEnvelopeLaw);
  const std::vector<Curve> curves = long_schedules(0.02);
  // One end a size: no budget is reached by three of them.
  EXPECT_EQ(envelope_of(curves, {}).too_few_sizes, envelope_of(curves, {}).budgets);
  const Envelope with = envelope_of(curves, {.checkpoints = Checkpoints{.least_progress = 0}});
  ASSERT_GT(with.rows.size(), 40u);
  // All that is asked lies within the schedules, so the penalty comes whole; sizes and checkpoints, four a decade and
  // an octave, add little.
  for (const EnvelopeRow& row : with.rows) {
    EXPECT_GT(row.loss / truth.at(row.C).loss, 1.02);
    EXPECT_LT(row.loss / truth.at(row.C).loss, 1.03);
  }
}

TEST(Envelope, LeavesTheFirstPartOfAScheduleOut) {
  std::vector<Curve> curves = long_schedules(0);
  for (Curve& curve : curves)
    for (size_t k = 0; k < 20; ++k) curve.points[k].loss = 0.5;  // up to 2^-5 of the schedule
  const auto lowest = [&](double least_progress) {
    const Envelope envelope =
        envelope_of(curves, {.checkpoints = Checkpoints{.least_progress = least_progress}, .edge_sizes = true});
    return std::ranges::min(envelope.rows, {}, &EnvelopeRow::loss).loss;
  };
  EXPECT_GT(lowest(0.04), kEnvelopeLaw.constant("E"));
  EXPECT_NEAR(lowest(0.02), 0.5, 1e-12);
}

TEST(Envelope, SmoothsCheckpointsBeforeItTakesTheLowest) {
  const Frontier truth = analytic_frontier(kEnvelopeLaw);
  const auto lowest = [&](int64_t smoothing) {
    double least = 1e300;
    const EnvelopeRules rules{.checkpoints = Checkpoints{.least_progress = 0, .smoothing = smoothing}};
    for (const EnvelopeRow& row : envelope_of(long_schedules(0, 0.03), rules).rows)
      least = std::min(least, row.loss / truth.at(row.C).loss);
    return least;
  };
  EXPECT_LT(lowest(1), 0.975);  // the lower of each pair is -3 %
  EXPECT_GT(lowest(3), 0.985);  // a mean of three keeps a third of it
}

TEST(Envelope, IntervalsAreTheSameEveryTimeAndResampleGroupsWhole) {
  std::vector<Curve> curves = whole_grid(4, 3, 0.002);
  const auto first = bootstrap_envelope(curves, {}, {.resamples = 200, .seed = 3});
  const auto again = bootstrap_envelope(curves, {}, {.resamples = 200, .seed = 3});
  ASSERT_TRUE(first && again);
  EXPECT_EQ(first->a.low, again->a.low);
  EXPECT_EQ(first->b.high, again->b.high);
  EXPECT_LT(first->a.low, first->a.high);
  for (Curve& curve : curves) curve.group = 7;  // one group: every resample is the sweep itself
  const auto whole = bootstrap_envelope(curves, {}, {.resamples = 100});
  EXPECT_EQ(whole->a.low, envelope_of(curves, {}).N->exponent);
  EXPECT_EQ(whole->a.high, whole->a.low);
}

TEST(Envelope, IntervalsWithTheNoiseOfARunHoldTheExponent) {
  // Twelve sizes over three decades, four budgets each, one run a place. What is to be held is the exponent of the envelope
  // without noise, as coarse sizes are not in the intervals.
  constexpr double kNoise = 0.001;  // of ln loss
  const auto sweep = [](double noise, uint64_t seed) { return whole_grid(11.0 / 3, 1.34, noise, seed); };
  const double exact = envelope_of(sweep(0, 0), {}).N->exponent;
  int held = 0;
  constexpr int kSweeps = 60;
  for (uint64_t seed = 0; seed < kSweeps; ++seed) {
    const auto curves = sweep(kNoise, seed);
    const auto intervals =
        bootstrap_envelope(curves, {}, {.resamples = 100}, Noise{kNoise * 2.5, 40, "repeated seeds"});  // losses are about 2.5
    ASSERT_TRUE(intervals);
    held += intervals->a.contains(exact);
  }
  // 54 of 60 are expected; a binomial count has deviation 2.3. The lowest of noisy curves is not unbiased: a little slack.
  EXPECT_GE(held, 46);
}

TEST(Envelope, RefusesBadCurvesAndRules) {
  const std::vector<Curve> good = whole_grid(2, 2);
  const auto refused = [&](const std::vector<Curve>& curves, const EnvelopeRules& rules, const char* sentence) {
    EXPECT_THAT([&] { envelope_of(curves, rules); }, ThrowsMessage<base::UserError>(HasSubstr(sentence)));
  };
  std::vector<Curve> curves = good;
  curves[0].points[0].loss = std::nan("");
  refused(curves, {}, "and loss nan; expected finite positive numbers");
  curves = good;
  curves[0].points.push_back(curves[0].points[0]);
  refused(curves, {}, "expected rising C");
  refused(good, {.checkpoints = Checkpoints{.smoothing = 2}}, "a moving average of 2 points; expected an odd number");
  refused(good, {.checkpoints = Checkpoints{.least_progress = 1}}, "1 as the first share of a schedule");
  refused(good, {.budgets_per_decade = 0}, "0 budgets a decade");
}

}  // namespace
}  // namespace varscale::fit
