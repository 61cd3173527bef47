#include "tokenizer_training/trainer.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <optional>
#include <set>

#include "base/error.hpp"
#include "comm/thread_group.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tokenizer/evaluate.hpp"
#include "tokenizer_evaluation/judge.hpp"
#include "tokenizer_training/run.hpp"

namespace varscale::tokenizer_training {
namespace {

using tokenizer::TokenizerReport, tokenizer::VqvaeConfig;

// Images of two flat colours side by side: easy to learn in a few steps.
Tensor image_of(int64_t number, int64_t side) {
  const Tensor colours = test::hash_v(fmt::format("image.{}", number), {2, 3, 1, 1}).to(at::kFloat);
  return at::cat({colours[0].expand({3, side, side / 2}), colours[1].expand({3, side, side / 2})}, 2);
}

ImageSource images(int64_t count, std::vector<int64_t>* asked = nullptr, int64_t side = 8) {
  return {count, fmt::format("flat-{}", count), [asked, side](const ImageSource::Batch& batch) {
            std::vector<Tensor> images;
            for (const int64_t number : batch.numbers) images.push_back(image_of(number, side));
            if (asked != nullptr) asked->insert(asked->end(), batch.numbers.begin(), batch.numbers.end());
            return at::stack(images);
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

// Every term and lever but those that need a large network: 16 x 16 images.
TokenizerConfig compound() {
  TokenizerConfig config = tiny();
  config.model.image_side = 16, config.model.scales = {1, 2, 4, 8}, config.model.phis = 4;
  config.train.batch = 8, config.train.average = 0.9, config.train.steps = 16;
  config.codebook.start_step = 2, config.codebook.restart_every = 3;
  config.codebook.entropy = 0.01, config.codebook.scale_dropout = 0.3, config.codebook.scale_dropout_from = 2;
  AdversarialConfig& adversarial = config.adversarial;
  adversarial.discriminator = "patch_gan", adversarial.channels = 8, adversarial.layers = 2, adversarial.groups = 4;
  adversarial.start_step = 4, adversarial.warmup_steps = 2, adversarial.lecam = 0.01, adversarial.r1 = 0.1;
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

class Alone : public testing::Test {
 protected:
  TokenizerTrainer trainer(const TokenizerConfig& config, const ImageSource& source) {
    return TokenizerTrainer(config, source, *world_);
  }
  std::unique_ptr<comm::Communicator> world_ = comm::make_self();
};

class Trainer : public Alone {};

TEST_F(Trainer, HalvesTheErrorAndKeepsCodesInUse) {
  TokenizerTrainer trainer(tiny(), images(32), *world_);
  const double first = trainer.step().l2;
  records::TokenizerStepRow row{};
  while (!trainer.done()) row = trainer.step();
  EXPECT_LT(row.l2, 0.5 * first);
  EXPECT_NEAR(row.loss, row.l2 + 0.5 * row.l1 + row.vq, 1e-6 * row.loss);
  const TokenizerReport report = tokenizer_evaluation::judge(trainer.finished(), images(32), {}, *world_).report;
  EXPECT_LT(report.mse, 0.5 * first);
  EXPECT_GT(report.all.perplexity, 4);  // of 16: a collapsed codebook has about 1
  const std::vector<records::CodeRow> codes = trainer.take_code_rows();
  ASSERT_EQ(codes.size(), 3u);
  EXPECT_EQ(codes[2].tokens, (60 - 6) * 4 * 16);
  EXPECT_EQ(codes[2].used + codes[2].dead, 16);
  EXPECT_EQ(trainer.take_code_rows()[2].tokens, 0);
}

// What a checkpoint does, without files.
void carry_over(TokenizerTrainer& from, TokenizerTrainer& to) {
  std::map<std::string, Tensor> saved;
  for (const checkpoint::Piece& piece : from.pieces(true)) saved[piece.name] = piece.tensor.detach().clone();
  at::NoGradGuard no_grad;
  for (const checkpoint::Piece& piece : to.pieces(false)) piece.tensor.copy_(saved.at(piece.name));
  to.loaded(from.steps_done());
}

TEST_F(Trainer, ResumesToTheSameBits) {
  TokenizerConfig config = compound();
  for (const int64_t stop : {1, 2, 3, 4, 11}) {  // before the quantiser, at its start, at the discriminator's, later
    SCOPED_TRACE(stop);
    TokenizerTrainer undisturbed(config, images(10, nullptr, 16), *world_), killed(config, images(10, nullptr, 16), *world_),
        resumed(config, images(10, nullptr, 16), *world_);
    run(undisturbed, stop);
    run(killed, stop);
    carry_over(killed, resumed);
    while (!undisturbed.done()) {
      const records::TokenizerStepRow a = undisturbed.step(), b = resumed.step();
      EXPECT_EQ(a.loss, b.loss);
      EXPECT_EQ(a.discriminator, b.discriminator);
      EXPECT_EQ(a.adversarial_weight, b.adversarial_weight);
      EXPECT_EQ(a.restarted, b.restarted);
    }
    expect_equal(undisturbed.finished(), resumed.finished());
    EXPECT_EQ(undisturbed.take_code_rows()[1].used, resumed.take_code_rows()[1].used);
  }
}

struct Layout {
  int world;
  const char* mode;
  int64_t micro_batch, shards = 0;
  bool recompute = false;
};

struct Result {
  std::vector<records::TokenizerStepRow> rows;
  std::optional<Vqvae> finished;
};

Result train_in(const Layout& layout, TokenizerConfig config, int64_t side) {
  config.parallel.mode = layout.mode, config.parallel.shards = layout.shards;
  config.parallel.recompute = layout.recompute;
  config.train.micro_batch = layout.micro_batch;
  std::vector<Result> results(static_cast<size_t>(layout.world));
  comm::run_ranks(layout.world, [&](comm::Communicator& world) {
    TokenizerTrainer trainer(config, images(20, nullptr, side), world);
    Result& result = results[static_cast<size_t>(world.rank())];
    while (!trainer.done()) result.rows.push_back(trainer.step());
    result.finished.emplace(trainer.finished());
  });
  for (const Result& other : results) {
    for (size_t i = 0; i < other.rows.size(); ++i) EXPECT_EQ(other.rows[i].loss, results[0].rows[i].loss);
    expect_equal(*other.finished, *results[0].finished);
  }
  return std::move(results[0]);
}

class Layouts : public testing::TestWithParam<Layout> {};

// The losses and the finished tokenizer are those of one rank up to the order of additions. A code chosen on a near
// tie would show as a jump: there is none in these runs.
void expect_like_one_rank(const Layout& layout, const TokenizerConfig& config, int64_t side) {
  const Result one = train_in({1, "replicated", 0}, config, side), other = train_in(layout, config, side);
  double worst_loss = 0, worst_judge = 0, worst_weight = 0;
  for (size_t i = 0; i < one.rows.size(); ++i) {
    worst_loss = std::max(worst_loss, std::abs(other.rows[i].loss / one.rows[i].loss - 1));
    worst_judge = std::max(worst_judge, std::abs(other.rows[i].discriminator - one.rows[i].discriminator));
    EXPECT_EQ(other.rows[i].restarted, one.rows[i].restarted);
  }
  const nn::NamedTensors a = one.finished->state(), b = other.finished->state();
  for (size_t i = 0; i < a.size(); ++i) {
    Tensor want = a[i].tensor, got = b[i].tensor;
    if (a[i].name.ends_with("qkv.bias")) {
      // The key's bias moves no softmax: its true gradient is zero, and AdamW makes full steps of the rounding.
      const int64_t width = want.size(0) / 3;
      want = at::cat({want.slice(0, 0, width), want.slice(0, 2 * width)});
      got = at::cat({got.slice(0, 0, width), got.slice(0, 2 * width)});
    }
    const double scale = std::max(1e-3, want.norm().item<double>());
    worst_weight = std::max(worst_weight, (want - got).norm().item<double>() / scale);
  }
  fmt::print("{} {} micro {}: worst loss {:.1e}, discriminator's {:.1e}, weights {:.1e}\n", layout.world, layout.mode,
             layout.micro_batch, worst_loss, worst_judge, worst_weight);
  EXPECT_LE(worst_loss, 1e-6);
  EXPECT_LE(worst_judge, 1e-6);
  EXPECT_LE(worst_weight, 1e-4);
}

TEST_P(Layouts, TrainTheSameTokenizerByTheCompoundLoss) { expect_like_one_rank(GetParam(), compound(), 16); }

TEST_P(Layouts, TrainTheSameTokenizerWithCodesByGradient) {
  TokenizerConfig config = tiny();
  config.codebook.update = "gradient", config.train.steps = 12, config.train.batch = 8;
  expect_like_one_rank(GetParam(), config, 8);
}

INSTANTIATE_TEST_SUITE_P(Table, Layouts,
                         testing::Values(Layout{1, "replicated", 3}, Layout{2, "replicated", 0}, Layout{3, "replicated", 2},
                                         Layout{1, "zero3", 3}, Layout{2, "zero2", 0}, Layout{3, "zero3", 1},
                                         Layout{4, "hybrid", 0, 2}));

TEST(Layouts, OneRankInAnyModeGivesTheSameBits) {
  const Result plain = train_in({1, "replicated", 0}, compound(), 16);
  for (const Layout& layout : {Layout{1, "zero3", 0}, Layout{1, "zero2", 0}, Layout{1, "replicated", 0, 0, true},
                               Layout{1, "zero3", 0, 0, true}}) {
    SCOPED_TRACE(fmt::format("{} recompute {}", layout.mode, layout.recompute));
    const Result other = train_in(layout, compound(), 16);
    for (size_t i = 0; i < plain.rows.size(); ++i) EXPECT_EQ(other.rows[i].loss, plain.rows[i].loss);
    expect_equal(*plain.finished, *other.finished);
  }
}

TEST_F(Trainer, BfloatTrainsNearlyAsWell) {
  TokenizerConfig config = tiny();
  TokenizerTrainer exact(config, images(32), *world_);
  config.train.precision = "bf16";
  TokenizerTrainer rough(config, images(32), *world_);
  const double first = exact.step().l2, first_rough = rough.step().l2;
  EXPECT_NEAR(first_rough / first, 1, 0.02);  // eight bits of mantissa
  EXPECT_NE(first_rough, first);
  double last = 0, last_rough = 0;
  while (!exact.done()) last = exact.step().l2, last_rough = rough.step().l2;
  EXPECT_LT(last_rough, 0.5 * first);
  EXPECT_LT(last_rough, 3 * last);
  EXPECT_EQ(rough.finished().parameters()[0].tensor.scalar_type(), at::kFloat);
}

TEST_F(Trainer, TheDiscriminatorLearnsAndItsTermIsWeighed) {
  TokenizerConfig config = compound();
  config.train.steps = 40, config.adversarial.lr = 2e-3, config.adversarial.r1 = 0;
  TokenizerTrainer trainer(config, images(20, nullptr, 16), *world_);
  std::vector<records::TokenizerStepRow> rows;
  while (!trainer.done()) rows.push_back(trainer.step());
  EXPECT_EQ(rows[3].adversarial_weight, 0);
  EXPECT_EQ(rows[3].discriminator, 0);
  EXPECT_GT(rows[4].adversarial_weight, 0);
  EXPECT_NEAR(rows[4].discriminator, 2, 0.3);  // it knows nothing yet: the hinge loss of logits near 0
  EXPECT_LT(rows.back().discriminator, rows[4].discriminator);
  EXPECT_GT(rows.back().real_logit, rows.back().fake_logit);
}

TEST_F(Trainer, TheAdaptiveRatioIsThatOfTheGradientsOfTheStepBefore) {
  // Twice the reconstruction terms give twice the ratio, at equal weights: in the first step after the start.
  TokenizerConfig config = compound();
  config.adversarial.start_step = 1, config.adversarial.warmup_steps = 0, config.codebook.start_step = 8;
  auto weight = [&](double factor) {
    config.loss.l2 = factor, config.loss.l1 = 0;
    TokenizerTrainer trainer(config, images(20, nullptr, 16), *world_);
    trainer.step();
    return trainer.step().adversarial_weight;
  };
  const double once = weight(1), twice = weight(2);
  EXPECT_GT(once, 0);
  EXPECT_NEAR(twice / once, 2, 1e-3);
}

TEST_F(Trainer, APerceptualTermPullsThePictureItsWay) {
  TokenizerConfig config = compound();
  config.adversarial.discriminator = "none";
  config.loss.lpips = 1, config.loss.vgg_weights = "made", config.train.steps = 12;
  TokenizerTrainer with(config, images(20, nullptr, 16), *world_);
  EXPECT_NE(with.training_record().find("lpips_vgg16:made"), std::string::npos);
  const double first = with.step().lpips;
  double last = 0;
  while (!with.done()) last = with.step().lpips;
  EXPECT_GT(first, 0);
  EXPECT_LT(last, first);
  config.loss.vgg_weights = "";
  EXPECT_THROW(trainer(config, images(20, nullptr, 16)), base::UserError);
}

TEST_F(Trainer, ADinoDiscriminatorTrains) {
  TokenizerConfig config = compound();
  config.adversarial.discriminator = "dino", config.adversarial.dino_weights = "made";
  config.adversarial.r1 = 0, config.train.batch = 2, config.train.steps = 7;
  TokenizerTrainer trainer(config, images(4, nullptr, 16), *world_);
  EXPECT_NE(trainer.training_record().find("dino_vit:made"), std::string::npos);
  run(trainer, 6);
  const records::TokenizerStepRow row = trainer.step();
  EXPECT_GT(row.discriminator, 0);
  EXPECT_GT(row.discriminator_grad_norm, 0);
  EXPECT_GT(row.adversarial_weight, 0);
}

TEST_F(Trainer, ScaleDropoutCountsOnlyTheScalesThatAreKept) {
  TokenizerConfig config = tiny();
  config.codebook.start_step = 0, config.codebook.kmeans_images = 0, config.train.steps = 50;
  config.codebook.scale_dropout = 0.5, config.codebook.scale_dropout_from = 1;
  TokenizerTrainer trainer(config, images(10), *world_);
  run(trainer, 50);
  const std::vector<records::CodeRow> codes = trainer.take_code_rows();
  EXPECT_EQ(codes[0].tokens, 200);
  // Half of the 200 images keep one or two of three scales, either as likely.
  EXPECT_NEAR(static_cast<double>(codes[1].tokens) / 4, 150, 30);
  EXPECT_NEAR(static_cast<double>(codes[2].tokens) / 16, 100, 30);
}

TEST_F(Trainer, AnEntropyTermSpreadsTheUseOfCodes) {
  // Codes follow no gradient and never restart; the features alone can move.
  TokenizerConfig config = tiny();
  config.codebook.kmeans_images = 0, config.codebook.restart_every = 0, config.codebook.start_step = 0;
  config.train.init_codes = "normal", config.train.steps = 60;
  auto perplexity = [&](double weight) {
    config.codebook.entropy = weight;
    TokenizerTrainer trainer(config, images(32), *world_);
    run(trainer, 40);
    trainer.take_code_rows();
    run(trainer, 20);
    double sum = 0;
    for (const records::CodeRow& row : trainer.take_code_rows()) sum += row.perplexity;
    return sum;
  };
  EXPECT_GT(perplexity(1), perplexity(0));
}

TEST_F(Trainer, EveryPassTakesEachImageOnceInItsOwnOrder) {
  TokenizerConfig config = tiny();
  config.codebook.kmeans_images = 0;
  std::vector<int64_t> asked;
  TokenizerTrainer trainer(config, images(8, &asked), *world_);
  run(trainer, 4);  // 16 images: two passes
  const std::vector<int64_t> first(asked.begin(), asked.begin() + 8),
      second(asked.begin() + 8, asked.end());
  EXPECT_EQ(std::set<int64_t>(first.begin(), first.end()).size(), 8u);
  EXPECT_EQ(std::set<int64_t>(second.begin(), second.end()).size(), 8u);
  EXPECT_NE(first, second);
}

TEST(Share, TakesAnotherCropInEveryPassWhereAsked) {
  const auto world = comm::make_self();
  TrainConfig config;
  config.batch = 4;
  EXPECT_EQ(Share(config, 6, *world).of(1, 0).images.crops, (std::vector<int64_t>{0, 0, 0, 0}));
  config.crop = "random";
  EXPECT_EQ(Share(config, 6, *world).of(1, 0).images.crops, (std::vector<int64_t>{0, 0, 1, 1}));
}

TEST_F(Trainer, TrainsOnTheDrawnSubsetOnly) {
  TokenizerConfig config = tiny();
  config.train.images = 5;
  std::vector<int64_t> asked;
  TokenizerTrainer subset(config, images(50, &asked), *world_);
  run(subset, 10);
  EXPECT_EQ(std::set<int64_t>(asked.begin(), asked.end()).size(), 5u);
  config.train.images = 51;
  EXPECT_THROW(trainer(config, images(50)), base::UserError);
  EXPECT_THROW(trainer(tiny(), images(0)), base::UserError);
}

TEST_F(Trainer, MovesTheCodesByGradientWhereAsked) {
  TokenizerConfig config = tiny();
  config.codebook.update = "gradient", config.codebook.start_step = 0,
  config.codebook.kmeans_images = 0;
  TokenizerTrainer trainer(config, images(10), *world_);
  const Tensor before = trainer.finished().quantizer().embedding_VC();
  run(trainer, 3);
  EXPECT_GT((trainer.finished().quantizer().embedding_VC() - before).abs().max().item<float>(), 1e-4);
}

TEST_F(Trainer, AveragedWeightsLagBehindTheLast) {
  TokenizerConfig config = tiny();
  TokenizerTrainer last(config, images(10), *world_);
  config.train.average = 0.99;
  TokenizerTrainer mean(config, images(10), *world_);
  run(last, 20);
  run(mean, 20);
  EXPECT_TRUE(at::equal(last.owned()[0].weight, mean.owned()[0].weight));
  const Tensor difference = last.finished().parameters()[0].tensor - mean.finished().parameters()[0].tensor;
  EXPECT_GT(difference.abs().max().item<float>(), 1e-4);
}

TEST_F(Trainer, AnUpdateThatIsNotFiniteIsSkippedAndCounted) {
  TokenizerConfig config = compound();
  bool broken = false;
  ImageSource source = images(20, nullptr, 16);
  source.load = [load = source.load, &broken](const ImageSource::Batch& batch) {
    Tensor image = load(batch);
    return broken ? image * std::nan("") : image;
  };
  TokenizerTrainer trainer(config, source, *world_);
  run(trainer, 8);
  const Vqvae before = trainer.finished();
  broken = true;
  trainer.step();
  EXPECT_EQ(trainer.skipped_in_a_row(), 1);
  trainer.step();
  EXPECT_EQ(trainer.skipped_in_a_row(), 2);
  broken = false;
  const records::TokenizerStepRow row = trainer.step();
  EXPECT_EQ(trainer.skipped_in_a_row(), 0);
  EXPECT_TRUE(std::isfinite(row.loss) && std::isfinite(row.discriminator) && std::isfinite(row.adversarial_weight));
  for (const nn::NamedTensor& named : trainer.finished().state()) EXPECT_TRUE(named.tensor.isfinite().all().item<bool>());
}

// Through files, at another number of ranks and in another mode.
TEST(TrainTokenizer, GoesOnInAnotherLayout) {
  const base::TemporaryFolder folder;
  const base::StopSignals stop;
  TokenizerJob job{.config = compound(), .images = images(20, nullptr, 16), .out = folder / "whole.safetensors", .quiet = true};
  auto train = [&](int ranks, const char* mode, int64_t stop_after) {
    job.config.parallel.mode = mode;
    job.stop_after = stop_after;
    Outcome outcome{.state = Outcome::State::kStopped};
    comm::run_ranks(ranks, [&](comm::Communicator& world) {
      const Outcome mine = train_tokenizer(job, world, stop);
      if (world.rank() == 0) outcome = mine;
    });
    return outcome;
  };
  EXPECT_EQ(train(1, "replicated", 0).state, Outcome::State::kDone);
  job.out = folder / "part.safetensors";
  EXPECT_EQ(train(2, "zero3", 7).state, Outcome::State::kStopped);
  EXPECT_FALSE(std::filesystem::exists(job.out));
  EXPECT_EQ(train(3, "replicated", 11).steps_here, 4);
  EXPECT_EQ(train(1, "zero2", 0).state, Outcome::State::kDone);
  EXPECT_EQ(train(1, "replicated", 0).state, Outcome::State::kWasDone);
  EXPECT_FALSE(std::filesystem::exists(folder / "part.safetensors.state"));
  const auto whole = records::read_tokenizer_record(folder / "whole.h5"), part = records::read_tokenizer_record(folder / "part.h5");
  ASSERT_EQ(whole.steps.size(), 16u);
  ASSERT_EQ(part.steps.size(), 16u);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_NEAR(part.steps[i].loss / whole.steps[i].loss, 1, 1e-6) << i;
    EXPECT_EQ(part.steps[i].segment, i < 7 ? 0 : i < 11 ? 1 : 2);
  }
  EXPECT_EQ(part.codes.size(), 4u);  // at the end
  EXPECT_EQ(part.codes[3].tokens, whole.codes[3].tokens);

  job.out = folder / "part.safetensors";
  job.config.optimizer.lr *= 2;
  EXPECT_THROW(train(1, "replicated", 0), base::UserError);  // a tokenizer of other settings
  job.out = folder / "third.safetensors";
  EXPECT_EQ(train(1, "replicated", 3).state, Outcome::State::kStopped);
  job.config.optimizer.lr *= 2;
  EXPECT_THROW(train(1, "replicated", 0), base::UserError);  // a state of other settings
  job.config.optimizer.lr /= 2;
  job.config.train.save_every_min = 99;  // changes no number
  EXPECT_EQ(train(1, "replicated", 0).state, Outcome::State::kDone);
}

}  // namespace
}  // namespace varscale::tokenizer_training
