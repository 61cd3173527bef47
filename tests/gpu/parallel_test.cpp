// Every mode on one GPU is the plain loop there, and a run of the trainer survives a stop, bit for bit.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/checkpoint.hpp"
#include "records/run_file.hpp"
#include "tests/parallel/small_model.hpp"
#include "tests/train/keeping_graph.hpp"
#include "tests/train/tiny_run.hpp"

namespace varscale::parallel {
namespace {

using test::relative_l2;
using test::SmallResult;
using test::SmallRun;

constexpr Mode kModes[] = {Mode::kReplicated, Mode::kZero2, Mode::kZero3, Mode::kHybrid};

const char* name_of(Mode mode) {
  return mode == Mode::kReplicated ? "replicated"
         : mode == Mode::kZero2    ? "zero2"
         : mode == Mode::kZero3    ? "zero3"
                                   : "hybrid";
}

SmallResult train_on_gpu(SmallRun run, Mode mode) {
  run.options.mode = mode;
  run.options.shards = 1;
  run.device = comm::cuda_device();
  const auto self = comm::make_self();
  const auto world = comm::open_nccl(*self);
  return test::train_small(run, *world);
}

SmallResult plain_on_gpu(SmallRun run) {
  run.device = comm::cuda_device();
  return test::train_plain(run);
}

void expect_equal_bits(const SmallResult& got, const SmallResult& want) {
  EXPECT_EQ(got.losses, want.losses);
  const auto tensors = test::whole({got});
  for (const Owned& part : want.owned) {
    const auto& [weight, gradient] = tensors.at(part.name);
    EXPECT_TRUE(at::equal(weight, part.weight.cpu()))
        << part.name << ", relative " << relative_l2(weight, part.weight.cpu(), 1e-7);
    EXPECT_TRUE(at::equal(gradient, part.gradient.cpu()))
        << part.name << ", relative " << relative_l2(gradient, part.gradient.cpu(), 1e-7);
  }
}

TEST(Gpu, OneRankInAnyModeIsThePlainLoopBitForBit) {
  for (const bool shared_adaln : {false, true}) {
    for (const int64_t accumulate : {1, 3}) {
      const SmallRun run{.options = {}, .accumulate = accumulate, .shared_adaln = shared_adaln};
      const SmallResult plain = plain_on_gpu(run);
      for (const Mode mode : kModes) {
        SCOPED_TRACE(fmt::format("{} shared AdaLN {} accumulate {}", name_of(mode), shared_adaln,
                                 accumulate));
        expect_equal_bits(train_on_gpu(run, mode), plain);
      }
    }
  }
}

TEST(Gpu, RecomputingBlocksAndReducingLateChangeNothing) {
  const SmallResult plain = plain_on_gpu({});
  for (const Mode mode : kModes) {
    for (const bool recompute : {false, true}) {
      SCOPED_TRACE(fmt::format("{} recompute {}", name_of(mode), recompute));
      const SmallRun run{.options = {.recompute = recompute, .overlap = recompute}};
      expect_equal_bits(train_on_gpu(run, mode), plain);
    }
  }
}

// 20 AdamW steps from the same weights: losses as between numbers of ranks on a CPU, times ten, because
// every kernel adds in another order here.
TEST(Gpu, ThePlainLoopHasTheLossesOfTheCpu) {
  const SmallResult cpu = test::train_plain({}), gpu = plain_on_gpu({});
  for (size_t i = 0; i < cpu.losses.size(); ++i)
    EXPECT_NEAR(gpu.losses[i] / cpu.losses[i], 1, 1e-5) << "step " << i;
}

// As on the CPU: 1 % about float32, and the same bits in every mode.
TEST(Gpu, Bfloat16TrainsWithinABandAndAlikeInEveryMode) {
  const SmallResult plain = plain_on_gpu({});
  const SmallRun run{.options = {}, .compute = at::kBFloat16};
  const SmallResult first = train_on_gpu(run, Mode::kReplicated);
  for (size_t i = 0; i < plain.losses.size(); ++i)
    EXPECT_NEAR(first.losses[i], plain.losses[i], 0.01 * plain.losses[i]) << i;
  for (const Mode mode : kModes) EXPECT_EQ(train_on_gpu(run, mode).losses, first.losses);
}

TEST(Gpu, AtMostTwoBlocksAreGathered) {
  EXPECT_EQ(train_on_gpu({.options = {}, .steps = 2}, Mode::kZero3).held.peak_gathered_blocks, 2);
}

// --- the trainer -----------------------------------------------------------------------------------

records::RunTables train_run(const train::TrainJob& job, const records::TokenFile& tokens) {
  const base::StopSignals stop;
  train::train(job, tokens, *comm::make_self(), stop);
  return records::read_run(job.folder / "run.h5");
}

struct TrainerOnGpu : testing::TestWithParam<const char*> {
  TrainerOnGpu() { test::write_tiny_tokens(scratch.path() / "tokens.h5"); }
  train::TrainJob job(const records::TokenFile& tokens, const std::string& folder,
                      const char* device) const {
    train::TrainJob job = test::tiny_job(tokens, scratch.path() / folder);
    job.run.train.device = device;
    job.run.parallel.mode = GetParam();
    return job;
  }
  test::ScratchFolder scratch{"gpu"};
};

TEST_P(TrainerOnGpu, TrainsAsOnTheCpu) {
  const records::TokenFile tokens(scratch.path() / "tokens.h5");
  const auto cpu = train_run(job(tokens, "cpu", "cpu"), tokens);
  const auto gpu = train_run(job(tokens, "gpu", "cuda"), tokens);
  ASSERT_EQ(gpu.steps.size(), cpu.steps.size());
  for (size_t i = 0; i < cpu.steps.size(); ++i) {
    EXPECT_NEAR(gpu.steps[i].loss_mean / cpu.steps[i].loss_mean, 1, 1e-5) << "step " << i;
    EXPECT_NEAR(gpu.steps[i].grad_norm / cpu.steps[i].grad_norm, 1, 1e-4) << "step " << i;
  }
  ASSERT_EQ(gpu.eval.size(), cpu.eval.size());
  for (size_t i = 0; i < cpu.eval.size(); ++i)
    EXPECT_NEAR(gpu.eval[i].loss_mean / cpu.eval[i].loss_mean, 1, 1e-5) << "evaluation " << i;
}

TEST_P(TrainerOnGpu, ARestartChangesNoBit) {
  const records::TokenFile tokens(scratch.path() / "tokens.h5");
  const auto whole = train_run(job(tokens, "whole", "cuda"), tokens);
  train::TrainJob first = job(tokens, "twice", "cuda");
  first.stop_after = 7;
  train_run(first, tokens);
  const auto twice = train_run(job(tokens, "twice", "cuda"), tokens);
  ASSERT_EQ(twice.steps.size(), whole.steps.size());
  for (size_t i = 0; i < whole.steps.size(); ++i) {
    EXPECT_EQ(twice.steps[i].loss_mean, whole.steps[i].loss_mean) << "step " << i;
    EXPECT_EQ(twice.steps[i].grad_norm, whole.steps[i].grad_norm) << "step " << i;
  }
  const auto weights = [&](const char* folder) {
    return checkpoint::CheckpointFolder(scratch.path() / folder / "checkpoints", 2).tensors(20);
  };
  const nn::NamedTensors a = weights("whole"), b = weights("twice");
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].name;
}

struct RecordedOnGpu : TrainerOnGpu {};

// Both on a stream of their own with the learning rate on the device; one launches its kernels each time.
TEST_P(RecordedOnGpu, HasTheBitsOfTheLaunchedUpdate) {
  const records::TokenFile tokens(scratch.path() / "tokens.h5");
  for (const char* precision : {"fp32", "bf16"}) {
    SCOPED_TRACE(precision);
    train::TrainJob launched = job(tokens, fmt::format("launched-{}", precision), "cuda"),
                    recorded = job(tokens, fmt::format("recorded-{}", precision), "cuda");
    for (train::TrainJob* each : {&launched, &recorded}) {
      each->run.train.precision = precision;
      each->run.train.cuda_graph = true;
    }
    test::GraphCounts counts;
    launched.make_graph = [&counts] { return std::make_unique<test::KeepingGraph>(counts); };
    const auto a = train_run(launched, tokens), b = train_run(recorded, tokens);
    EXPECT_GT(counts.replays, 0);
    ASSERT_EQ(a.steps.size(), b.steps.size());
    for (size_t i = 0; i < a.steps.size(); ++i) {
      EXPECT_EQ(a.steps[i].loss_mean, b.steps[i].loss_mean) << "step " << i;
      EXPECT_EQ(a.steps[i].grad_norm, b.steps[i].grad_norm) << "step " << i;
    }
    ASSERT_EQ(a.eval.size(), b.eval.size());
    for (size_t i = 0; i < a.eval.size(); ++i) EXPECT_EQ(a.eval[i].loss_mean, b.eval[i].loss_mean) << "evaluation " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Modes, RecordedOnGpu, testing::Values("replicated"),
                         [](const auto& info) { return std::string(info.param); });
INSTANTIATE_TEST_SUITE_P(Modes, TrainerOnGpu, testing::Values("replicated", "zero3"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace varscale::parallel
