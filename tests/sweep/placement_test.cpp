// The decisions of the coordinator, and what they make of a sweep by simulated time.
#include "sweep/placement.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

#include "base/error.hpp"
#include "scaling/step_time.hpp"
#include "sweep/simulation.hpp"
#include "sweep/widths.hpp"

namespace varscale::sweep {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

// Twice the ranks, twice the speed.
std::vector<Speed> straight(int64_t most, double steps_per_s = 1) {
  std::vector<Speed> speeds;
  for (int64_t ranks = 1; ranks <= most; ++ranks) speeds.push_back({ranks, steps_per_s * static_cast<double>(ranks)});
  return speeds;
}

const Start& start_of(int64_t run, const Decision& decision) {
  for (const Start& start : decision.starts)
    if (start.run == run) return start;
  throw std::runtime_error("not started");
}

TEST(Placement, GivesEqualRunsEqualParts) {
  Placement placement(4, {.change_s = 1});
  placement.add(0, 1000, straight(4));
  placement.add(1, 1000, straight(4));
  const Decision decision = placement.decide();
  EXPECT_THAT(start_of(0, decision).ranks, ElementsAre(0, 1));
  EXPECT_THAT(start_of(1, decision).ranks, ElementsAre(2, 3));
  EXPECT_EQ(placement.free_ranks(), 0);
  EXPECT_NEAR(placement.estimate_s(), 500, 1);
}

TEST(Placement, GivesALargeRunThreeQuarters) {
  Placement placement(4, {.change_s = 1});
  placement.add(0, 1000, straight(4));
  placement.add(1, 3000, straight(4));
  const Decision decision = placement.decide();
  EXPECT_THAT(start_of(1, decision).ranks, SizeIs(3));
  EXPECT_THAT(start_of(0, decision).ranks, SizeIs(1));
}

// Three ranks of a node of four are free in two places.
TEST(Placement, RanksOfAGroupAreConsecutiveAndAligned) {
  Placement placement(8, {.change_s = 1, .node_ranks = 4});
  const auto exactly = [](int64_t ranks) { return std::vector<Speed>{{ranks, 1.0}}; };
  placement.add(0, 1000, exactly(4));
  placement.add(1, 900, exactly(2));
  placement.add(2, 10, exactly(1));
  Decision decision = placement.decide();
  EXPECT_THAT(start_of(0, decision).ranks, ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(start_of(1, decision).ranks, ElementsAre(4, 5));
  EXPECT_THAT(start_of(2, decision).ranks, ElementsAre(6));
  placement.ended(2);
  placement.add(3, 5, exactly(2));
  EXPECT_THAT(start_of(3, placement.decide()).ranks, ElementsAre(6, 7));
}

TEST(Placement, AWideRunThatWaitsIsNotOvertakenForEver) {
  Placement placement(4, {.change_s = 1});
  placement.add(0, 100, {{2, 1.0}});
  ASSERT_THAT(placement.decide().starts, SizeIs(1));
  placement.add(1, 100, {{4, 1.0}});
  placement.add(2, 1000, {{2, 1.0}});  // would keep two ranks long after the wide one could have begun
  placement.add(3, 50, {{2, 1.0}});    // ends before that
  const Decision decision = placement.decide();
  ASSERT_THAT(decision.starts, SizeIs(1));
  EXPECT_EQ(decision.starts[0].run, 3);
  placement.ended(3);
  EXPECT_THAT(placement.decide().starts, IsEmpty());
  placement.ended(0);
  const Decision next = placement.decide();
  ASSERT_THAT(next.starts, SizeIs(1));
  EXPECT_EQ(next.starts[0].run, 1);
}

TEST(Placement, RanksThatFallFreeWidenWhatIsLeft) {
  Placement placement(4, {.change_s = 1});
  placement.add(0, 1000, straight(4));
  placement.add(1, 1000, straight(4));
  ASSERT_THAT(placement.decide().starts, SizeIs(2));
  placement.measured(0, 500, 2);
  placement.measured(1, 500, 2);
  placement.ended(0);
  Decision decision = placement.decide();
  EXPECT_THAT(decision.starts, IsEmpty());
  ASSERT_THAT(decision.give_back, ElementsAre(1));
  EXPECT_THAT(placement.decide().give_back, IsEmpty()) << "asked twice";
  placement.returned(1, 490);
  decision = placement.decide();
  EXPECT_THAT(start_of(1, decision).ranks, ElementsAre(0, 1, 2, 3));
}

TEST(Placement, AChangeThatCostsMoreThanItGivesIsNotMade) {
  Placement placement(4, {.change_s = 1000});
  placement.add(0, 1000, straight(4));
  placement.add(1, 1000, straight(4));
  placement.decide();
  placement.ended(0);
  EXPECT_THAT(placement.decide().give_back, IsEmpty());
}

TEST(Placement, MeasuredSpeedsMoveRanksToTheLateRun) {
  Placement placement(4, {.change_s = 1});
  placement.add(0, 1000, straight(4));
  placement.add(1, 1000, straight(4));
  placement.decide();
  placement.measured(0, 990, 2);
  placement.measured(1, 995, 0.7);  // about a third of what was thought
  EXPECT_THAT(placement.decide().give_back, ElementsAre(0, 1));
  placement.returned(0, 990);
  placement.returned(1, 995);
  const Decision decision = placement.decide();
  EXPECT_THAT(start_of(0, decision).ranks, SizeIs(1));
  EXPECT_THAT(start_of(1, decision).ranks, SizeIs(3));
}

TEST(Placement, WholeIsOneAfterAnotherInOrder) {
  Placement placement(4, {.whole = true});
  placement.add(0, 1000, straight(4));
  placement.add(1, 5000, straight(2));
  Decision decision = placement.decide();
  ASSERT_THAT(decision.starts, SizeIs(1));
  EXPECT_THAT(start_of(0, decision).ranks, SizeIs(4));
  EXPECT_THAT(placement.decide().starts, IsEmpty());
  placement.ended(0);
  EXPECT_THAT(start_of(1, placement.decide()).ranks, SizeIs(2));
}

TEST(Placement, WhatAnotherJobHasTakenIsNotPlaced) {
  Placement placement(2, {});
  placement.add(0, 10, straight(2));
  placement.ended(0);
  EXPECT_TRUE(placement.idle());
  EXPECT_THAT(placement.decide().starts, IsEmpty());
}

TEST(StepTime, UsefulWidthsMakeTheLargestShareSmaller) {
  EXPECT_THAT(scaling::useful_widths(8, 8, 8), ElementsAre(1, 2, 3, 4, 8));
  EXPECT_THAT(scaling::useful_widths(64, 32, 8), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 16, 24, 32));
  EXPECT_THAT(scaling::useful_widths(4, 100, 8), ElementsAre(1, 2, 4));
}

// The speeds that placements of sweeps/depth.yaml on H200s begin with, before anything is measured.
TEST(StepTime, SpeedsOfTheDepthSweepAreThoseOfTheTable) {
  const std::string source = std::getenv("VARSCALE_SOURCE");
  const Sweep sweep = load_sweep(source + "/sweeps/depth.yaml", {}, Purpose::kPlan);
  std::map<int64_t, std::vector<Speed>> table;
  std::ifstream file(source + "/tests/fixtures/throughput_h200.csv");
  std::string line;
  std::getline(file, line);
  ASSERT_EQ(line, "depth,ranks,steps_per_s");
  while (std::getline(file, line)) {
    std::istringstream row(line);
    int64_t depth = 0;
    Speed speed;
    char comma = 0;
    row >> depth >> comma >> speed.ranks >> comma >> speed.steps_per_s;
    table[depth].push_back(speed);
  }
  ASSERT_EQ(table.size(), 13U);
  for (const SweepRun& run : sweep.runs) {
    const std::vector<Speed> speeds = speeds_of(run, Throughput("h200"), machine_of("h200", 512));
    const std::vector<Speed>& expected = table.at(run.config.model.depth);
    ASSERT_EQ(speeds.size(), expected.size()) << run.id;
    for (size_t i = 0; i < speeds.size(); ++i) {
      EXPECT_EQ(speeds[i].ranks, expected[i].ranks);
      EXPECT_NEAR(speeds[i].steps_per_s, expected[i].steps_per_s, 1e-5 * expected[i].steps_per_s);
    }
  }
}

TEST(Simulation, TheBoundIsTheLargerOfAreaAndLongestRun) {
  // 100 rank-seconds each at one rank; the second cannot be faster than 60 s.
  const std::vector<SimulatedRun> runs{{100, {{1, 1}, {2, 1.9}}}, {100, {{1, 1}, {2, 100.0 / 60}}}};
  EXPECT_NEAR(lower_bound(runs, 2), 100, 1e-9);
  EXPECT_NEAR(lower_bound(runs, 100), 60, 1e-9);
}

// Draws of speeds that the placement does not know: never below the bound, every step taken, and for the depths of
// sweeps/depth.yaml close to it. The bounds asked for here are looser than what is reported for 200 draws.
TEST(Simulation, DepthSweepEndsCloseToTheBound) {
  const Sweep sweep = load_sweep(std::string(std::getenv("VARSCALE_SOURCE")) + "/sweeps/depth.yaml", {}, Purpose::kPlan);
  const Throughput throughput("h200");
  for (const auto& [ranks, most] : {std::pair<int64_t, double>{8, 1.03}, {64, 1.05}, {512, 1.15}}) {
    Simulation simulation{.ranks = ranks};
    for (const SweepRun& run : sweep.runs)
      simulation.runs.push_back({static_cast<double>(steps_of(run.config)),
                                 speeds_of(run, throughput, machine_of("h200", ranks))});
    std::vector<double> ratios;
    for (uint64_t draw = 0; draw < 10; ++draw) {
      const Makespans made = simulate(simulation, draw);
      EXPECT_GE(made.placed, made.bound);
      EXPECT_GE(made.one_by_one, made.bound);
      EXPECT_GE(made.fixed_groups, made.bound);
      ratios.push_back(made.placed / made.bound);
    }
    EXPECT_LT(distribution_of(ratios).median, most) << ranks << " ranks";
  }
}

TEST(Simulation, AThousandTinyRunsArePlacedWithoutGaps) {
  Simulation simulation{.ranks = 4, .change_s = 0.01, .report_s = 1};
  for (int i = 0; i < 1000; ++i) simulation.runs.push_back({10, straight(4)});
  const Makespans made = simulate(simulation, 0);
  EXPECT_LT(made.placed, 1.02 * made.bound);
}

TEST(Simulation, QuantilesAreThoseOfTheSortedValues) {
  const Distribution d = distribution_of({5, 1, 4, 2, 3});
  EXPECT_EQ(d.median, 3);
  EXPECT_EQ(d.p95, 5);
}

}  // namespace
}  // namespace varscale::sweep
