// A run saved by some ranks in one mode goes on with other ranks in another.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "comm/thread_group.hpp"
#include "records/run_file.hpp"
#include "tests/train/tiny_run.hpp"

namespace varscale {
namespace {

constexpr int64_t kSteps = 40, kSaved = 20;

struct Layout {
  int ranks;
  const char* mode;
  int64_t shards;  // hybrid: ranks of one model
};

records::RunTables train_tiny(const records::TokenFile& tokens, const std::filesystem::path& folder,
                              const Layout& layout, int64_t stop_after) {
  train::TrainJob job = test::tiny_job(tokens, folder);
  job.run.train.images = kSteps * job.run.train.batch;
  job.run.parallel.mode = layout.mode;
  job.run.parallel.shards = layout.shards;
  job.stop_after = stop_after;
  const base::StopSignals stop;
  comm::run_ranks(layout.ranks, [&](comm::Communicator& world) {
    const train::Outcome outcome = train::train(job, tokens, world, stop);
    EXPECT_EQ(outcome.step, stop_after > 0 ? stop_after : kSteps) << "rank " << world.rank();
  });
  return records::read_run(folder / "run.h5");
}

TEST(Reshard, HybridOnFourRanksGoesOnInAnyOtherLayout) {
  const test::ScratchFolder scratch("reshard");
  test::write_tiny_tokens(scratch.path() / "tokens.h5");
  const records::TokenFile tokens(scratch.path() / "tokens.h5");
  const auto calm = train_tiny(tokens, scratch.path() / "calm", {1, "replicated", 0}, 0);
  const auto saved = scratch.path() / "saved";
  train_tiny(tokens, saved, {4, "hybrid", 2}, kSaved);
  for (const Layout& layout :
       {Layout{1, "replicated", 0}, Layout{2, "zero2", 0}, Layout{3, "zero3", 0}}) {
    const auto folder = scratch.path() / layout.mode;
    std::filesystem::copy(saved, folder, std::filesystem::copy_options::recursive);
    const auto rows = train_tiny(tokens, folder, layout, 0);
    ASSERT_EQ(rows.steps.size(), static_cast<size_t>(kSteps));
    double worst = 0;
    for (int64_t i = kSaved; i < kSteps; ++i) {
      EXPECT_EQ(rows.steps[i].segment, 1) << "step " << i + 1 << " was not taken after the load";
      const double error = std::abs(rows.steps[i].loss_mean / calm.steps[i].loss_mean - 1);
      EXPECT_LT(error, 1e-6) << layout.mode << " step " << i + 1;
      worst = std::max(worst, error);
    }
    fmt::print("reshard: 4 ranks hybrid to {} {}: losses of {} steps agree to {:.1e}\n",
               layout.ranks, layout.mode, kSteps - kSaved, worst);
  }
}

}  // namespace
}  // namespace varscale
