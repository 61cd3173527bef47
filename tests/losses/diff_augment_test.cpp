#include "losses/diff_augment.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "tests/losses/support.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::losses {
namespace {

using base::message_of;
using base::UserError;

SampleKeys keys_of(int64_t count, int64_t start = 0, const std::string& purpose = "augment.real", int64_t step = 3) {
  SampleKeys keys{.seed = 9, .step = step, .purpose = purpose, .samples = {}};
  for (int64_t i = 0; i < count; ++i) keys.samples.push_back(start + i);
  return keys;
}

// The definition pixel by pixel, with draws 0 to 6 of the image's stream.
Tensor augmented_anew(const Tensor& image_3XX, const base::RandomStream& draw, double translation, double cutout) {
  const int64_t side = image_3XX.size(1);
  Tensor x = image_3XX + (draw.uniform(0) - 0.5);
  Tensor grey = (x[0] + x[1] + x[2]) / 3;
  x = grey + (x - grey) * (2.0 * draw.uniform(1));
  x = x.mean() + (x - x.mean()) * (draw.uniform(2) + 0.5);
  const auto reach = static_cast<int64_t>(translation * static_cast<double>(side));
  auto shift = [&](uint64_t i) {
    return static_cast<int64_t>(draw.below(i, static_cast<uint64_t>(2 * reach + 1))) - reach;
  };
  const auto size = static_cast<int64_t>(cutout * static_cast<double>(side));
  auto corner = [&](uint64_t i) {
    return static_cast<int64_t>(draw.below(i, static_cast<uint64_t>(side + 1 - size % 2))) - size / 2;
  };
  Tensor y = at::zeros_like(x);
  for (int64_t r = 0; r < side; ++r) {
    for (int64_t c = 0; c < side; ++c) {
      const int64_t from_r = r + shift(3), from_c = c + shift(4);
      const bool outside = from_r < 0 || from_c < 0 || from_r >= side || from_c >= side;
      const bool cut = r >= corner(5) && r < corner(5) + size && c >= corner(6) && c < corner(6) + size;
      for (int64_t k = 0; k < 3 && !outside && !cut; ++k) y[k][r][c] = x[k][from_r][from_c];
    }
  }
  return y;
}

TEST(DiffAugment, IsItsDefinitionPixelByPixel) {
  const Tensor image = test_image("a", 4, 16);
  const SampleKeys keys = keys_of(4, 70);
  const Tensor got = diff_augment({.translation = 0.2, .cutout = 0.45}, image, keys);
  for (int64_t i = 0; i < 4; ++i) {
    const base::RandomStream draw(9, "augment.real", uint64_t{3}, static_cast<uint64_t>(70 + i));
    EXPECT_LE(worst(got[i], augmented_anew(image[i], draw, 0.2, 0.45)), 1e-14) << i;
  }
}

TEST(DiffAugment, IsTheSameInEveryLayout) {
  const DiffAugmentConfig config{.probability = 0.7};
  const Tensor image = test_image("a", 7, 16).to(at::kFloat);
  const Tensor whole = diff_augment(config, image, keys_of(7));
  const Tensor parts = at::cat({diff_augment(config, image.slice(0, 0, 3), keys_of(3)),
                                diff_augment(config, image.slice(0, 3), keys_of(4, 3))});
  EXPECT_TRUE(at::equal(whole, parts));
  EXPECT_FALSE(at::equal(whole, diff_augment(config, image, keys_of(7, 0, "augment.fake"))));
  EXPECT_FALSE(at::equal(whole, diff_augment(config, image, keys_of(7, 0, "augment.real", 4))));
}

TEST(DiffAugment, GradientIsThatOfFiniteDifferences) {
  const Tensor image = test_image("a", 3, 16);
  const DiffAugmentConfig config{.cutout = 0.3, .probability = 0.8};
  auto loss = [&] { return diff_augment(config, image, keys_of(3)).pow(3).sum(); };
  EXPECT_LE(difference_error(loss, image, 1e-5), 1e-7);
}

TEST(DiffAugment, EachPartIsAppliedWithItsProbability) {
  // On a constant image each part leaves its own trace: colour another constant, translation and cutout zeros.
  const Tensor image = at::full({400, 3, 8, 8}, 2.0, at::kDouble);
  auto changed = [&](const DiffAugmentConfig& config) {
    return diff_augment(config, image, keys_of(400)).ne(image).flatten(1).any(1).sum().item<int64_t>();
  };
  // Deviation of a share of 400: 9.8 at one quarter or three. Translation by (0, 0) of 3 x 3 shifts leaves no trace.
  EXPECT_NEAR(changed({.color = true, .translation = 0, .cutout = 0, .probability = 0.25}), 100, 40);
  EXPECT_NEAR(changed({.color = false, .translation = 0, .cutout = 0.5, .probability = 0.25}), 100, 40);
  EXPECT_NEAR(changed({.color = false, .translation = 0.125, .cutout = 0, .probability = 0.25}), 89, 40);
  EXPECT_EQ(changed({.color = false, .translation = 0, .cutout = 0.5, .probability = 1}), 400);
  EXPECT_EQ(changed({.color = false, .translation = 0, .cutout = 0, .probability = 1}), 0);
}

TEST(DiffAugment, SaysWhichSettingIsOutOfRange) {
  auto said = [](const DiffAugmentConfig& config) { return message_of<UserError>([&] { config.check(); }); };
  EXPECT_EQ(said({.translation = 2}), "translation is 2, expected 0 to 1");
  EXPECT_EQ(said({.cutout = -1}), "cutout is -1, expected 0 to 1");
  EXPECT_EQ(said({.probability = 0}), "probability is 0, expected above 0 and at most 1");
}

}  // namespace
}  // namespace varscale::losses
