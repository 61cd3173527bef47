#include "evaluate/inception.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/parity.hpp"
#include "tests/support/pth.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::evaluate {
namespace {

using base::message_of;
using base::UserError;
using testing::HasSubstr;
using testing::StartsWith;

std::filesystem::path fixture(const char* name) {
  return std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / name;
}

const Inception::Weights& hash_weights() {
  static const Inception::Weights weights = [] {
    Inception::Weights all;
    for (const auto& [name, tensor] : Inception::state())
      all[name] = test::hash_param(name, tensor.sizes(), 1, name.ends_with("conv.weight") ? std::sqrt(2.0) : 1);
    return all;
  }();
  return weights;
}

TEST(Inception, EqualsThePublicNetworkInEveryBlock) {
  const base::SafetensorsFile file(fixture("inception_fid.safetensors"));
  const Inception network(hash_weights(), "hash weights", "");
  for (const std::string prefix : {"img64.", "img256."}) {
    test::Parity parity(prefix + "inception");
    const auto want = [&](const std::string& key) { return nn::load_tensor(file, prefix + key); };
    int64_t blocks = 0;
    const Inception::Output out =
        network.run(want("image_u8"), [&](std::string_view block, const Tensor& output) {
          const std::string key = block == "input" ? "input.stat" : fmt::format("block.{}", block);
          parity.check_stat(prefix + key, output, want(key), 1e-5);
          ++blocks;
        });
    EXPECT_EQ(blocks, 19);
    parity.check_tensor("pool3", out.pool3_BD, want("pool3"), 1e-5);
    parity.check_tensor("sfid", out.spatial_BE, want("sfid"), 1e-5);
    parity.check_stat(prefix + "sfid.stat", out.spatial_BE, want("sfid.stat"), 1e-5);
    const Tensor logits_BC = network.logits(out.pool3_BD);
    parity.check_tensor("logits", logits_BC, want("logits_unbiased"), 1e-5);
    parity.check_tensor("softmax", at::softmax(logits_BC, 1), want("softmax_unbiased"), 1e-5);
  }
}

TEST(ResizeTf1, EqualsTensorFlowOnRamps) {
  const base::SafetensorsFile file(fixture("inception_fid.safetensors"));
  const auto resized = [](const Tensor& x_HW, int64_t height, int64_t width) {
    return resize_tf1(x_HW.view({1, 1, x_HW.size(0), x_HW.size(1)}), height, width).view({height, width});
  };
  const Tensor nine = resized(nn::load_tensor(file, "resize.ramp4"), 9, 9);
  EXPECT_TRUE(at::allclose(nine, nn::load_tensor(file, "resize.ramp9"), 1e-6, 1e-6)) << nine;
  const Tensor tall = resized(at::arange(15, at::kFloat).view({3, 5}), 7, 2);
  EXPECT_TRUE(at::allclose(tall, nn::load_tensor(file, "resize.ramp3x5_to_7x2"), 1e-6, 1e-6)) << tall;
  const Tensor same = test::hash_v("x", {6, 5}).to(at::kFloat);
  EXPECT_TRUE(at::equal(resized(same, 6, 5), same));
}

TEST(Inception, HasThePublicNamesAndShapesInOrder) {
  const auto names = base::parse_json(base::read_file(fixture("names.json"))).at("fid_inception_v3").at("state_dict");
  const nn::NamedTensors state = Inception::state();
  ASSERT_EQ(state.size(), names.size());
  for (size_t i = 0; i < state.size(); ++i) {
    EXPECT_EQ(state[i].name, names[i][0].get<std::string>());
    EXPECT_EQ(state[i].tensor.sizes().vec(), names[i][3].get<std::vector<int64_t>>()) << state[i].name;
  }
}

TEST(Inception, ReadsAFileWithoutCountersAndNamesItsNetworkByItsWeights) {
  const base::TemporaryFolder folder;
  nn::NamedTensors stored;
  for (const auto& [name, tensor] : hash_weights()) {
    if (!name.ends_with("num_batches_tracked")) stored.push_back({name, tensor});
  }
  nn::save_tensors(folder / "w.safetensors", stored);
  const Inception direct(hash_weights(), "hash weights", "");
  const Inception read = Inception::load(folder / "w.safetensors");
  EXPECT_EQ(read.identity(), direct.identity());
  EXPECT_EQ(read.name(), "inception-" + read.identity().substr(0, 8));
  EXPECT_FALSE(read.is_random());
  EXPECT_EQ(frechet_name(read), "FD-" + read.name());
  EXPECT_EQ(frechet_name(Inception(hash_weights(), "hash weights", kFidNetwork)), "FID");
}

TEST(Inception, ReadsAFileOfTorchAsTheSameNetwork) {
  const base::TemporaryFolder folder;
  nn::NamedTensors stored;
  for (const auto& [name, tensor] : hash_weights()) stored.push_back({name, tensor});
  test::write_pth(folder / "w.pth", stored);
  EXPECT_EQ(Inception::load(folder / "w.pth").identity(), Inception(hash_weights(), "hash weights", "").identity());
  stored.push_back({"AuxLogits.fc.weight", at::zeros({2})});
  test::write_pth(folder / "aux.pth", stored);
  EXPECT_THAT(message_of<UserError>([&] { Inception::load(folder / "aux.pth"); }),
              HasSubstr("aux.pth: unexpected tensor AuxLogits.fc.weight"));
}

TEST(Inception, RefusesWeightsOfAnotherNetwork) {
  const auto refusal = [](auto change) {
    Inception::Weights weights = hash_weights();
    change(weights);
    return message_of<UserError>([&] { Inception(weights, "w.safetensors", ""); });
  };
  EXPECT_THAT(refusal([](auto& w) {
                w["Mixed_5b.branch1x1.conv.weigth"] = w["Mixed_5b.branch1x1.conv.weight"];
                w.erase("Mixed_5b.branch1x1.conv.weight");
              }),
              StartsWith("w.safetensors: holds no tensor Mixed_5b.branch1x1.conv.weight; did you mean "
                         "Mixed_5b.branch1x1.conv.weigth?"));
  EXPECT_EQ(refusal([](auto& w) { w["fc.weight"] = at::zeros({1000, 2048}); }),
            "w.safetensors: fc.weight has shape [1000, 2048], expected [1008, 2048]");
  EXPECT_THAT(refusal([](auto& w) { w["AuxLogits.fc.weight"] = at::zeros({2}); }),
              HasSubstr("unexpected tensor AuxLogits.fc.weight"));
  EXPECT_EQ(refusal([](auto& w) { w["fc.weight"] = w["fc.weight"].to(at::kChar); }),
            "w.safetensors: fc.weight has dtype Char, expected floating point");
  EXPECT_THAT(refusal([](auto& w) {
                w["Mixed_7c.branch_pool.bn.bias"] =
                    at::full({192}, std::numeric_limits<float>::quiet_NaN());
              }),
              HasSubstr("Mixed_7c.branch_pool.bn.bias holds a value that is not a finite number"));
}

TEST(Inception, RandomFeaturesAreAFunctionOfTheSeedAndDoNotCollapse) {
  const Inception network = Inception::random(0);
  EXPECT_EQ(network.name(), "random inception, seed 0");
  EXPECT_EQ(frechet_name(network), "FD-random");
  EXPECT_EQ(network.identity(), Inception::random(0).identity());
  EXPECT_NE(network.identity(), Inception::random(1).identity());

  // Two kinds of images, two of each: features of one kind lie nearer to each other than to the other kind's.
  const Tensor noise = test::hash_int_tensor("noise", {2, 3, 32, 32}, 256).to(at::kByte);
  const Tensor smooth = (test::hash_v("smooth", {2, 3, 2, 2}) * 100 + 128).repeat_interleave(16, 2)
                            .repeat_interleave(16, 3).to(at::kByte);
  const Tensor features_BD = network.batch(at::cat({noise, smooth}));
  const double scale = features_BD.square().mean().sqrt().item<double>();
  EXPECT_GT(scale, 0.1);
  EXPECT_LT(scale, 10);
  const auto apart = [&](int i, int j) {
    return (features_BD[i] - features_BD[j]).square().mean().sqrt().template item<double>() / scale;
  };
  EXPECT_GT(apart(0, 2), 0.1);
  EXPECT_LT(apart(0, 1), apart(0, 2));
  EXPECT_LT(apart(2, 3), apart(1, 3));
}

}  // namespace
}  // namespace varscale::evaluate
