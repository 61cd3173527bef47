// A launch of this test's ranks over a sweep of tiny runs: who fails, who goes on, what is said in the end.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>

#include "comm/communicator.hpp"
#include "coordinate/coordinator.hpp"
#include "coordinate/worker.hpp"
#include "records/run_file.hpp"
#include "sweep/widths.hpp"
#include "tests/comm/world.hpp"
#include "tests/train/tiny_run.hpp"

namespace varscale {
namespace {

namespace fs = std::filesystem;
using base::ExitCode;
using sweep::RunState;
using testing::HasSubstr;

comm::Communicator* const& world = comm::shared_world();  // opened by main()

// A folder with the token file, and launches in it. Every rank has one; the first rank's is made and removed.
class Sweeps {
 public:
  Sweeps() {
    if (world->rank() == 0) {
      scratch_ = std::make_unique<test::ScratchFolder>("coordinate");
      test::write_tiny_tokens(scratch_->path() / "tokens.h5");
    }
    folder_ = world->broadcast_bytes(world->rank() == 0 ? scratch_->path().string() : "", 0, "folder");
  }

  // Runs of seeds 0, 1, ...
  sweep::Sweep sweep(const std::string& name, int runs, int64_t images = 240) const {
    const records::TokenFile tokens(folder_ / "tokens.h5");
    sweep::Sweep result{.name = name, .output = folder_ / name, .text = "", .runs = {}};
    for (int seed = 0; seed < runs; ++seed) {
      sweep::RunConfig config = test::tiny_run(tokens);
      config.train.seed = static_cast<uint64_t>(seed);
      config.train.images = images;
      config.train.batch = 8;
      const sweep::TokenFacts facts = sweep::facts_of(tokens);
      config = sweep::resolve(config, facts);
      result.runs.push_back({.id = sweep::run_id(config, facts), .where = "", .config = config, .tokens = facts});
    }
    return result;
  }

  ExitCode launch(const sweep::Sweep& sweep, bool whole, const coordinate::BeforeStep& before_step = {},
                  std::optional<double> time_limit_s = {}) const {
    const base::StopSignals stop;
    std::optional<sweep::Ledger> ledger;
    std::optional<coordinate::Coordinator> coordinator;
    comm::agree_on(*world, "ledger", [&] {
      if (world->rank() > 0) return;
      const sweep::Throughput throughput("cpu");
      const scaling::Machine machine = sweep::machine_of("cpu", world->size());
      ledger.emplace(sweep::Ledger::open(sweep, sweep::make_plan(sweep, throughput, machine)));
      coordinate::CoordinatorOptions options{.placement = {.change_s = 0.1, .whole = whole},
                                             .speeds = {},
                                             .step_flops = {},
                                             .left_out = {},
                                             .time_limit_s = time_limit_s,
                                             .quiet = true};
      for (const sweep::SweepRun& run : sweep.runs)
        options.speeds.push_back(sweep::speeds_of(run, throughput, machine));
      coordinator.emplace(sweep, *ledger, world->post(), world->size(), std::move(options));
    });
    const ExitCode code = coordinate::Worker(sweep, *world, stop, true, before_step).work();
    comm::agree_on(*world, "sweep", [&] {
      if (coordinator) coordinator->finish();
    });
    return code;
  }

  // Of the first rank: the last validation loss of each run.
  static std::vector<double> losses(const sweep::Sweep& sweep) {
    std::vector<double> losses;
    for (const sweep::SweepRun& run : sweep.runs)
      losses.push_back(records::read_run(sweep.output / "runs" / run.id / "run.h5").eval.back().loss_mean);
    return losses;
  }
  static sweep::RunStatus status(const sweep::Sweep& sweep, size_t run) {
    return sweep::Ledger::look(sweep).status(sweep.runs.at(run).id);
  }

 private:
  std::unique_ptr<test::ScratchFolder> scratch_;
  fs::path folder_;
};

TEST(Launch, PackedRunsGiveTheResultsOfRunsOneAfterAnother) {
  const Sweeps sweeps;
  const sweep::Sweep whole = sweeps.sweep("whole", 6), packed = sweeps.sweep("packed", 6);
  std::set<int> sizes;
  EXPECT_EQ(sweeps.launch(whole, true), ExitCode::kDone);
  EXPECT_EQ(sweeps.launch(packed, false, [&](const std::string&, comm::Communicator& group, int64_t) {
              sizes.insert(group.size());
            }),
            ExitCode::kDone);
  if (world->size() > 1) {
    EXPECT_LT(*sizes.begin(), world->size()) << "no group was smaller than the launch";
  }
  if (world->rank() > 0) return;
  const auto a = Sweeps::losses(whole), b = Sweeps::losses(packed);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-5);  // other widths, other roundings
}

// The error of one rank: its group ends, the others do not pause, and its ranks train what is left.
TEST(Launch, AnErrorOfOneRankAloneEndsItsRunAlone) {
  const Sweeps sweeps;
  const sweep::Sweep sweep = sweeps.sweep("soft", 6);
  const std::string broken = sweep.runs[1].id;
  for (const bool whole : {true, false}) {
    const ExitCode code =
        sweeps.launch(sweep, whole, [&](const std::string& id, comm::Communicator& group, int64_t step) {
          if (id == broken && group.rank() == group.size() - 1 && step == 7) throw std::runtime_error("no memory left");
        });
    EXPECT_EQ(code, ExitCode::kFailure);
    if (world->rank() == 0) {
      for (size_t i = 0; i < sweep.runs.size(); ++i)
        EXPECT_EQ(Sweeps::status(sweep, i).state, i == 1 ? RunState::kFailed : RunState::kDone) << i;
      EXPECT_THAT(Sweeps::status(sweep, 1).reason, HasSubstr("no memory left"));
    }
    world->barrier("looked at");
  }
  EXPECT_EQ(sweeps.launch(sweep, false), ExitCode::kDone);  // tried again
}

TEST(Launch, AnErrorOfAllRanksOfAGroupEndsItsRunAlone) {
  const Sweeps sweeps;
  const sweep::Sweep sweep = sweeps.sweep("agreed", 4);
  const ExitCode code =
      sweeps.launch(sweep, false, [&](const std::string& id, comm::Communicator& group, int64_t step) {
        if (id == sweep.runs[2].id && step == 3) group.agree("the data are damaged", /*user=*/true, "check");
      });
  EXPECT_EQ(code, ExitCode::kBadInput);
  if (world->rank() > 0) return;
  for (size_t i = 0; i < sweep.runs.size(); ++i)
    EXPECT_EQ(Sweeps::status(sweep, i).state, i == 2 ? RunState::kFailed : RunState::kDone) << i;
  EXPECT_EQ(Sweeps::status(sweep, 2).reason, "the data are damaged");
}

TEST(Launch, ASignalStopsEveryRunAndTheNextLaunchGoesOn) {
  const Sweeps sweeps;
  const sweep::Sweep calm = sweeps.sweep("calm", 4), disturbed = sweeps.sweep("disturbed", 4);
  EXPECT_EQ(sweeps.launch(calm, true), ExitCode::kDone);
  bool sent = false;
  const ExitCode code = sweeps.launch(disturbed, true, [&](const std::string& id, comm::Communicator&, int64_t step) {
    if (id != disturbed.runs[1].id || step != 11 || sent || world->rank() != world->size() - 1) return;
    sent = true;
    kill(getpid(), SIGUSR1);
  });
  EXPECT_EQ(code, ExitCode::kStopped);
  if (world->rank() == 0) {
    EXPECT_EQ(Sweeps::status(disturbed, 1).state, RunState::kStopped);
  }
  EXPECT_EQ(sweeps.launch(disturbed, true), ExitCode::kDone);
  if (world->rank() == 0) {
    EXPECT_EQ(Sweeps::losses(calm), Sweeps::losses(disturbed));  // equal layout: equal bits
  }
}

TEST(Launch, TheFileStopStopsEveryRunAndATimeLimitDoesToo) {
  const Sweeps sweeps;
  const sweep::Sweep sweep = sweeps.sweep("switch", 2, 800000);  // would take minutes
  const ExitCode code = sweeps.launch(sweep, false, [&](const std::string&, comm::Communicator&, int64_t step) {
    if (step == 5) std::ofstream(sweep.output / "stop");
  });
  EXPECT_EQ(code, ExitCode::kStopped);
  if (world->rank() == 0) {
    EXPECT_FALSE(fs::exists(sweep.output / "stop"));
  }
  EXPECT_EQ(sweeps.launch(sweep, false, {}, 31.0), ExitCode::kStopped);  // the margin is 30 s
}

TEST(Launch, TheFileStopOfARunStopsItAlone) {
  const Sweeps sweeps;
  sweep::Sweep sweep = sweeps.sweep("one", 3);
  sweep.runs[0] = sweeps.sweep("one", 1, 800000).runs[0];
  const fs::path file = sweep.output / "runs" / sweep.runs[0].id / "stop";
  const ExitCode code = sweeps.launch(sweep, false, [&](const std::string& id, comm::Communicator&, int64_t step) {
    if (id == sweep.runs[0].id && step == 5) std::ofstream(file.string());
  });
  EXPECT_EQ(code, ExitCode::kDone);
  if (world->rank() > 0) return;
  EXPECT_TRUE(fs::exists(file));
  EXPECT_EQ(Sweeps::status(sweep, 0).state, RunState::kStopped);
  for (const size_t i : {1, 2}) EXPECT_EQ(Sweeps::status(sweep, i).state, RunState::kDone);
}

TEST(Launch, WhatTheCoordinatorMeetsIsToldOnEveryRankAfterAllRunsHaveSaved) {
  const Sweeps sweeps;
  const sweep::Sweep sweep = sweeps.sweep("broken", 6);
  if (world->rank() == 0) {  // the folder of the last run is a file
    fs::create_directories(sweep.output / "runs");
    std::ofstream(sweep.output / "runs" / sweep.runs[5].id) << "in the way";
  }
  world->barrier("prepared");
  EXPECT_THROW(sweeps.launch(sweep, true), std::exception);
  world->barrier("all ranks have come back");
}

TEST(Launch, LettersSayWhatWasWritten) {
  const coordinate::Order order{.kind = coordinate::Order::Kind::kTrain, .group = 7, .run = 3, .ranks = {1, 2},
                                .attempt = "a \"quoted\" text", .exit_code = 75};
  const auto read = coordinate::Order::parse(order.text());
  EXPECT_EQ(read.text(), order.text());
  EXPECT_EQ(read.ranks, order.ranks);
  const coordinate::Report report{.kind = coordinate::Report::Kind::kEnded, .end = coordinate::Report::End::kFailed,
                                  .group = 7, .step = 11, .steps_per_s = 0.5, .save_s = 2, .reason = "\xff broken",
                                  .users_fault = true};
  EXPECT_EQ(coordinate::Report::parse(report.text()).step, 11);
  EXPECT_THAT(coordinate::Report::parse(report.text()).reason, HasSubstr("broken"));
}

}  // namespace
}  // namespace varscale
