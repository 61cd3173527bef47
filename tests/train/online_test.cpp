// Training on tokens that are made in each step.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.hpp"
#include "checkpoint/checkpoint.hpp"
#include "comm/communicator.hpp"
#include "data/image_file.hpp"
#include "data/online_batches.hpp"
#include "data/tokenize.hpp"
#include "data/vips_runtime.hpp"
#include "records/run_file.hpp"
#include "tests/train/tiny_run.hpp"

namespace varscale {
namespace {

namespace fs = std::filesystem;

// The tokens of an image are its first pixels, whatever is encoded with it.
data::ImageEncoder pixel_encoder() {
  records::QuantizerWeights quantizer{.vocabulary = 16, .code_width = 4, .phis = 2, .phi_ratio = 0.5,
                                      .embedding = std::vector<float>(16 * 4),
                                      .phi_weight = std::vector<float>(2 * 4 * 4 * 9),
                                      .phi_bias = std::vector<float>(2 * 4)};
  for (size_t i = 0; i < quantizer.embedding.size(); ++i) quantizer.embedding[i] = static_cast<float>(i % 7) - 3;
  return {.image_side = 8, .scales = {1, 2, 3}, .fingerprint = "pixels", .path = "none", .quantizer = quantizer,
          .encode = [](const at::Tensor& x_BCHW) {
            return x_BCHW.flatten(1).slice(1, 0, 14).add(1).mul(127.5).round().to(at::kLong).remainder(16);
          }};
}

// 24 training images of 12 x 12 pixels in 3 classes, and their token file.
struct Online {
  test::ScratchFolder scratch{"online"};
  data::VipsRuntime& vips = library();
  std::unique_ptr<records::TokenFile> tokens;
  base::StopSignals stop;
  std::unique_ptr<comm::Communicator> self = comm::make_self();

  static data::VipsRuntime& library() {  // one for the whole program
    static data::VipsRuntime vips("train_test");
    return vips;
  }
  explicit Online(int64_t crops = 1) {
    for (int i = 0; i < 30; ++i) {
      std::vector<uint8_t> pixels(12 * 12 * 3);
      for (size_t p = 0; p < pixels.size(); ++p) pixels[p] = static_cast<uint8_t>(31 * i + 3 * p + p * p / 11);
      const fs::path path = scratch.path() / (i < 24 ? "train" : "val") / std::string(1, static_cast<char>('a' + i % 3)) /
                            (std::to_string(i) + ".png");
      fs::create_directories(path.parent_path());
      data::write_png_file(path, pixels.data(), 12, 12, data::Durability::kPlain);
    }
    data::tokenize({.train = scratch.path() / "train", .validation = scratch.path() / "val",
                    .out = scratch.path() / "tokens.h5", .crops = crops},
                   pixel_encoder());
    tokens = std::make_unique<records::TokenFile>(scratch.path() / "tokens.h5");
  }
  train::TrainJob job(const std::string& name, const std::string& kind = "online") const {
    train::TrainJob job = test::tiny_job(*tokens, scratch.path() / name);
    job.run.data.tokens = kind;
    if (kind == "online")
      job.open_images = [this] {
        return std::make_shared<data::TrainImages>(*tokens, scratch.path() / "train", pixel_encoder());
      };
    return job;
  }
  train::Outcome run(const train::TrainJob& job) { return train::train(job, *tokens, *self, stop); }
};

records::RunTables rows_of(const train::TrainJob& job) { return records::read_run(job.folder / "run.h5"); }

std::vector<double> losses_of(const train::TrainJob& job) {
  std::vector<double> losses;
  const records::RunTables rows = rows_of(job);
  for (const records::StepRow& row : rows.steps) losses.push_back(row.loss_mean);
  for (const records::EvalRow& row : rows.eval) losses.push_back(row.loss_mean);
  return losses;
}

// The first pass takes crop 0 of every image, which is all that a file of one crop has.
TEST(OnlineTraining, IsCachedTrainingInTheFirstPassAndSeesOtherCropsInTheNext) {
  Online online;
  const train::TrainJob fresh = online.job("fresh"), stored = online.job("stored", "cached");
  online.run(fresh);
  online.run(stored);
  const records::RunTables a = rows_of(fresh), b = rows_of(stored);
  ASSERT_EQ(a.steps.size(), 20u);  // 5 passes of 4 steps
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(a.steps[i].loss_mean, b.steps[i].loss_mean) << i;
    EXPECT_EQ(a.steps[i].grad_norm, b.steps[i].grad_norm) << i;
  }
  EXPECT_NE(a.steps[5].loss_mean, b.steps[5].loss_mean);
  EXPECT_EQ(a.steps.back().flops, b.steps.back().flops);  // encoding is no training
  EXPECT_EQ(a.eval.back().val_images, b.eval.back().val_images);
  EXPECT_EQ(std::get<std::string>(a.facts.at("data_tokens")), "online");
  EXPECT_EQ(std::get<std::string>(a.facts.at("tokenizer_fingerprint")),
            records::TokenFile(fresh.run.tokens).info().tokenizer_fingerprint);
  EXPECT_EQ(std::get<std::string>(b.facts.at("data_tokens")), "cached");
  EXPECT_EQ(std::get<int64_t>(a.facts.at("unique_tokens")), 120 * 14);
  EXPECT_EQ(std::get<int64_t>(b.facts.at("unique_tokens")), 24 * 14);
  EXPECT_NE(std::get<std::string>(a.facts.at("run_id")), std::get<std::string>(b.facts.at("run_id")));
}

TEST(OnlineTraining, GoesOnWithoutChangingABit) {
  Online online;
  const train::TrainJob whole = online.job("whole");
  online.run(whole);
  train::TrainJob halted = online.job("halted");
  for (const int64_t stop : {3, 11}) {  // in the first pass, and later
    halted.stop_after = stop;
    EXPECT_EQ(online.run(halted).state, train::Outcome::State::kStopped);
  }
  halted.stop_after = 0;
  EXPECT_EQ(online.run(halted).state, train::Outcome::State::kDone);
  EXPECT_EQ(losses_of(halted), losses_of(whole));
  const checkpoint::CheckpointFolder a(whole.folder / "checkpoints", 2), b(halted.folder / "checkpoints", 2);
  const auto mine = b.tensors(20), expected = a.tensors(20);
  ASSERT_EQ(mine.size(), expected.size());
  for (size_t i = 0; i < mine.size(); ++i) EXPECT_TRUE(at::equal(mine[i].tensor, expected[i].tensor)) << mine[i].name;
}

TEST(OnlineTraining, GivesTheSameUpdatesFromAnyMicroBatch) {
  Online online;
  const train::TrainJob whole = online.job("whole");
  online.run(whole);
  const std::vector<double> expected = losses_of(whole);
  for (const int64_t micro : {1, 4}) {  // 4 does not divide the batch of 6
    train::TrainJob parts = online.job(fmt::format("micro{}", micro));
    parts.run.train.micro_batch = micro;
    online.run(parts);
    const std::vector<double> found = losses_of(parts);
    ASSERT_EQ(found.size(), expected.size());
    // These tokens have no near ties; other orders of float32 additions give 1e-6 over 20 steps.
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], expected[i], 2e-6 * expected[i]) << micro;
  }
}

TEST(OnlineTraining, FailsWithTheNameOfAnImageThatCannotBeReadAndKeepsWhatItHas) {
  Online online;
  train::TrainJob job = online.job("run");
  job.run.train.images = 24;  // one pass: 4 steps
  data::CachedBatches batches(*online.tokens, job.run.train.data_seed, 6);
  const int64_t image = batches.sample(3 * 6).image;  // of the last step
  const auto source = online.tokens->source_id(online.tokens->train_row(image, 0));
  const fs::path path = data::ImageSet::open(online.scratch.path() / "train").where(source);
  job.before_step = [&](int64_t step) {
    if (step == 1) fs::resize_file(path, fs::file_size(path) / 2);
  };
  std::string said;
  try {
    online.run(job);
  } catch (const base::UserError& error) {
    said = error.what();
  }
  EXPECT_NE(said.find(path.string() + ": not a readable image"), std::string::npos) << said;
  EXPECT_EQ(rows_of(job).steps.size(), 3u);
}

}  // namespace
}  // namespace varscale
