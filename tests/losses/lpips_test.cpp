#include "losses/lpips.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/random.hpp"
#include "tests/losses/support.hpp"
#include "tests/support/parity.hpp"
#include "tests/support/pth.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::losses {
namespace {

using base::message_of;
using base::UserError;

std::filesystem::path fixture_path() {
  return std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / "lpips.safetensors";
}

// The fixture's weights: convolutions by their names, heads as stored.
const WeightMap& fixture_weights() {
  static const WeightMap map = [] {
    WeightMap made{"fixture", {}};
    int64_t in = 3;
    for (const auto& [number, out] : std::vector<std::pair<int, int64_t>>{{0, 64},
                                                                          {2, 64},
                                                                          {5, 128},
                                                                          {7, 128},
                                                                          {10, 256},
                                                                          {12, 256},
                                                                          {14, 256},
                                                                          {17, 512},
                                                                          {19, 512},
                                                                          {21, 512},
                                                                          {24, 512},
                                                                          {26, 512},
                                                                          {28, 512}}) {
      const std::string name = fmt::format("features.{}.", number);
      made.tensors[name + "weight"] = test::hash_param(name + "weight", {out, in, 3, 3}, 1, std::sqrt(2.0));
      made.tensors[name + "bias"] = test::hash_param(name + "bias", {out});
      in = out;
    }
    const base::SafetensorsFile file(fixture_path());
    for (int i = 0; i < 5; ++i) {
      const std::string name = fmt::format("lin{}", i);
      made.tensors[name] = nn::load_tensor(file, name);
    }
    return made;
  }();
  return map;
}

Tensor pm1(const Tensor& u8) {
  const Tensor x = u8.to(at::kFloat) / 255;
  return x + x - 1;
}

TEST(Lpips, EqualsThePublicPackage) {
  const base::SafetensorsFile file(fixture_path());
  const Tensor a = pm1(nn::load_tensor(file, "a_u8")), b = pm1(nn::load_tensor(file, "b_u8"));
  const Lpips lpips(fixture_weights());
  test::Parity parity("lpips");
  const Tensor layers = lpips.layer_distances(a, b);
  parity.check_tensor("distance", layers.sum(1), nn::load_tensor(file, "distance")[1], 2e-6);
  parity.check_tensor("per_layer", layers, nn::load_tensor(file, "per_layer")[1], 2e-6);
  const std::vector<Tensor> features = lpips.features(a);
  const std::array<std::string, 5> names = {"relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"};
  for (size_t i = 0; i < names.size(); ++i)
    parity.check_stat("feat_a." + names[i], features[i], nn::load_tensor(file, "feat_a." + names[i]), 1e-5);
  EXPECT_EQ(parity.checks(), 7);

  // The same network with bfloat16 convolutions: 8 bits of mantissa, 13 layers.
  const Lpips half(fixture_weights(), {.compute = at::kBFloat16});
  const Tensor rough = half.distances(a, b);
  EXPECT_EQ(rough.scalar_type(), at::kFloat);
  test::Parity("lpips in bfloat16").check_tensor("distance", rough, nn::load_tensor(file, "distance")[1], 0.03);
  EXPECT_EQ(half.identity(), lpips.identity());
}

TEST(Lpips, GradientIsThatOfFiniteDifferences) {
  const Lpips lpips(fixture_weights(), {.compute = at::kDouble});
  const Tensor a = test_image("a", 1, 16), b = test_image("b", 1, 16);
  EXPECT_LE(difference_error([&] { return lpips.distances(a, b).sum(); }, a, 1e-6), 1e-5);
}

TEST(Lpips, EqualImagesAreAtDistanceZeroWithFiniteGradient) {
  const Lpips lpips(fixture_weights());
  const Tensor a = at::full({1, 3, 16, 16}, -0.03).set_requires_grad(true);
  const Tensor distance = lpips.distances(a, a.detach());
  EXPECT_EQ(distance.item<float>(), 0);
  const Tensor gradient = torch::autograd::grad({distance.sum()}, {a})[0];
  EXPECT_EQ(gradient.abs().max().item<float>(), 0);

  // All features of all places are zero here: no length to divide by.
  WeightMap dead = fixture_weights();
  for (auto& [name, tensor] : dead.tensors)
    if (name.ends_with(".bias")) tensor = at::full_like(tensor, -1e6);
  const Tensor nothing = Lpips(dead).distances(a, test_image("b", 1, 16).to(at::kFloat));
  EXPECT_EQ(nothing.item<float>(), 0);
  EXPECT_EQ(torch::autograd::grad({nothing.sum()}, {a})[0].abs().max().item<float>(), 0);
}

// Convolutions of one and of three images take other paths: the last bits differ.
TEST(Lpips, AnImagesDistanceDoesNotDependOnTheOthers) {
  const Lpips lpips(fixture_weights(), {.compute = at::kDouble});
  const Tensor a = test_image("a", 3, 16), b = test_image("b", 3, 16);
  const Tensor whole = lpips.distances(a, b);
  const Tensor parts = at::cat({lpips.distances(a.slice(0, 0, 1), b.slice(0, 0, 1)),
                                lpips.distances(a.slice(0, 1), b.slice(0, 1))});
  EXPECT_LE(worst(whole, parts), 1e-14);
}

TEST(Lpips, ReadsBothFormsOfTheHeadsFromOneFileOrTwo) {
  const base::TemporaryFolder folder;
  nn::NamedTensors convolutions, heads, all;
  for (const auto& [name, tensor] : fixture_weights().tensors) {
    if (name.starts_with("lin"))
      heads.push_back({name + ".model.1.weight", tensor.view({1, -1, 1, 1})});
    else
      convolutions.push_back({name, tensor});
    all.push_back({name, tensor});
  }
  convolutions.push_back({"classifier.0.weight", at::zeros({2, 2})});
  nn::save_tensors(folder / "vgg.safetensors", convolutions);
  nn::save_tensors(folder / "heads.safetensors", heads);
  nn::save_tensors(folder / "all.safetensors", all);
  const Lpips two(read_weights({folder / "vgg.safetensors", folder / "heads.safetensors"}));
  const Lpips one(read_weights({folder / "all.safetensors"}));
  EXPECT_EQ(two.identity(), one.identity());
  EXPECT_EQ(two.identity(), Lpips(fixture_weights()).identity());
  EXPECT_TRUE(two.identity().starts_with("lpips_vgg16:"));

  const std::string twice = message_of<UserError>([&] {
    read_weights({folder / "vgg.safetensors", folder / "all.safetensors"});
  });
  EXPECT_NE(twice.find("all.safetensors: tensor 'features.0.bias' is in "), std::string::npos) << twice;
  const std::string half = message_of<UserError>([&] { Lpips(read_weights({folder / "vgg.safetensors"})); });
  EXPECT_NE(half.find("vgg.safetensors: no tensor 'lin0.model.1.weight' or 'lin0'"), std::string::npos) << half;
}

TEST(Lpips, ReadsFilesOfTorchAsTheSameWeightsAndNothingThatItDoesNotTake) {
  const base::TemporaryFolder folder;
  nn::NamedTensors all;
  for (const auto& [name, tensor] : fixture_weights().tensors)
    all.push_back({name.starts_with("lin") ? name + ".model.1.weight" : name,
                   name.starts_with("lin") ? tensor.view({1, -1, 1, 1}) : tensor});
  nn::NamedTensors convolutions(all.begin(), all.begin() + 26), heads(all.begin() + 26, all.end());
  convolutions.push_back({"classifier.0.weight", at::ones({512, 512})});
  test::write_pth(folder / "vgg.pth", convolutions);
  test::write_pth(folder / "heads.pth", heads);
  nn::save_tensors(folder / "heads.safetensors", heads);
  const std::string identity = Lpips(fixture_weights()).identity();
  EXPECT_EQ(Lpips(read_weights({folder / "vgg.pth", folder / "heads.pth"})).identity(), identity);
  EXPECT_EQ(Lpips(read_weights({folder / "vgg.pth", folder / "heads.safetensors"})).identity(), identity);

  // The entry of the classifier, whose checksum then fails, is found where it is read alone.
  std::string bytes = base::read_file(folder / "vgg.pth");
  const std::string ones(reinterpret_cast<const char*>(convolutions.back().tensor.const_data_ptr<float>()), 4096);
  const size_t at = bytes.find(ones);
  ASSERT_NE(at, std::string::npos);
  bytes[at + 1] ^= 1;
  folder.write("damaged.pth", bytes);
  const WeightMap damaged = read_weights({folder / "damaged.pth", folder / "heads.pth"});
  EXPECT_EQ(Lpips(damaged).identity(), identity);
  EXPECT_THAT(message_of<UserError>([&] { nn::load_tensor(*damaged.stored.at("classifier.0.weight"), "classifier.0.weight"); }),
              testing::HasSubstr("is damaged"));
  const std::string half = message_of<UserError>([&] { Lpips(read_weights({folder / "vgg.pth"})); });
  EXPECT_NE(half.find("vgg.pth: no tensor 'lin0.model.1.weight' or 'lin0'"), std::string::npos) << half;
}

TEST(Lpips, RefusesWeightsOfAnotherNetwork) {
  auto said = [](const std::function<void(WeightMap&)>& change) {
    WeightMap map = fixture_weights();
    change(map);
    return message_of<UserError>([&] { Lpips{map}; });
  };
  EXPECT_EQ(said([](WeightMap& map) { map.tensors.erase("features.17.weight"); }),
            "fixture: no tensor 'features.17.weight', which LPIPS of VGG16 has");
  EXPECT_EQ(said([](WeightMap& map) { map.tensors["features.5.bias"] = at::zeros({64}); }),
            "fixture: features.5.bias has shape [64], expected [128] for LPIPS of VGG16");
  EXPECT_EQ(said([](WeightMap& map) { map.tensors["lin2"] = at::zeros({512}); }),
            "fixture: lin2 has shape [512], expected [256] for LPIPS of VGG16");
  EXPECT_EQ(said([](WeightMap& map) { map.tensors["features.30.weight"] = at::zeros({2}); }),
            "fixture: unexpected tensor 'features.30.weight'; LPIPS of VGG16 has none of that name");
  EXPECT_EQ(said([](WeightMap& map) { map.tensors["lin1"] = at::zeros({128}, at::kLong); }),
            "fixture: lin1 has dtype Long, expected floating point");
}

TEST(Lpips, MadeWeightsAreAFunctionOfTheSeed) {
  const Lpips one = Lpips::hash_made(3), same = Lpips::hash_made(3), other = Lpips::hash_made(4);
  EXPECT_EQ(one.identity(), same.identity());
  EXPECT_NE(one.identity(), other.identity());
  EXPECT_TRUE(one.identity().starts_with("lpips_vgg16:made:"));
  const Tensor a = test_image("a", 2, 16).to(at::kFloat), b = test_image("b", 2, 16).to(at::kFloat);
  const Tensor distance = one.distances(a, b);
  EXPECT_TRUE(at::equal(distance, same.distances(a, b)));
  EXPECT_GT(distance.min().item<float>(), 0.01);
}

}  // namespace
}  // namespace varscale::losses
