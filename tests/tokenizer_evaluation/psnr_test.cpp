#include "tokenizer/evaluate.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "comm/communicator.hpp"
#include "tests/support/hash_weights.hpp"
#include "tokenizer_evaluation/judge.hpp"

namespace varscale::tokenizer_evaluation {
namespace {

using namespace tokenizer;

Tensor image_of(int64_t number) {
  return test::hash_v(fmt::format("image.{}", number), {3, 8, 8}).to(at::kFloat).clamp(-1, 1);
}

ImageSource images(int64_t count) {
  return {count, "hashed", [](const ImageSource::Batch& batch) {
            std::vector<Tensor> images;
            for (const int64_t number : batch.numbers) images.push_back(image_of(number));
            return at::stack(images);
          }};
}

TEST(Evaluate, PsnrIsThatOfTheReconstruction) {
  VqvaeConfig config;
  config.image_side = 8, config.channels = 8, config.channel_mult = {1, 2}, config.blocks = 1, config.groups = 4;
  config.code_width = 4, config.vocabulary = 16, config.scales = {1, 2, 4}, config.phis = 2;
  Vqvae tokenizer(config);
  tokenizer.initialise(Init::kPublic, 3);
  const auto alone = comm::make_self();
  const TokenizerReport report = judge(tokenizer, images(10), {.limit = 2, .batch = 1}, *alone).report,
                        all = judge(tokenizer, images(10), {.limit = 0, .batch = 3}, *alone).report;
  EXPECT_EQ(report.images, 2);
  EXPECT_EQ(all.images, 10);
  double psnr = 0;
  for (int64_t i = 0; i < 2; ++i) {
    const Tensor image = image_of(i).unsqueeze(0);
    const std::vector<Tensor> rows = reconstructions_by_scale(tokenizer, image);
    ASSERT_EQ(rows.size(), 4u);
    EXPECT_TRUE(at::equal(rows[0], image));
    psnr +=
        10 *
        std::log10(4 / at::mse_loss(rows[3].to(at::kDouble), image.to(at::kDouble)).item<double>());
  }
  EXPECT_NEAR(report.psnr_db, psnr / 2, 1e-3);  // batches of one and of three round differently
  EXPECT_LE(all.all.used, 16);
  EXPECT_EQ(all.scales.size(), 3u);
}

}  // namespace
}  // namespace varscale::tokenizer_evaluation
