#include "tokenizer_evaluation/judge.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "comm/thread_group.hpp"
#include "data/png.hpp"
#include "evaluate/frechet.hpp"
#include "evaluate/image_quality.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::tokenizer_evaluation {
namespace {

using at::Tensor;
using base::message_of;
using base::UserError;
using testing::HasSubstr;
using testing::Not;
using tokenizer::ImageSource;
using tokenizer::Vqvae;
using tokenizer::VqvaeConfig;

Vqvae made(int64_t side) {
  VqvaeConfig config;
  config.image_side = side, config.channels = 8, config.channel_mult = {1, 2}, config.blocks = 1, config.groups = 4;
  config.code_width = 4, config.vocabulary = 16, config.scales = {1, 2, side / 2}, config.phis = 2;
  Vqvae tokenizer(config);
  tokenizer.initialise(tokenizer::Init::kPublic, 3);
  return tokenizer;
}

Tensor image_of(int64_t number, int64_t side) {
  return test::hash_v(fmt::format("image.{}", number), {3, side, side}).to(at::kFloat);
}

ImageSource images(int64_t count, int64_t side = 16) {
  return {count, "hashed", [side](const ImageSource::Batch& batch) {
            std::vector<Tensor> images;
            for (const int64_t number : batch.numbers) images.push_back(image_of(number, side));
            return at::stack(images);
          }};
}

// Mean and spread of each colour.
class Colours : public evaluate::FeatureNetwork {
 public:
  explicit Colours(std::string name, bool is_random = false) : name_(std::move(name)), is_random_(is_random) {}
  std::string name() const override { return name_; }
  bool is_random() const override { return is_random_; }
  std::string identity() const override { return "0123456789abcdef0123"; }
  int64_t dimension() const override { return 6; }
  Tensor batch(const Tensor& images_u8_B3HW) const override {
    EXPECT_EQ(images_u8_B3HW.scalar_type(), at::kByte);
    const Tensor x_B3P = images_u8_B3HW.to(at::kFloat).flatten(2);
    return at::cat({x_B3P.mean(2), x_B3P.std(2)}, 1);
  }

 private:
  std::string name_;
  bool is_random_;
};

const losses::Lpips& lpips() {
  static const losses::Lpips network = losses::Lpips::hash_made(5);
  return network;
}

Judgement alone(const Vqvae& tokenizer, const ImageSource& source, const JudgeOptions& options) {
  return judge(tokenizer, source, options, *comm::make_self());
}

TEST(Judge, GivesTheMeansOfWhatEachImageGivesAlone) {
  const at::NoGradGuard no_grad;
  const Vqvae tokenizer = made(16);
  const Colours network("colours");
  const Judgement judgement =
      alone(tokenizer, images(7), {.limit = 5, .batch = 2, .lpips = &lpips(), .features = &network});
  double ssim = 0, distance = 0, psnr = 0;
  evaluate::GaussianStatistics of_images(6), of_reconstructions(6);
  for (int64_t i = 0; i < 5; ++i) {
    const Tensor image = image_of(i, 16).unsqueeze(0);
    const Tensor reconstruction = tokenizer::reconstructions_by_scale(tokenizer, image).back();
    ssim += evaluate::ssim(reconstruction, image, evaluate::kSigned).item<double>() / 5;
    psnr += evaluate::psnr(reconstruction, image, evaluate::kSigned).item<double>() / 5;
    distance += lpips().distances(reconstruction, image).item<double>() / 5;
    of_images.add(network.batch(data::to_u8_BHWC(image).permute({0, 3, 1, 2})));
    of_reconstructions.add(network.batch(data::to_u8_BHWC(reconstruction).permute({0, 3, 1, 2})));
  }
  // Batches of one and of two are rounded differently; a code near a tie could differ, and does not here.
  EXPECT_EQ(judgement.report.images, 5);
  EXPECT_NEAR(judgement.report.psnr_db, psnr, 1e-5 * psnr);
  EXPECT_NEAR(judgement.ssim.value(), ssim, 1e-5);
  EXPECT_NEAR(judgement.lpips.value().distance, distance, 1e-5 * distance);
  const double frechet = evaluate::frechet_distance(of_images.gaussian(), of_reconstructions.gaussian());
  ASSERT_GT(frechet, 1);
  EXPECT_NEAR(judgement.frechet.value().value, frechet, 1e-3 * frechet);
  EXPECT_EQ(judgement.lpips->identity, lpips().identity());
  EXPECT_TRUE(judgement.lpips->is_made);
}

TEST(Judge, GivesTheSameBitsAtAnyNumberOfRanks) {
  const Vqvae tokenizer = made(16);
  const Colours network("colours");
  const ImageSource source = images(10);
  int64_t done = 0;
  const JudgeOptions options{.batch = 3, .lpips = &lpips(), .features = &network};
  const std::string one = alone(tokenizer, source, options).json().dump();
  for (const int ranks : {2, 3, 5}) {
    std::string first;
    comm::run_ranks(ranks, [&](comm::Communicator& world) {
      JudgeOptions own = options;
      if (world.rank() == 0) own.advance = [&](int64_t count) { done += count; };
      const Judgement judgement = judge(tokenizer, source, own, world);
      if (world.rank() == 0)
        first = judgement.json().dump();
      else
        EXPECT_EQ(judgement.report.images, 0);
    });
    EXPECT_EQ(first, one) << ranks;
    EXPECT_EQ(done, 10) << ranks;
    done = 0;
  }
}

TEST(Judge, PreparesTheBatchThatComesNextOnItsRank) {
  const Vqvae tokenizer = made(16);
  ImageSource source = images(7);
  std::vector<std::vector<int64_t>> loaded, prepared;
  source.load = [&, load = source.load](const ImageSource::Batch& batch) {
    loaded.push_back(batch.numbers);
    return load(batch);
  };
  source.prepare = [&](const ImageSource::Batch& batch) { prepared.push_back(batch.numbers); };
  alone(tokenizer, source, {.batch = 3});
  EXPECT_THAT(loaded, testing::ElementsAre(testing::ElementsAre(0, 1, 2), testing::ElementsAre(3, 4, 5),
                                           testing::ElementsAre(6)));
  EXPECT_THAT(prepared, testing::ElementsAre(testing::ElementsAre(3, 4, 5), testing::ElementsAre(6)));
}

TEST(Judge, NamesEveryFigureThatDependsOnANetworkByIt) {
  const Vqvae tokenizer = made(16);
  const auto judged = [&](const Colours& network, const losses::Lpips* perceptual) {
    return alone(tokenizer, images(4), {.lpips = perceptual, .features = &network});
  };
  const Judgement published = judged(Colours(evaluate::kFidNetwork), nullptr);
  EXPECT_THAT(published.words(), HasSubstr("rFID "));
  EXPECT_THAT(published.words(), HasSubstr("through inception-2015-12-05 (0123456789abcdef), 4 images"));
  EXPECT_THAT(published.words(), Not(HasSubstr("no published figure")));
  EXPECT_THAT(published.words(), Not(HasSubstr("LPIPS")));
  EXPECT_EQ(published.json().at("frechet").at("comparable"), true);
  EXPECT_FALSE(published.json().contains("lpips"));

  const Judgement random = judged(Colours("random colours", true), &lpips());
  EXPECT_EQ(random.json().at("frechet").at("name"), "rFD-random");
  EXPECT_EQ(random.json().at("frechet").at("network").at("identity"), "0123456789abcdef0123");
  EXPECT_EQ(random.json().at("frechet").at("comparable"), false);
  EXPECT_EQ(random.json().at("lpips").at("comparable"), false);
  EXPECT_THAT(random.words(), HasSubstr("made weights, comparable with no published figure"));
  EXPECT_THAT(random.words(), HasSubstr("random weights, comparable with no published figure"));
  EXPECT_EQ(judged(Colours("colours"), nullptr).frechet->name, "rFD-colours");
}

TEST(Judge, RefusesWhatItCannotMeasure) {
  const Vqvae small = made(8);
  const Colours network("colours");
  EXPECT_EQ(message_of<UserError>([&] { alone(small, images(4, 8), {.lpips = &lpips()}); }),
            "LPIPS needs images of at least 16 pixels, the tokenizer's have 8");
  EXPECT_EQ(message_of<UserError>([&] { alone(small, images(4, 8), {.limit = 1, .features = &network}); }),
            "a Fréchet distance needs at least 2 images, there is 1");
  EXPECT_THAT(message_of<UserError>([&] { alone(small, images(0, 8), {}); }), HasSubstr("there are no images"));
  const Judgement judgement = alone(small, images(4, 8), {});
  EXPECT_FALSE(judgement.ssim);
  EXPECT_THAT(judgement.words(), HasSubstr("no SSIM: its window takes 11 pixels"));
  EXPECT_FALSE(judgement.json().contains("ssim"));
}

}  // namespace
}  // namespace varscale::tokenizer_evaluation
