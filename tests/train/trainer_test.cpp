#include "train/trainer.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <future>
#include <stdexcept>

#include "base/file.hpp"
#include "checkpoint/checkpoint.hpp"
#include "comm/thread_group.hpp"
#include "nn/tensor.hpp"
#include "records/run_file.hpp"
#include "scaling/layout.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/train/keeping_graph.hpp"
#include "tests/train/tiny_run.hpp"
#include "train/eval_points.hpp"
#include "train/recorded_update.hpp"

namespace varscale {
namespace {

namespace fs = std::filesystem;
using test::ScratchFolder;

struct Tiny {
  ScratchFolder scratch{"trainer"};
  std::unique_ptr<records::TokenFile> tokens;
  base::StopSignals stop;
  std::unique_ptr<comm::Communicator> self = comm::make_self();
  Tiny() {
    test::write_tiny_tokens(scratch.path() / "tokens.h5");
    tokens = std::make_unique<records::TokenFile>(scratch.path() / "tokens.h5");
  }
  train::TrainJob job(const std::string& name) const { return test::tiny_job(*tokens, scratch.path() / name); }
  train::Outcome run(const train::TrainJob& job) { return train::train(job, *tokens, *self, stop); }
};

records::RunTables rows_of(const train::TrainJob& job) { return records::read_run(job.folder / "run.h5"); }

std::map<std::string, at::Tensor> tensors_of(const train::TrainJob& job) {
  const checkpoint::CheckpointFolder checkpoints(job.folder / "checkpoints", 2);
  std::map<std::string, at::Tensor> tensors;
  for (const nn::NamedTensor& named : checkpoints.tensors(*checkpoints.latest())) tensors[named.name] = named.tensor;
  return tensors;
}

TEST(Trainer, LearnsAndRecordsEveryStep) {
  Tiny tiny;
  const train::TrainJob job = tiny.job("run");
  const train::Outcome outcome = tiny.run(job);
  EXPECT_EQ(outcome.state, train::Outcome::State::kDone);
  EXPECT_EQ(outcome.step, 20);

  const records::RunTables rows = rows_of(job);
  ASSERT_EQ(rows.steps.size(), 20U);
  // The head starts at 0.02 of its size, so the first loss is that of a uniform guess.
  EXPECT_NEAR(rows.steps.front().loss_mean, std::log(16.0), 0.02);
  EXPECT_LT(rows.steps.back().loss_mean, rows.steps.front().loss_mean - 0.3);
  for (size_t i = 0; i < rows.steps.size(); ++i) {
    EXPECT_EQ(rows.steps[i].step, static_cast<int64_t>(i) + 1);
    EXPECT_EQ(rows.steps[i].images, 6.0 * static_cast<double>(i + 1));
    EXPECT_EQ(rows.steps[i].tokens, 14 * rows.steps[i].images);
  }
  ASSERT_FALSE(rows.eval.empty());
  EXPECT_EQ(rows.eval.back().step, 20);
  EXPECT_EQ(rows.eval.back().whole_set, 1);
  EXPECT_EQ(rows.eval.back().val_images, 9);
  // The mean over all tokens is the token-weighted mean over the scales.
  double loss = 0;
  for (const records::ScaleRow& scale : rows.scales) {
    if (scale.step == 20) loss += scale.loss * static_cast<double>((scale.scale + 1) * (scale.scale + 1)) / 14;
  }
  EXPECT_NEAR(loss, rows.eval.back().loss_mean, 1e-12);
  EXPECT_EQ(std::get<int64_t>(rows.facts.at("complete")), 1);
}

// The losses of this very configuration. Only a commit that means to change the numbers may change them;
// the tolerance is the difference between machine types and thread counts seen over 20 steps (rounding).
TEST(Trainer, KeepsTheGoldenLosses) {
  Tiny tiny;
  const train::TrainJob job = tiny.job("run");
  tiny.run(job);
  const records::RunTables rows = rows_of(job);
  const std::map<int64_t, double> golden{
      {1, 2.7711768036796931}, {5, 2.4821584678831554}, {10, 1.9489544161728449}, {20, 1.6664088269074757}};
  for (const auto& [step, loss] : golden) EXPECT_NEAR(rows.steps.at(step - 1).loss_mean, loss, 2e-6 * loss) << "step " << step;
}

TEST(Trainer, GivesTheSameUpdatesFromAnyMicroBatch) {
  Tiny tiny;
  const train::TrainJob whole = tiny.job("whole");
  tiny.run(whole);
  for (const int64_t micro : {1, 2, 4}) {  // 4 does not divide the batch of 6
    train::TrainJob parts = tiny.job(fmt::format("micro{}", micro));
    parts.run.train.micro_batch = micro;
    tiny.run(parts);
    const records::RunTables a = rows_of(whole), b = rows_of(parts);
    ASSERT_EQ(a.steps.size(), b.steps.size());
    for (size_t i = 0; i < a.steps.size(); ++i) {
      // Other orders of float32 additions: 1e-6 relative over 20 steps.
      EXPECT_NEAR(b.steps[i].loss_mean, a.steps[i].loss_mean, 1e-6 * a.steps[i].loss_mean);
      EXPECT_NEAR(b.steps[i].grad_norm, a.steps[i].grad_norm, 1e-5 * a.steps[i].grad_norm);
    }
  }
}

void expect_same_history(const records::RunTables& a, const records::RunTables& b) {
  ASSERT_EQ(a.steps.size(), b.steps.size());
  for (size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_EQ(a.steps[i].step, b.steps[i].step);
    EXPECT_EQ(a.steps[i].lr, b.steps[i].lr);
    EXPECT_EQ(a.steps[i].loss_mean, b.steps[i].loss_mean) << "step " << i + 1;
    EXPECT_EQ(a.steps[i].loss_tail, b.steps[i].loss_tail);
    EXPECT_EQ(a.steps[i].err_mean, b.steps[i].err_mean);
    EXPECT_EQ(a.steps[i].grad_norm, b.steps[i].grad_norm) << "step " << i + 1;
  }
  ASSERT_EQ(a.eval.size(), b.eval.size());
  for (size_t i = 0; i < a.eval.size(); ++i) {
    EXPECT_EQ(a.eval[i].step, b.eval[i].step);
    EXPECT_EQ(a.eval[i].loss_mean, b.eval[i].loss_mean);
    EXPECT_EQ(a.eval[i].err_tail, b.eval[i].err_tail);
  }
  ASSERT_EQ(a.scales.size(), b.scales.size());
}

TEST(Trainer, KeepsLessWithTheSameBits) {
  Tiny tiny;
  std::vector<records::RunTables> histories;
  for (const char* recompute : {"none", "selective", "full"}) {
    train::TrainJob job = tiny.job(recompute);
    job.run.parallel.recompute = recompute;
    job.run.train.batch = 24;
    tiny.run(job);
    histories.push_back(rows_of(job));
    expect_same_history(histories.front(), histories.back());
  }
  const auto peak = [&](size_t i) { return static_cast<double>(histories[i].steps.at(3).memory_bytes); };
  EXPECT_LT(peak(1), 0.97 * peak(0));
  EXPECT_LT(peak(2), 0.97 * peak(1));
}

TEST(Trainer, RecordsAnUpdateOnceWithTheSameBits) {
  Tiny tiny;
  const train::TrainJob launched = tiny.job("launched");
  tiny.run(launched);
  train::TrainJob recorded = tiny.job("recorded");
  test::GraphCounts counts;
  recorded.make_graph = [&counts] { return std::make_unique<test::KeepingGraph>(counts); };
  tiny.run(recorded);
  EXPECT_EQ(counts.records, 1);
  EXPECT_EQ(counts.replays, 20 - train::RecordedUpdate::kFirst);
  expect_same_history(rows_of(launched), rows_of(recorded));
  const auto a = tensors_of(launched), b = tensors_of(recorded);
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

TEST(Trainer, ResumesWithoutChangingABit) {
  Tiny tiny;
  const train::TrainJob whole = tiny.job("whole");
  tiny.run(whole);

  train::TrainJob halted = tiny.job("halted");
  halted.stop_after = 7;
  EXPECT_EQ(tiny.run(halted).state, train::Outcome::State::kStopped);
  // What a killed process leaves: rows beyond the checkpoint, half a file.
  base::write_file_atomic(halted.folder / "run.h5", "not HDF5");
  halted.stop_after = 0;
  EXPECT_EQ(tiny.run(halted).state, train::Outcome::State::kDone);

  expect_same_history(rows_of(whole), rows_of(halted));
  EXPECT_EQ(rows_of(halted).steps.back().segment, 1);
  const auto a = tensors_of(whole), b = tensors_of(halted);
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, tensor] : a) EXPECT_TRUE(at::equal(tensor, b.at(name))) << name;
}

TEST(Trainer, RefusesTheCheckpointOfAnotherConfiguration) {
  Tiny tiny;
  train::TrainJob job = tiny.job("run");
  job.stop_after = 3;
  tiny.run(job);
  job.run.optimizer.lr *= 2;
  try {
    tiny.run(job);
    FAIL() << "accepted";
  } catch (const base::UserError& error) {
    EXPECT_NE(std::string(error.what()).find("another configuration"), std::string::npos) << error.what();
  }
}

TEST(Trainer, RemovesTheCheckpointsThatAKillHasLeftUnnamed) {
  Tiny tiny;
  const train::TrainJob job = tiny.job("run");
  // Killed between the last write and the rename: whole, but under its temporary name.
  const auto left = job.folder / "checkpoints/step-000000003.tmp-1";
  std::filesystem::create_directories(left);
  base::write_file_atomic(left / "manifest.json", "{}");
  tiny.run(job);
  EXPECT_FALSE(std::filesystem::exists(left));
}

TEST(Trainer, RefusesTokensThatAreNotThePlannedOnes) {
  Tiny tiny;
  train::TrainJob job = tiny.job("run");
  job.facts.fingerprint = "of other tokens";
  EXPECT_THROW(tiny.run(job), base::UserError);
}

// What a run of this learning rate does: the first update sends the weights to where the loss overflows,
// and every later one is skipped.
train::TrainJob diverging(const Tiny& tiny, int64_t max_skipped) {
  train::TrainJob job = tiny.job(fmt::format("diverging-{}", max_skipped));
  job.run.optimizer.lr = 1e30;
  job.run.train.max_skipped = max_skipped;
  return job;
}

TEST(Trainer, EndsARunWhoseLossStaysNotFinite) {
  Tiny tiny;
  for (const int64_t limit : {0, 4}) {
    try {
      tiny.run(diverging(tiny, limit));
      FAIL() << "went on";
    } catch (const std::runtime_error& error) {
      const std::string words = error.what();
      EXPECT_NE(words.find(fmt::format("{} updates in a row were skipped", limit + 1)),
                std::string::npos)
          << words;
      EXPECT_NE(words.find(fmt::format("step {}: loss", limit + 2)), std::string::npos) << words;
    }
  }
}

TEST(Trainer, SkipsAndCountsUpdatesThatAreNotFinite) {
  Tiny tiny;
  const train::TrainJob job = diverging(tiny, 100);
  EXPECT_EQ(tiny.run(job).state, train::Outcome::State::kDone);
  train::TrainJob halted = diverging(tiny, 1000);
  halted.stop_after = 9;
  tiny.run(halted);
  const auto after_nine = tensors_of(halted);
  for (const records::StepRow& row : rows_of(job).steps)
    EXPECT_EQ(row.skipped, row.step > 1 ? 1 : 0) << row.step;
  // The weights are still those of the first update.
  for (const auto& [name, tensor] : tensors_of(job)) {
    EXPECT_TRUE(at::equal(tensor, after_nine.at(name))) << name;
    EXPECT_TRUE(tensor.isfinite().all().item<bool>()) << name;
  }
}

TEST(Trainer, CountsSkippedUpdatesAcrossARestart) {
  Tiny tiny;
  train::TrainJob job = diverging(tiny, 8);
  job.stop_after = 5;  // four skipped
  tiny.run(job);
  job.stop_after = 0;
  try {
    tiny.run(job);
    FAIL() << "went on";
  } catch (const std::runtime_error& error) {
    EXPECT_NE(std::string(error.what()).find("step 10: loss"), std::string::npos) << error.what();
  }
}

TEST(Trainer, KeepsTheCheckpointsOfChosenBudgets) {
  Tiny tiny;
  train::TrainJob job = tiny.job("run");
  job.run.train.keep = 1;
  job.run.train.keep_at = "24 60";
  job.run.train.save_every_min = 1e-6;  // others come and go meanwhile
  tiny.run(job);
  EXPECT_EQ(checkpoint::CheckpointFolder(job.folder / "checkpoints", 1).steps(),
            (std::vector<int64_t>{4, 10, 20}));
}

TEST(Trainer, StopsInGoodOrderWhenThatIsWished) {
  Tiny tiny;
  train::TrainJob job = tiny.job("run");
  int64_t now = 0;
  job.on_step = [&](int64_t step, double) { now = step; };
  job.wish = [&] { return train::Wish{.stop = now >= 7, .save = false}; };
  const train::Outcome outcome = tiny.run(job);
  EXPECT_EQ(outcome.state, train::Outcome::State::kStopped);
  // The ranks speak of it when the step's row is complete, or at the next.
  EXPECT_GE(outcome.step, 7);
  EXPECT_LE(outcome.step, 8);
  EXPECT_EQ(checkpoint::CheckpointFolder(job.folder / "checkpoints", 1).latest(), outcome.step);
}

TEST(Trainer, PublishesNothingIfItMayNot) {
  Tiny tiny;
  train::TrainJob job = tiny.job("run");
  job.before_publish = [] { throw std::runtime_error("another job has the run"); };
  EXPECT_THAT(base::message_of<std::runtime_error>([&] { tiny.run(job); }), testing::HasSubstr("another job has the run"));
  EXPECT_TRUE(fs::is_empty(job.folder / "checkpoints"));
}

TEST(Trainer, OfAFolderThatIsTakenAwayEveryRankKnows) {
  Tiny tiny;
  train::TrainJob job = tiny.job("run");
  const fs::path away = tiny.scratch.path() / "away";
  job.run.train.save_every_min = 0;
  job.on_step = [&](int64_t step, double) {
    if (step == 5) fs::rename(job.folder, away);
  };
  bool agreed = false;
  try {
    tiny.run(job);
  } catch (const std::exception& error) {
    agreed = dynamic_cast<const comm::Agreed*>(&error) != nullptr;
  }
  EXPECT_TRUE(agreed);
  EXPECT_FALSE(fs::exists(job.folder));
  EXPECT_LE(checkpoint::CheckpointFolder(away / "checkpoints", 1).latest(), 5);
}

TEST(Trainer, HoldsTheModelAsTheMemoryOfARankAsks) {
  Tiny tiny;
  const auto mode_of = [&](double gib) {
    std::string mode;
    comm::run_ranks(4, [&](comm::Communicator& world) {
      train::TrainJob job = tiny.job(fmt::format("memory-{}", gib));
      job.run.parallel.memory_gib = gib;
      train::train(job, *tiny.tokens, world, tiny.stop);
      if (world.rank() == 0)
        mode = std::get<std::string>(rows_of(job).facts.at("parallel_mode"));
    });
    return mode;
  };
  EXPECT_EQ(mode_of(1), "replicated");
  // Just under what the whole model takes without the copy of a checkpoint.
  const sweep::RunConfig run = test::tiny_run(*tiny.tokens);
  const auto whole = static_cast<double>(
      scaling::estimate_memory(sweep::shape_of(run, sweep::facts_of(*tiny.tokens)),
                               {.micro_batch = 2})
          .total());
  EXPECT_EQ(mode_of(0.99 * whole / scaling::kUsableShare / (1 << 30)), "zero2");
  train::TrainJob job = tiny.job("none");
  job.run.parallel.memory_gib = 1e-4;
  try {
    tiny.run(job);
    FAIL() << "went on";
  } catch (const base::UserError& error) {
    EXPECT_NE(std::string(error.what()).find("parallel.mode auto: replicated needs"),
              std::string::npos)
        << error.what();
  }
}

TEST(Trainer, WaitsForALateRankAsLongAsItsDeadlineSays) {
  Tiny tiny;
  std::promise<void> given_up;
  const auto thrown = comm::try_ranks(2, [&](comm::Communicator& world) {
    train::TrainJob job = tiny.job("late");
    job.run.parallel.deadline_s = 0.25;
    job.run.parallel.first_deadline_s = 600;
    if (world.rank() == 1)
      job.before_step = [&](int64_t step) {
        if (step == 3) given_up.get_future().wait();
      };
    try {
      train::train(job, *tiny.tokens, world, tiny.stop);
    } catch (const comm::CommError&) {
      if (world.rank() == 0) given_up.set_value();
      throw;
    }
  });
  for (const std::exception_ptr& error : thrown) {
    try {
      ASSERT_TRUE(error);
      std::rethrow_exception(error);
    } catch (const comm::CommError& stall) {
      const std::string words = stall.what();
      EXPECT_NE(words.find("rank 0 has waited 0.25 s in call"), std::string::npos) << words;
      EXPECT_NE(words.find("rank 1 has finished call"), std::string::npos) << words;
    }
  }
}

TEST(Trainer, ReportsTimesRatesAndMemoryOfEveryStep) {
  Tiny tiny;
  comm::run_ranks(2, [&](comm::Communicator& world) {
    train::train(tiny.job("report"), *tiny.tokens, world, tiny.stop);
  });
  const records::RunTables rows = rows_of(tiny.job("report"));
  for (const records::StepRow& row : rows.steps) {
    EXPECT_GT(row.step_s, 0);
    EXPECT_LE(row.busy_min_s, row.busy_max_s);
    EXPECT_LE(row.busy_max_s, row.step_s);
    EXPECT_LE(row.comm_wait_s, row.step_s);
    EXPECT_TRUE(row.slowest_rank == 0 || row.slowest_rank == 1);
    EXPECT_GT(row.memory_bytes, 1 << 20);
    EXPECT_DOUBLE_EQ(row.tokens_per_s, 6 * 14 / row.step_s);
    EXPECT_NEAR(row.tflops * row.step_s * 1e12, rows.steps.front().flops,
                1e-6 * rows.steps.front().flops);
    EXPECT_TRUE(std::isnan(row.mfu)) << "no peak is known of a CPU";
  }
  EXPECT_EQ(std::get<int64_t>(rows.facts.at("ranks")), 2);
}

TEST(EvalPoints, KeepToTheirShareOfTheCost) {
  Tiny tiny;
  sweep::RunConfig run = test::tiny_run(*tiny.tokens);
  run.train.images = 60000;
  run.eval.points = 40;
  run.eval.max_cost = 0.02;
  const optim::Schedule schedule({.kind = "wsd", .steps = 10000, .warmup_steps = 200, .hold = 0.7, .end = 0.02});
  const train::EvalPlan plan = train::plan_evaluations(run, schedule, 5000, 3.0, 1.0);
  EXPECT_TRUE(plan.steps.contains(10000));
  EXPECT_TRUE(plan.steps.contains(7000)) << "the begin of the decay";
  EXPECT_EQ(plan.whole_set, std::set<int64_t>{10000});
  const double cost = static_cast<double>(plan.subset_images) * static_cast<double>(plan.steps.size() - 1);
  EXPECT_LE(cost, 0.02 * 3 * 60000);
  EXPECT_GT(cost, 0.5 * 0.02 * 3 * 60000) << "the allowance is used";

  run.eval.max_cost = 10;
  EXPECT_EQ(train::plan_evaluations(run, schedule, 5000, 3.0, 1.0).subset_images, 5000);
}

}  // namespace
}  // namespace varscale
