#include "losses/patch_gan.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "losses/adversarial.hpp"
#include "tests/losses/support.hpp"
#include "tests/support/parity.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::losses {
namespace {

using base::message_of;
using base::UserError;

PatchGanConfig tiny() { return {.image_side = 32, .channels = 4, .layers = 3, .groups = 4}; }

PatchGan hash_patch_gan(at::ScalarType compute) {
  PatchGan discriminator(tiny(), {.compute = compute});
  test::fill_hash_weights(discriminator.parameters());
  return discriminator;
}

TEST(PatchGan, EqualsTheSumsWrittenAnew) {
  const base::SafetensorsFile file(source_file("tests/losses/networks.safetensors"));
  const Tensor want = nn::load_tensor(file, "patch_gan_logits");
  const Tensor image = test_image("input.image", 2, 32).to(at::kFloat);
  test::Parity parity("patch_gan");
  parity.check_tensor("float64", hash_patch_gan(at::kDouble).logits(image), want, 1e-12);
  parity.check_tensor("float32", hash_patch_gan(at::kFloat).logits(image), want, 1e-5);
  test::Parity("patch_gan in bfloat16").check_tensor("logits", hash_patch_gan(at::kBFloat16).logits(image), want, 0.05);
}

TEST(PatchGan, HasThePublicNetworksNamesAndShapes) {
  const PatchGan discriminator({.image_side = 256});
  std::vector<std::string> names;
  for (const auto& [name, tensor] : discriminator.parameters()) names.push_back(name);
  const std::vector<std::string> want = {"main.0.weight", "main.0.bias",   "main.2.weight", "main.3.weight",
                                         "main.3.bias",   "main.5.weight", "main.6.weight", "main.6.bias",
                                         "main.8.weight", "main.9.weight", "main.9.bias",   "main.11.weight",
                                         "main.11.bias"};
  EXPECT_EQ(names, want);
  // 3x64, 64x128, 128x256, 256x512, 512x1 convolutions of 16 places, biases of the first and last, norms.
  EXPECT_EQ(nn::count_elements(discriminator.parameters()),
            16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1 + 2 * (128 + 256 + 512));
  for (const auto& [name, tensor] : discriminator.parameters()) EXPECT_TRUE(tensor.requires_grad()) << name;
  EXPECT_TRUE(discriminator.buffers().empty());
}

TEST(PatchGan, GivesTheMapItsConfigurationPromises) {
  const std::vector<std::pair<int64_t, int64_t>> cases = {{16, 2}, {32, 3}, {36, 2}, {50, 4}, {512, 3}};
  for (const auto& [side, layers] : cases) {
    const PatchGanConfig config{.image_side = side, .channels = 2, .layers = layers, .groups = 2};
    PatchGan discriminator(config);
    discriminator.initialise(0);
    const Tensor logits = discriminator.logits(at::zeros({1, 3, side, side}));
    EXPECT_EQ(logits.sizes(), at::IntArrayRef({1, 1, config.logits_side(), config.logits_side()}));
  }
  EXPECT_EQ(PatchGanConfig({.image_side = 256}).logits_side(), 30);
  EXPECT_EQ(PatchGanConfig({.image_side = 512}).logits_side(), 62);
}

TEST(PatchGan, SaysWhichSettingsDoNotFit) {
  auto said = [](const PatchGanConfig& config) { return message_of<UserError>([&] { PatchGan{config}; }); };
  EXPECT_EQ(said({.image_side = 16}),
            "layers is 3, too many for images of 16 pixels; at most 2 leave a map of logits");
  EXPECT_EQ(said({.image_side = 4, .layers = 1}), "image_side is 4, too small for a PatchGAN, which needs 6 pixels");
  EXPECT_EQ(said({.channels = 24}),
            "groups is 32, which does not divide the 48 channels behind the first convolution");
  EXPECT_EQ(said({.layers = 0}), "layers is 0, expected 1 or more");
}

TEST(PatchGan, StartsAsAFunctionOfSeedAndName) {
  PatchGan one(tiny()), other(tiny());
  one.initialise(5);
  for (const auto& [name, tensor] : one.parameters()) {
    Tensor want = at::zeros(tensor.sizes());
    if (tensor.dim() == 4)
      base::RandomStream(5, "discriminator.init", name)
          .fill_normal(want.mutable_data_ptr<float>(), 0, want.numel(), 0.02F);
    else if (name.ends_with(".weight"))
      want.fill_(1);
    EXPECT_TRUE(at::equal(tensor, want)) << name;
  }
  other.initialise(6);
  EXPECT_FALSE(at::equal(one.parameters()[0].tensor, other.parameters()[0].tensor));
}

TEST(PatchGan, GradientsAreThoseOfFiniteDifferences) {
  const PatchGan discriminator = hash_patch_gan(at::kDouble);
  const Tensor image = test_image("a", 2, 32);
  auto loss = [&] { return discriminator.logits(image).square().sum(); };
  EXPECT_LE(difference_error(loss, image, 1e-6), 1e-6);
  // Gradients of float32 leaves are rounded to 6e-8 of the largest summand.
  for (const auto& [name, tensor] : discriminator.parameters())
    EXPECT_LE(difference_error(loss, tensor, 1e-6), 1e-5) << name;
}

TEST(PatchGan, AnImagesLogitsDoNotDependOnTheOthers) {
  const PatchGan discriminator = hash_patch_gan(at::kDouble);
  const Tensor image = test_image("a", 3, 32);
  const Tensor parts =
      at::cat({discriminator.logits(image.slice(0, 0, 2)), discriminator.logits(image.slice(0, 2))});
  EXPECT_LE(worst(discriminator.logits(image), parts), 1e-14);
}

TEST(PatchGan, GradientPenaltyIsThatOfFiniteDifferences) {
  const PatchGan discriminator = hash_patch_gan(at::kDouble);
  const Tensor image = test_image("a", 2, 32);
  auto penalty = [&] { return r1_penalty([&](const Tensor& x) { return discriminator.logits(x); }, image, 2); };
  // Its value: the squared length of the gradient of each image's mean logit, by the parts of the image alone.
  const Tensor leaf = image.clone().set_requires_grad(true);
  double want = 0;
  for (int64_t i = 0; i < 2; ++i) {
    const Tensor mean = discriminator.logits(leaf)[i].mean();
    want += torch::autograd::grad({mean}, {leaf})[0].square().sum().item<double>() / 2;
  }
  EXPECT_NEAR(penalty().item<double>(), want, 1e-12 * want);
  for (const auto& [name, tensor] : discriminator.parameters()) {
    // The last bias moves all logits alike, the one before it changes no slope.
    if (name == "main.11.bias" || name == "main.9.bias") continue;
    EXPECT_LE(difference_error(penalty, tensor, 1e-6), 1e-4) << name;
  }
}

}  // namespace
}  // namespace varscale::losses
