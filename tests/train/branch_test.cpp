// A branch of a trunk, in this process and stopped after chosen steps.
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "checkpoint/checkpoint.hpp"
#include "comm/communicator.hpp"
#include "nn/tensor.hpp"
#include "records/run_file.hpp"
#include "sweep/branches.hpp"
#include "tests/train/tiny_run.hpp"
#include "train/set_up.hpp"

namespace varscale {
namespace {

// The plan counts its branch points without optim's schedules.
TEST(Branch, BeginsWhereTheScheduleBeginsToDecay) {
  sweep::RunConfig run;
  run.train.batch = 1;
  for (int64_t steps = 3; steps < 200; ++steps) {
    for (const double hold : {0.0, 0.05, 0.1, 0.25, 0.3, 0.7, 0.75, 0.85, 0.999, 1.0}) {
      for (const int64_t warmup : {int64_t{0}, int64_t{1}, steps / 2, steps - 1}) {
        run.train.images = steps;
        run.schedule.hold = hold;
        run.schedule.warmup = static_cast<double>(warmup) / static_cast<double>(steps);
        EXPECT_EQ(sweep::warmup_steps_of(run), warmup);
        EXPECT_EQ(sweep::decay_step_of(run), train::make_schedule(run).decay_begin()) << steps << " " << hold;
      }
    }
  }
}

struct Family {
  test::ScratchFolder scratch{"branch"};
  std::unique_ptr<records::TokenFile> tokens;
  base::StopSignals stop;
  std::unique_ptr<comm::Communicator> self = comm::make_self();
  std::vector<sweep::SweepRun> runs;
  sweep::SweepRun trunk;

  Family() {
    test::write_tiny_tokens(scratch.path() / "tokens.h5");
    tokens = std::make_unique<records::TokenFile>(scratch.path() / "tokens.h5");
    const sweep::TokenFacts facts = sweep::facts_of(*tokens);
    for (const int64_t images : {60, 120}) {  // 10 and 20 steps: decays after 7 and 14
      sweep::RunConfig run = test::tiny_run(*tokens);
      run.train.images = images;
      run.schedule.warmup_images = 12;
      run.schedule.hold = 0.7;
      run = sweep::resolve(run, facts);
      runs.push_back({sweep::run_id(run, facts), "", run, facts});
    }
    EXPECT_TRUE(sweep::branch_faults(runs).empty());
    trunk = sweep::make_trunk(runs);
  }
  train::TrainJob job(const sweep::SweepRun& run, const std::string& name) const {
    train::TrainJob job = test::tiny_job(*tokens, scratch.path() / name);
    job.run = run.config;
    return job;
  }
  train::TrainJob branch(size_t i, const std::string& name) const {
    train::TrainJob job = this->job(runs[i], name);
    job.origin = train::Origin{scratch.path() / "trunk", runs[i].branch->trunk, runs[i].branch->trunk_hash,
                               runs[i].branch->step};
    return job;
  }
  train::Outcome train(const train::TrainJob& job) { return train::train(job, *tokens, *self, stop); }
};

void expect_same_end(const train::TrainJob& a, const train::TrainJob& b) {
  const records::RunTables mine = records::read_run(a.folder / "run.h5"), other = records::read_run(b.folder / "run.h5");
  ASSERT_EQ(mine.steps.size(), other.steps.size());
  for (size_t i = 0; i < mine.steps.size(); ++i) {
    EXPECT_EQ(mine.steps[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(mine.steps[i].lr, other.steps[i].lr) << i;
    EXPECT_EQ(mine.steps[i].flops, other.steps[i].flops) << i;
    EXPECT_EQ(mine.steps[i].loss_mean, other.steps[i].loss_mean) << i;
    EXPECT_EQ(mine.steps[i].grad_norm, other.steps[i].grad_norm) << i;
  }
  EXPECT_EQ(mine.eval.back().loss_mean, other.eval.back().loss_mean);
  EXPECT_EQ(mine.eval.back().step, other.eval.back().step);
  const checkpoint::CheckpointFolder at_a(a.folder / "checkpoints", 1), at_b(b.folder / "checkpoints", 1);
  const nn::NamedTensors weights = at_a.tensors(*at_a.latest()), others = at_b.tensors(*at_b.latest());
  ASSERT_EQ(weights.size(), others.size());
  for (size_t i = 0; i < weights.size(); ++i) EXPECT_TRUE(weights[i].tensor.equal(others[i].tensor)) << weights[i].name;
}

TEST(Branch, IsTheRunOfItsBudgetToTheBitEvenWhereItIsStopped) {
  Family family;
  family.train(family.job(family.trunk, "trunk"));
  for (size_t i = 0; i < 2; ++i) {
    const train::TrainJob alone = family.job(family.runs[i], fmt::format("alone{}", i));
    family.train(alone);
    train::TrainJob branch = family.branch(i, fmt::format("branch{}", i));
    branch.stop_after = family.runs[i].branch->step + 2;
    EXPECT_EQ(family.train(branch).state, train::Outcome::State::kStopped);
    branch.stop_after = 0;
    int64_t first = -1;
    branch.before_step = [&](int64_t step) {
      if (first < 0) first = step;
    };
    EXPECT_EQ(family.train(branch).state, train::Outcome::State::kDone);
    EXPECT_EQ(first, family.runs[i].branch->step + 2);  // from its own checkpoint
    expect_same_end(branch, alone);
    const records::RunTables rows = records::read_run(branch.folder / "run.h5");
    EXPECT_EQ(std::get<std::string>(rows.facts.at("branch_of")), family.trunk.id);
    EXPECT_EQ(std::get<int64_t>(rows.facts.at("branch_step")), family.runs[i].branch->step);
    EXPECT_EQ(std::get<std::string>(rows.facts.at("run_id")), family.runs[i].id);
    EXPECT_EQ(std::get<int64_t>(rows.facts.at("segments")), 3);  // the trunk's, and two of its own
  }
}

TEST(Branch, RefusesATrunkThatIsNotThePlannedOne) {
  Family family;
  train::TrainJob other = family.job(family.trunk, "trunk");
  other.run.train.seed += 1;
  family.train(other);
  try {
    family.train(family.branch(0, "branch"));
    ADD_FAILURE() << "taken";
  } catch (const base::UserError& error) {
    EXPECT_NE(std::string(error.what()).find("is a checkpoint of another configuration"), std::string::npos)
        << error.what();
  }
  EXPECT_FALSE(std::filesystem::exists(family.scratch.path() / "branch" / "run.h5"));
}

}  // namespace
}  // namespace varscale
