#include "tokenizer/train.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <set>

#include "base/error.hpp"
#include "tests/support/hash_weights.hpp"
#include "tokenizer/evaluate.hpp"

namespace varscale::tokenizer {
namespace {

// 8 x 8 images of two flat colours side by side: easy to learn in a few steps.
Tensor image_of(int64_t number) {
  const Tensor colours = test::hash_v(fmt::format("image.{}", number), {2, 3, 1, 1}).to(at::kFloat);
  return at::cat({colours[0].expand({3, 8, 4}), colours[1].expand({3, 8, 4})}, 2);
}

ImageSource images(int64_t count, std::vector<int64_t>* asked = nullptr) {
  return {count, fmt::format("flat-{}", count), [asked](const std::vector<int64_t>& numbers) {
            std::vector<Tensor> batch;
            for (const int64_t number : numbers) batch.push_back(image_of(number));
            if (asked != nullptr) asked->insert(asked->end(), numbers.begin(), numbers.end());
            return at::stack(batch);
          }};
}

TokenizerConfig tiny() {
  TokenizerConfig config;
  VqvaeConfig& model = config.model;
  model.image_side = 8, model.channels = 8, model.channel_mult = {1, 2}, model.blocks = 1,
  model.groups = 4;
  model.code_width = 4, model.vocabulary = 16, model.scales = {1, 2, 4}, model.phis = 2;
  config.train.steps = 60, config.train.batch = 4;
  config.optimizer.lr = 4e-3, config.optimizer.warmup_steps = 4;
  config.codebook.start_step = 6, config.codebook.kmeans_images = 16,
  config.codebook.restart_every = 5;
  return config;
}

void run(TokenizerTrainer& trainer, int64_t steps) {
  for (int64_t i = 0; i < steps; ++i) trainer.step();
}

void expect_equal(const Vqvae& a, const Vqvae& b) {
  const nn::NamedTensors x = a.state(), y = b.state();
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_TRUE(at::equal(x[i].tensor, y[i].tensor)) << x[i].name;
}

TEST(TokenizerTrainer, HalvesTheErrorAndKeepsCodesInUse) {
  TokenizerTrainer trainer(tiny(), images(32));
  const double first = trainer.step().mse;
  double last = 0;
  while (!trainer.done()) last = trainer.step().mse;
  EXPECT_LT(last, 0.5 * first);
  const TokenizerReport report = evaluate(trainer.finished(), images(32));
  EXPECT_LT(report.mse, 0.5 * first);
  EXPECT_GT(report.all.perplexity, 4);  // of 16: a collapsed codebook has about 1
}

TEST(TokenizerTrainer, ResumesToTheSameBits) {
  const auto path = std::filesystem::path(testing::TempDir()) / fmt::format("state-{}", ::getpid());
  TokenizerConfig config = tiny();
  config.train.average = 0.9;
  for (const int64_t stop : {3, 6, 17}) {  // without the quantiser, at its start, after restarts
    TokenizerTrainer undisturbed(config, images(10)), killed(config, images(10)),
        resumed(config, images(10));
    run(undisturbed, 25);
    run(killed, stop);
    killed.save_state(path);
    resumed.load_state(path);
    EXPECT_EQ(resumed.steps_done(), stop);
    run(resumed, 25 - stop);
    expect_equal(undisturbed.model(), resumed.model());
    expect_equal(undisturbed.finished(), resumed.finished());
  }
  std::filesystem::remove(path);
}

TEST(TokenizerTrainer, RefusesAStateOfOtherSettingsOrImages) {
  const auto path =
      std::filesystem::path(testing::TempDir()) / fmt::format("other-state-{}", ::getpid());
  TokenizerTrainer trainer(tiny(), images(10));
  trainer.save_state(path);
  TokenizerConfig other = tiny();
  other.optimizer.lr *= 2;
  EXPECT_THROW(TokenizerTrainer(other, images(10)).load_state(path), base::UserError);
  EXPECT_THROW(TokenizerTrainer(tiny(), images(11)).load_state(path), base::UserError);
  other = tiny();
  other.train.save_every_min = 99;  // changes no number
  EXPECT_NO_THROW(TokenizerTrainer(other, images(10)).load_state(path));
  trainer.finished().save(path, trainer.training_record());  // a tokenizer is no state
  EXPECT_EQ(stored_training(path), trainer.training_record());
  EXPECT_THROW(trainer.load_state(path), base::UserError);
  std::filesystem::remove(path);
}

TEST(TokenizerTrainer, EveryPassTakesEachImageOnceInItsOwnOrder) {
  TokenizerConfig config = tiny();
  config.codebook.kmeans_images = 0;
  std::vector<int64_t> asked;
  TokenizerTrainer trainer(config, images(8, &asked));
  run(trainer, 4);  // 16 images: two passes
  const std::vector<int64_t> first(asked.begin(), asked.begin() + 8),
      second(asked.begin() + 8, asked.end());
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 8u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 8u);
  EXPECT_NE(first, second);
}

TEST(TokenizerTrainer, TrainsOnTheDrawnSubsetOnly) {
  TokenizerConfig config = tiny();
  config.train.images = 5;
  std::vector<int64_t> asked;
  TokenizerTrainer trainer(config, images(50, &asked));
  run(trainer, 10);
  EXPECT_EQ(std::set<int64_t>(asked.begin(), asked.end()).size(), 5u);
  config.train.images = 51;
  EXPECT_THROW(TokenizerTrainer(config, images(50)), base::UserError);
  EXPECT_THROW(TokenizerTrainer(tiny(), images(0)), base::UserError);
}

TEST(TokenizerTrainer, MovesTheCodesByGradientWhereAsked) {
  TokenizerConfig config = tiny();
  config.codebook.update = "gradient", config.codebook.start_step = 0,
  config.codebook.kmeans_images = 0;
  TokenizerTrainer trainer(config, images(10));
  const Tensor before = trainer.model().quantizer().embedding_VC().detach().clone();
  run(trainer, 3);
  EXPECT_GT(
      (trainer.model().quantizer().embedding_VC().detach() - before).abs().max().item<float>(),
      1e-4);
}

TEST(TokenizerTrainer, AveragedWeightsLagBehindTheLast) {
  TokenizerConfig config = tiny();
  config.train.average = 0.99;
  TokenizerTrainer trainer(config, images(10));
  run(trainer, 20);
  const Tensor &last = trainer.model().parameters()[0].tensor,
               mean = trainer.finished().parameters()[0].tensor;
  EXPECT_GT((last.detach() - mean).abs().max().item<float>(), 1e-4);
}

TEST(ReconstructionLoss, WeighsSquaresAndMagnitudes) {
  const Tensor x = at::zeros({1, 3, 2, 2}), r = at::full({1, 3, 2, 2}, 0.5);
  EXPECT_FLOAT_EQ(reconstruction_loss({.l2 = 2, .l1 = 3, .vq = 1}, r, x).item<float>(),
                  2 * 0.25f + 3 * 0.5f);
}

TEST(Kmeans, FindsTheCentresOfSeparateClusters) {
  const Tensor centres = at::tensor({0.f, 0.f, 10.f, 0.f, 0.f, 10.f, 10.f, 10.f}).view({4, 2});
  const Tensor noise = test::hash_v("noise", {4, 25, 2}).to(at::kFloat) * 0.1;
  const Tensor z_NC = (centres.unsqueeze(1) + noise).view({100, 2});
  // Whatever four rows it starts from, 20 codes for 4 clusters leave every row near a code.
  const Tensor codes = kmeans(z_NC, 20, 10, 1);
  EXPECT_LT(at::cdist(z_NC, codes).amin(1).max().item<float>(), 0.3f);
  EXPECT_TRUE(at::equal(codes, kmeans(z_NC, 20, 10, 1)));
  EXPECT_EQ(kmeans(z_NC.slice(0, 0, 3), 8, 2, 1).size(0), 8);  // fewer rows than codes
}

TEST(CodebookAverage, FollowsTheClosedForm) {
  const Tensor codes = at::tensor({1.f, 2.f}).view({2, 1});
  CodebookAverage average(codes, 0.75);
  // Code 0 is chosen for 3 and 5, code 1 not at all: weight .75 + .25 x 2, sum .75 x 1 + .25 x 8.
  average.update({at::tensor({3.f}).view({1, 1}), at::tensor({5.f}).view({1, 1})},
                 {at::zeros({1}, at::kLong), at::zeros({1}, at::kLong)});
  EXPECT_FLOAT_EQ(codes[0].item<float>(), 2.75f / 1.25f);
  EXPECT_FLOAT_EQ(codes[1].item<float>(), 2.f);
}

TEST(CodebookAverage, RestartsOnlyCodesBelowTheirShare) {
  const Tensor codes = at::arange(4, at::kFloat).view({4, 1}) * 100;
  CodebookAverage average(codes, 0.5);
  const std::vector<Tensor> residuals{at::full({3, 1}, 7.f), at::full({5, 1}, 8.f)};
  const std::vector<Tensor> tokens{at::tensor({0L, 0L, 1L}, at::kLong),
                                   at::tensor({0L, 1L, 1L, 0L, 1L}, at::kLong)};
  for (int i = 0; i < 10; ++i) average.update(residuals, tokens);
  const Tensor kept = codes.slice(0, 0, 2).clone();
  EXPECT_EQ(average.restart(residuals, 0.05, 1, 0), 2);
  EXPECT_TRUE(at::equal(codes.slice(0, 0, 2), kept));
  EXPECT_EQ(codes[2].item<float>(), 7);  // drawn from the scales in turn
  EXPECT_EQ(codes[3].item<float>(), 8);
  EXPECT_EQ(average.restart(residuals, 0.05, 1, 1), 0);
}

TEST(CodebookUse, CountsCodesAndTheirPerplexity) {
  const CodebookUse even = codebook_use(at::tensor({5, 5, 5, 5, 0, 0, 0, 0}));
  EXPECT_EQ(even.used, 4);
  EXPECT_DOUBLE_EQ(even.used_share(), 0.5);
  EXPECT_NEAR(even.perplexity, 4, 1e-12);
  EXPECT_NEAR(codebook_use(at::tensor({9, 0})).perplexity, 1, 1e-12);
  EXPECT_EQ(codebook_use(at::zeros({3})).used, 0);
}

TEST(UpdateHits, AveragesAsThePublicCode) {
  const Tensor mean = at::zeros({1, 1}), hits = at::full({1, 1}, 10.f);
  update_hits(mean, hits, 0);
  EXPECT_FLOAT_EQ(mean.item<float>(), 10);
  update_hits(mean, at::zeros({1, 1}), 5);
  EXPECT_FLOAT_EQ(mean.item<float>(), 9);
  update_hits(mean, at::zeros({1, 1}), 100);
  EXPECT_FLOAT_EQ(mean.item<float>(), 8.91f);
}

TEST(Evaluate, PsnrIsThatOfTheReconstruction) {
  TokenizerTrainer trainer(tiny(), images(10));
  run(trainer, 8);
  const Vqvae tokenizer = trainer.finished();
  const TokenizerReport report = evaluate(tokenizer, images(10), 2, 1),
                        all = evaluate(tokenizer, images(10), 0, 3);
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
}  // namespace varscale::tokenizer
