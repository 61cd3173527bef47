#include "sweep/health.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

namespace varscale::sweep {
namespace {

// Losses 3.00, 3.01, 2.99, 3.01, 2.99, ...: of any 50 in a row the median is 3, the median deviation 0.01.
records::RunTables tables_with(const std::vector<double>& then) {
  records::RunTables tables;
  std::vector<double> losses;
  for (int i = 0; i < 50; ++i) losses.push_back(i % 2 == 0 ? 3.01 : 2.99);
  losses.insert(losses.end(), then.begin(), then.end());
  for (const double loss : losses) {
    records::StepRow row{};
    row.step = static_cast<int64_t>(tables.steps.size()) + 1;
    row.loss_mean = loss;
    row.busy_min_s = row.busy_max_s = 1;
    tables.steps.push_back(row);
  }
  return tables;
}

TEST(Health, CountsASpikeAboveBothBounds) {
  // 5 x 1.4826 x 0.01 = 0.074 above 3, and 0.1 above 3: here the second decides.
  EXPECT_EQ(health_of(tables_with({3.099})).spikes, 0);
  const Health health = health_of(tables_with({3.101, 3.0, 9.0}));
  EXPECT_EQ(health.spikes, 2);
  EXPECT_EQ(health.last_spike, 53);
  EXPECT_EQ(health.words(), "2 spikes (last at step 53)");
}

TEST(Health, AWideSpreadOfLossesMakesNoSpikes) {
  records::RunTables tables = tables_with({3.70, 3.80});
  for (int64_t i = 0; i < 50; ++i) tables.steps[static_cast<size_t>(i)].loss_mean = i % 2 == 0 ? 3.1 : 2.9;
  // 5 x 1.4826 x 0.1 = 0.7413 above 3.
  const Health health = health_of(tables);
  EXPECT_EQ(health.spikes, 1);
  EXPECT_EQ(health.last_spike, 52);
}

TEST(Health, NeedsFiftyLossesAndLooksAtTheNewestFifty) {
  records::RunTables tables = tables_with({9.0});
  tables.steps.erase(tables.steps.begin());
  EXPECT_EQ(health_of(tables).spikes, 0) << "49 losses before it";
  // A new level is a spike only until most of the window lies there.
  std::vector<double> level(100, 4.0);
  const Health health = health_of(tables_with(level));
  EXPECT_EQ(health.spikes, 25);
  EXPECT_EQ(health.last_spike, 75);
}

TEST(Health, CountsSkippedUpdatesWhichAreNoSpikes) {
  records::RunTables tables = tables_with({std::nan(""), INFINITY, 3.0});
  tables.steps[50].skipped = tables.steps[51].skipped = 1;
  const Health health = health_of(tables);
  EXPECT_EQ(health.skipped, 2);
  EXPECT_EQ(health.spikes, 0);
  EXPECT_EQ(health.words(), "2 skipped");
}

TEST(Health, NamesTheRankThatHoldsTheOthersUp) {
  records::RunTables tables = tables_with({});
  tables.facts["hosts"] = std::string("left,right,far");
  for (records::StepRow& row : tables.steps) {
    row.busy_max_s = 1.5;
    row.slowest_rank = row.step % 5 == 0 ? 0 : 2;
  }
  const Health health = health_of(tables);
  EXPECT_DOUBLE_EQ(health.imbalance, 1.5);
  EXPECT_EQ(health.slowest_rank, 2);
  EXPECT_EQ(health.words(), "rank 2 on far works 1.50 x as long as the fastest");
  // What was slow before the newest 50 steps no longer counts, nor what another layout did.
  for (int i = 0; i < 50; ++i) {
    tables.steps.push_back(tables.steps.back());
    ++tables.steps.back().step;
    tables.steps.back().busy_max_s = 1.1;
  }
  EXPECT_FALSE(health_of(tables).straggles());
  tables.steps.resize(50);
  for (size_t i = 40; i < 50; ++i) {
    tables.steps[i].segment = 1;
    tables.steps[i].busy_max_s = 1;
  }
  EXPECT_EQ(health_of(tables).words(), "good");
}

TEST(Health, OfNoRowsIsGood) {
  const Health health = health_of({});
  EXPECT_EQ(health.words(), "good");
  EXPECT_TRUE(health.json()["last_spike"].is_null());
}

TEST(Health, IsJsonWithEveryFigure) {
  records::RunTables tables = tables_with({9.0});
  tables.steps[3].skipped = 1;
  const auto json = health_of(tables).json();
  EXPECT_EQ(json["skipped"], 1);
  EXPECT_EQ(json["spikes"], 1);
  EXPECT_EQ(json["last_spike"], 51);
  EXPECT_EQ(json["imbalance"], 1.0);
}

}  // namespace
}  // namespace varscale::sweep
