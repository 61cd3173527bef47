#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "base/random.hpp"
#include "losses/adversarial.hpp"
#include "losses/dino_discriminator.hpp"
#include "tests/losses/support.hpp"
#include "tests/support/parity.hpp"
#include "tests/support/pth.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::losses {
namespace {

using base::message_of;
using base::UserError;

DinoVitConfig tiny_vit() {
  return {.image_side = 32, .patch = 8, .width = 24, .depth = 4, .heads = 3, .taps = {1, 3}};
}

// The names of the public state dict, with those after the last feature.
WeightMap hash_weights(int64_t depth = 4) {
  WeightMap map{"fixture", {}};
  auto add = [&](const std::string& name, std::vector<int64_t> shape) {
    map.tensors[name] = test::hash_param(name, shape);
  };
  add("cls_token", {1, 1, 24}), add("pos_embed", {1, 17, 24});
  add("patch_embed.proj.weight", {24, 3, 8, 8}), add("patch_embed.proj.bias", {24});
  for (int64_t i = 0; i < depth; ++i) {
    for (const auto& [name, shape] : std::vector<std::pair<std::string, std::vector<int64_t>>>{
             {"norm1", {24}}, {"attn.qkv", {72, 24}}, {"attn.proj", {24, 24}}, {"norm2", {24}}, {"mlp.fc1", {96, 24}},
             {"mlp.fc2", {24, 96}}}) {
      add(fmt::format("blocks.{}.{}.weight", i, name), shape);
      add(fmt::format("blocks.{}.{}.bias", i, name), {shape[0]});
    }
  }
  add("norm.weight", {24}), add("norm.bias", {24});
  return map;
}

DinoDiscriminator hash_discriminator(at::ScalarType compute, DinoDiscriminatorConfig config = {.image_side = 32}) {
  config.groups = 4;
  DinoDiscriminator discriminator(DinoVit(hash_weights(), tiny_vit(), {.compute = compute}), config,
                                  {.compute = compute});
  discriminator.initialise(0);
  test::fill_hash_weights(discriminator.parameters());
  return discriminator;
}

// `first` keys from global sample `start`.
SampleKeys keys_of(int64_t count, int64_t start = 0, int64_t step = 3) {
  SampleKeys keys{.seed = 9, .step = step, .purpose = "view", .samples = {}};
  for (int64_t i = 0; i < count; ++i) keys.samples.push_back(start + i);
  return keys;
}

TEST(Dino, EqualsTheNetworkWrittenAnew) {
  const base::SafetensorsFile file(source_file("tests/losses/networks.safetensors"));
  const Tensor image = test_image("input.image", 2, 32).to(at::kFloat);
  for (const auto& [compute, feature_tol, logit_tol] : std::vector<std::tuple<at::ScalarType, double, double>>{
           {at::kDouble, 1e-12, 1e-6}, {at::kFloat, 1e-5, 1e-5}, {at::kBFloat16, 0.05, 0.1}}) {
    DinoDiscriminator discriminator = hash_discriminator(compute);
    for (int i = 0; i < 2000; ++i) discriminator.advance();  // until the singular values are exact
    const std::vector<Tensor> features = discriminator.vit().features(image);
    ASSERT_EQ(features.size(), 3U);
    test::Parity parity(fmt::format("dino in {}", at::toString(compute)));
    for (int i = 0; i < 3; ++i) {
      const std::string key = fmt::format("feature.{}", i);
      parity.check_tensor(key, features[i], nn::load_tensor(file, key), feature_tol);
    }
    parity.check_tensor("logits", discriminator.logits(image), nn::load_tensor(file, "dino_logits"), logit_tol);
  }
}

TEST(DinoVit, GradientIsThatOfFiniteDifferences) {
  const DinoVit vit(hash_weights(), tiny_vit(), {.compute = at::kDouble});
  const Tensor image = test_image("a", 1, 32);
  auto loss = [&] {
    Tensor sum = at::zeros({}, at::kDouble);
    for (const Tensor& feature : vit.features(image)) sum = sum + feature.square().sum();
    return sum;
  };
  EXPECT_LE(difference_error(loss, image, 1e-5), 1e-7);
}

TEST(DinoVit, ReadsAFileOfTorch) {
  const base::TemporaryFolder folder;
  nn::NamedTensors stored;
  for (const auto& [name, tensor] : hash_weights().tensors) stored.push_back({name, tensor});
  test::write_pth(folder / "dino.pth", stored);
  const DinoVit read(read_weights({folder / "dino.pth"}), tiny_vit());
  EXPECT_EQ(read.identity(), DinoVit(hash_weights(), tiny_vit()).identity());
  stored.push_back({"blocks.4.norm1.weight", at::zeros({24})});
  test::write_pth(folder / "deeper.pth", stored);
  EXPECT_NE(message_of<UserError>([&] { DinoVit(read_weights({folder / "deeper.pth"}), tiny_vit()); })
                .find("deeper.pth: unexpected tensor 'blocks.4.norm1.weight'"),
            std::string::npos);
}

TEST(DinoVit, RefusesWeightsOfAnotherNetwork) {
  auto said = [](WeightMap map) { return message_of<UserError>([&] { DinoVit(map, tiny_vit()); }); };
  WeightMap map = hash_weights();
  map.tensors.erase("blocks.2.attn.qkv.bias");
  EXPECT_EQ(said(map),
            "fixture: no tensor 'blocks.2.attn.qkv.bias', which a DINO transformer of width 24, 4 blocks and 16 "
            "patches has");
  map = hash_weights();
  map.tensors["pos_embed"] = at::zeros({1, 26, 24});
  EXPECT_EQ(said(map),
            "fixture: pos_embed has shape [1, 26, 24], expected [1, 17, 24] for a DINO transformer of width 24, 4 "
            "blocks and 16 patches");
  EXPECT_NE(said(hash_weights(5)).find("unexpected tensor 'blocks.4."), std::string::npos);
  auto refused = [](DinoVitConfig config) { return message_of<UserError>([&] { config.check(); }); };
  EXPECT_EQ(refused({.image_side = 100}), "image_side is 100, expected a multiple of patch, 16");
  EXPECT_EQ(refused({.heads = 5}), "width is 384, expected a multiple of heads, 5");
  EXPECT_EQ(refused({.depth = 6}), "taps is [2, 5, 8, 11], expected rising block numbers from 0 to 5");
}

TEST(DinoVit, MadeWeightsHaveThePublicSizesAndAreAFunctionOfTheSeed) {
  const DinoVit one = DinoVit::hash_made(1, tiny_vit()), same = DinoVit::hash_made(1, tiny_vit()),
                other = DinoVit::hash_made(2, tiny_vit());
  EXPECT_EQ(one.identity(), same.identity());
  EXPECT_NE(one.identity(), other.identity());
  EXPECT_TRUE(one.identity().starts_with("dino_vit:made:"));
  const std::vector<Tensor> features = DinoVit::hash_made(1).features(at::zeros({1, 3, 224, 224}));
  ASSERT_EQ(features.size(), 5U);
  for (const Tensor& feature : features) {
    EXPECT_EQ(feature.sizes(), at::IntArrayRef({1, 384, 196}));
    EXPECT_TRUE(feature.isfinite().all().item<bool>());
  }
}

TEST(DinoDiscriminator, StartsAsAFunctionOfSeedAndName) {
  auto made = [](uint64_t seed) {
    DinoDiscriminator d(DinoVit(hash_weights(), tiny_vit()), {.image_side = 32, .groups = 4});
    d.initialise(seed);
    return d;
  };
  const DinoDiscriminator one = made(5), other = made(6);
  EXPECT_EQ(one.parameters().size(), 3U * 10);  // two blocks of four, a convolution of two
  EXPECT_EQ(one.buffers().size(), 3U * 6);
  for (const auto& [name, tensor] : one.parameters()) {
    Tensor want = at::full(tensor.sizes(), name.ends_with("norm.weight") ? 1.0 : 0.0, at::kFloat);
    if (tensor.dim() == 3) {
      const double deviation = 1 / std::sqrt(static_cast<double>(tensor[0].numel()));
      base::RandomStream(5, "discriminator.init", name)
          .fill_normal(want.mutable_data_ptr<float>(), 0, want.numel(), static_cast<float>(deviation));
    }
    EXPECT_TRUE(at::equal(tensor, want)) << name;
    EXPECT_TRUE(tensor.requires_grad()) << name;
  }
  EXPECT_FALSE(at::equal(one.parameters()[0].tensor, other.parameters()[0].tensor));
  EXPECT_FALSE(at::equal(one.buffers()[0].tensor, other.buffers()[0].tensor));
}

TEST(DinoDiscriminator, ParametersAndBuffersAreTheWholeState) {
  DinoDiscriminator one = hash_discriminator(at::kFloat);
  one.advance();
  DinoDiscriminator copy(DinoVit(hash_weights(), tiny_vit()), {.image_side = 32, .groups = 4});
  {
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < one.parameters().size(); ++i)
      copy.parameters()[i].tensor.copy_(one.parameters()[i].tensor);
    for (size_t i = 0; i < one.buffers().size(); ++i) copy.buffers()[i].tensor.copy_(one.buffers()[i].tensor);
  }
  const Tensor image = test_image("a", 1, 32).to(at::kFloat);
  for (int i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::equal(one.logits(image), copy.logits(image)));
    one.advance(), copy.advance();
  }
}

TEST(DinoDiscriminator, GradientsAreThoseOfFiniteDifferences) {
  const DinoDiscriminator discriminator = hash_discriminator(at::kDouble, {.image_side = 40});
  const Tensor image = test_image("a", 2, 40);
  auto loss = [&] { return discriminator.logits(image).square().sum(); };
  EXPECT_LE(difference_error(loss, image, 1e-6), 1e-6);
  auto penalty = [&] { return r1_penalty([&](const Tensor& x) { return discriminator.logits(x); }, image, 2); };
  for (const auto& [name, tensor] : discriminator.parameters()) {
    EXPECT_LE(difference_error(loss, tensor, 1e-6), 1e-5) << name;
    // The last bias moves all logits alike, the one before it changes no slope.
    if (!name.starts_with("heads.1.") || name.ends_with("cls.bias") || name.ends_with("second.norm.bias")) continue;
    EXPECT_LE(difference_error(penalty, tensor, 1e-6), 1e-4) << name;
  }
}

TEST(DinoDiscriminator, ResizesAsAtenDoes) {
  auto resized = [](int64_t side) {
    const DinoDiscriminator discriminator = hash_discriminator(at::kDouble, {.image_side = side});
    return discriminator.view(test_image("a", 2, side), {});
  };
  EXPECT_LE(worst(resized(21), at::upsample_bilinear2d(test_image("a", 2, 21), {32, 32}, false)), 1e-14);
  EXPECT_LE(worst(resized(45), at::adaptive_avg_pool2d(test_image("a", 2, 45), {32, 32})), 1e-14);
  EXPECT_LE(worst(resized(64), at::avg_pool2d(test_image("a", 2, 64), {2, 2})), 1e-14);
  EXPECT_TRUE(at::equal(resized(32), test_image("a", 2, 32)));
}

TEST(DinoDiscriminator, CropsAreFunctionsOfStepAndSample) {
  const DinoDiscriminator discriminator =
      hash_discriminator(at::kDouble, {.image_side = 48, .crop_probability = 0.25});
  const Tensor image = test_image("a", 160, 48);
  const Tensor whole = discriminator.view(image, keys_of(160));
  const Tensor parts = at::cat({discriminator.view(image.slice(0, 0, 13), keys_of(13)),
                                discriminator.view(image.slice(0, 13), keys_of(147, 13))});
  EXPECT_TRUE(at::equal(whole, parts));
  EXPECT_FALSE(at::equal(whole, discriminator.view(image, keys_of(160, 0, 4))));
  int64_t crops = 0;
  for (int64_t i = 0; i < 160; ++i) {
    // A crop is a window of the image; a resized image is not.
    const Tensor corner = whole[i].slice(1, 0, 1).slice(2, 0, 1).flatten();
    const Tensor found = image[i].eq(corner.view({3, 1, 1})).all(0).nonzero();
    if (found.size(0) == 0) continue;
    const int64_t row = found[0][0].item<int64_t>(), column = found[0][1].item<int64_t>();
    ASSERT_TRUE(row <= 16 && column <= 16);
    EXPECT_TRUE(at::equal(whole[i], image[i].narrow(1, row, 32).narrow(2, column, 32)));
    ++crops;
  }
  EXPECT_NEAR(crops, 40, 22);  // four deviations
  EXPECT_LE(worst(discriminator.logits(whole).slice(0, 0, 2), discriminator.logits(parts.slice(0, 0, 2))), 1e-12);
}

TEST(DinoDiscriminator, SaysWhichSettingsDoNotFit) {
  auto said = [](const DinoDiscriminatorConfig& config) {
    return message_of<UserError>([&] { config.check(DinoVitConfig()); });
  };
  EXPECT_EQ(said({.image_side = 224, .crop_probability = 0.5}),
            "crop_probability is 0.5, but images of 224 pixels leave no room for a crop of 224");
  EXPECT_EQ(said({.crop_probability = 1.5}), "crop_probability is 1.5, expected 0 to 1");
  EXPECT_EQ(said({.kernel = 4}), "kernel is 4, expected an odd number up to twice the 196 patches");
  EXPECT_EQ(said({.groups = 5}), "groups is 5, which does not divide the transformer's width, 384");
}

}  // namespace
}  // namespace varscale::losses
