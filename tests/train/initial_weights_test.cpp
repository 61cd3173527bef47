// Runs that begin with the weights of a file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "archives/weights_file.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "comm/thread_group.hpp"
#include "models/var/model.hpp"
#include "nn/tensor.hpp"
#include "records/run_file.hpp"
#include "tests/train/tiny_run.hpp"
#include "train/set_up.hpp"

namespace varscale {
namespace {

class InitFrom : public testing::Test {
 protected:
  InitFrom() {
    test::write_tiny_tokens(scratch_.path() / "tokens.h5");
    tokens_ = std::make_unique<records::TokenFile>(scratch_.path() / "tokens.h5");
  }

  // The weights that this run's seed would draw.
  std::string write_drawn(const sweep::RunConfig& run) {
    const scaling::VarShape shape = sweep::shape_of(run, sweep::facts_of(*tokens_));
    const models::InitOptions init{
        .seed = run.train.seed, .std = run.model.init_std, .adaln_gamma = run.model.adaln_gamma_init};
    return archives::write_weights(path_, shape, {}, [&](const scaling::StateEntry& entry, float* out) {
      const at::Tensor values = at::from_blob(out, entry.shape, at::kFloat);
      models::fill_initial(entry.name, shape, init, 0, values);
    });
  }
  train::TrainJob job(const std::string& name, bool given, const std::string& mode = "replicated") {
    train::TrainJob job = test::tiny_job(*tokens_, scratch_.path() / name);
    job.run.parallel.mode = mode;
    job.run.train.images = 36;  // 6 steps
    if (given) {
      job.run.model.init_fingerprint = write_drawn(job.run);
      job.run.model.init_from = path_.string();
      job.run = sweep::resolve(job.run, job.facts);
    }
    return job;
  }
  records::RunTables train(const train::TrainJob& job, int ranks) {
    const base::StopSignals stop;
    comm::run_ranks(ranks, [&](comm::Communicator& world) { train::train(job, *tokens_, world, stop); });
    return records::read_run(job.folder / "run.h5");
  }

  test::ScratchFolder scratch_{"init_from"};
  std::filesystem::path path_ = scratch_.path() / "weights.safetensors";
  std::unique_ptr<records::TokenFile> tokens_;
};

TEST_F(InitFrom, TrainsAsIfTheWeightsHadBeenDrawnInEveryMode) {
  const std::vector<std::pair<int, const char*>> layouts = {{1, "replicated"}, {2, "zero2"}, {3, "zero3"}};
  for (const auto& [ranks, mode] : layouts) {
    const auto drawn = train(job(std::string("drawn-") + mode, false, mode), ranks);
    const auto given = train(job(std::string("given-") + mode, true, mode), ranks);
    ASSERT_EQ(drawn.steps.size(), 6u);
    ASSERT_EQ(given.steps.size(), 6u);
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(given.steps[i].loss_mean, drawn.steps[i].loss_mean) << mode << " step " << i;
      EXPECT_EQ(given.steps[i].grad_norm, drawn.steps[i].grad_norm) << mode << " step " << i;
    }
    EXPECT_NE(given.steps[0].loss_mean, given.steps[5].loss_mean);
    EXPECT_EQ(std::get<std::string>(given.facts.at("init_from")), path_.string());
    EXPECT_FALSE(drawn.facts.contains("init_from"));
    EXPECT_NE(given.facts.at("run_id"), drawn.facts.at("run_id"));
  }
}

TEST_F(InitFrom, IsRefusedWhereTheFileIsNotThatOfThePlan) {
  const train::TrainJob planned = job("changed", true);
  sweep::RunConfig other = planned.run;
  other.train.seed += 1;
  write_drawn(other);
  EXPECT_THAT([&] { train(planned, 1); },
              testing::ThrowsMessage<base::UserError>(testing::HasSubstr("changed since the run was planned")));

  const train::TrainJob again = job("damaged", true);
  std::string bytes = base::read_file(path_);
  bytes[bytes.size() - 2] ^= 4;
  base::write_file_atomic(path_, bytes);
  EXPECT_THAT([&] { train(again, 2); },
              testing::ThrowsMessage<base::UserError>(testing::HasSubstr("the file was changed")));
  EXPECT_FALSE(std::filesystem::exists(again.folder / "run.h5"));
}

}  // namespace
}  // namespace varscale
