#include "optim/schedule.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "base/error.hpp"

namespace varscale::optim {
namespace {

// The public name of a schedule as ours.
ScheduleOptions options_for(const std::string& sche) {
  static const std::map<std::string, ScheduleOptions> table{
      {"cos", {.kind = "cosine"}},
      {"lin", {.kind = "public", .hold = 0.15}},
      {"lin0", {.kind = "public", .hold = 0.05}},
      {"lin00", {.kind = "public", .hold = 0}},
      {"lin0.3", {.kind = "two_slope", .hold = 0.3}},
      {"lin0.8", {.kind = "two_slope", .hold = 0.8}},
      {"exp", {.kind = "exp"}}};
  return table.at(sche);
}

TEST(Schedule, EqualsThePublicCodeAtEveryStoredPoint) {
  const auto stored = nlohmann::json::parse(
      std::ifstream(std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / "schedule.json"));
  const int64_t steps = stored.at("max_it");
  const double peak = stored.at("peak_lr"), decay = stored.at("wd");
  int checks = 0;
  double worst = 0;
  for (const auto& entry : stored.at("schedules")) {
    ScheduleOptions options = options_for(entry.at("sche"));
    options.steps = steps;
    options.warmup_steps = stored.at("wp_it");
    options.warmup_start = stored.at("wp0");
    options.end = entry.at("wpe");
    const Schedule schedule(options);
    const double decay_end = entry.at("wd_end");
    for (size_t i = 0; i < stored.at("cur_it").size(); ++i) {
      const int64_t step = stored.at("cur_it")[i];
      const double lr = entry.at("lr")[i], wd = entry.at("wd")[i];
      const double lr_error = std::abs(peak * schedule.lr_factor(step) / lr - 1);
      const double wd_error = std::abs(weight_decay_at(decay, decay_end, step, steps) / wd - 1);
      EXPECT_LE(lr_error, 1e-12) << entry.at("sche") << " step " << step;
      EXPECT_LE(wd_error, 1e-12) << entry.at("sche") << " step " << step;
      worst = std::max({worst, lr_error, wd_error});
      checks += 2;
    }
  }
  std::printf("parity schedule: %d checks, worst relative error %.1e\n", checks, worst);
  EXPECT_EQ(checks, 28 * 50 * 2);
}

TEST(Schedule, ConstantIsOneAfterTheWarmUp) {
  const Schedule schedule(
      {.kind = "constant", .steps = 10, .warmup_steps = 4, .warmup_start = 0.2});
  const double want[] = {0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1};
  for (int64_t step = 0; step < 10; ++step) EXPECT_DOUBLE_EQ(schedule.lr_factor(step), want[step]);
  EXPECT_EQ(schedule.decay_begin(), 10);
}

TEST(Schedule, WarmupStableDecayHoldsThenFallsLinearlyToItsEnd) {
  const Schedule schedule(
      {.kind = "wsd", .steps = 101, .warmup_steps = 10, .hold = 0.7, .end = 0.1});
  const int64_t begin = 71;  // 0.7 x 101 rounded
  EXPECT_EQ(schedule.decay_begin(), begin);
  EXPECT_DOUBLE_EQ(schedule.lr_factor(0), 0.005);
  for (int64_t step = 10; step <= begin; ++step) EXPECT_DOUBLE_EQ(schedule.lr_factor(step), 1);
  for (int64_t step = begin; step <= 100; ++step) {
    EXPECT_DOUBLE_EQ(schedule.lr_factor(step),
                     1 - 0.9 * static_cast<double>(step - begin) / (100 - begin));
  }
  EXPECT_NEAR(schedule.lr_factor(100), 0.1, 1e-15);
}

TEST(Schedule, DecayBeginsWhereTheRateFirstMayFall) {
  for (const std::string kind : {"cosine", "public", "two_slope", "wsd"}) {
    const Schedule schedule(
        {.kind = kind, .steps = 200, .warmup_steps = 20, .hold = 0.25, .end = 0.01});
    const int64_t begin = schedule.decay_begin();
    EXPECT_GE(begin, 20);
    for (int64_t step = 20; step < begin; ++step) EXPECT_EQ(schedule.lr_factor(step), 1) << kind;
    for (int64_t step = begin + 1; step < 200; ++step) {
      EXPECT_LT(schedule.lr_factor(step), schedule.lr_factor(step - 1)) << kind << " " << step;
    }
    EXPECT_NEAR(schedule.lr_factor(199), 0.01, 1e-15) << kind;
  }
}

TEST(Schedule, OfOneStepIsDefined) {
  for (const std::string kind : {"cosine", "public", "two_slope", "exp", "constant", "wsd"}) {
    const double factor = Schedule({.kind = kind, .steps = 1}).lr_factor(0);
    EXPECT_GE(factor, 0.1) << kind;
    EXPECT_LE(factor, 1) << kind;
  }
  EXPECT_EQ(weight_decay_at(0.05, 0.01, 0, 1), 0.05);
}

TEST(Schedule, RefusesWhatMakesNoSchedule) {
  EXPECT_THROW(Schedule({.kind = "cosin", .steps = 10}), base::UserError);
  EXPECT_THROW(Schedule({.kind = "cosine", .steps = 0}), base::UserError);
  EXPECT_THROW(Schedule({.kind = "cosine", .steps = 10, .warmup_steps = 10}), base::UserError);
}

TEST(Schedule, AHoldOfTheWholeRunNeverDecays) {
  for (const char* kind : {"public", "wsd"}) {
    const Schedule schedule({.kind = kind, .steps = 10, .warmup_steps = 2, .hold = 1, .end = 0.1});
    for (int64_t step = 2; step < 10; ++step) EXPECT_EQ(schedule.lr_factor(step), 1) << kind << step;
  }
}

}  // namespace
}  // namespace varscale::optim
