#include "evaluate/resnet.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "base/error.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/python.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::evaluate {
namespace {

using base::message_of;
using base::UserError;
using testing::HasSubstr;

constexpr int64_t kClasses = 5;

ResNet50::Weights made_weights() {
  ResNet50::Weights weights;
  for (const auto& [name, tensor] : ResNet50::state(kClasses)) {
    weights[name] = test::hash_param(name, tensor.sizes(), 1, tensor.dim() == 4 ? std::sqrt(2.0) : 1);
    // Sums over sixteen blocks stay of one size.
    if (name.ends_with("bn3.weight")) weights[name].mul_(0.3);
  }
  return weights;
}

void save(const std::filesystem::path& path, const ResNet50::Weights& weights) {
  nn::NamedTensors tensors;
  for (const auto& [name, tensor] : weights) tensors.push_back({name, tensor});
  nn::save_tensors(path, tensors);
}

// The forward pass in numpy and float64, layer by layer as torchvision's resnet.py has it, batch norms on their own;
// and Pillow's resize, which torchvision's preprocessing is made of.
constexpr const char* kForward = R"(
import sys
import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

w = {name: value.astype(np.float64) for name, value in load_file(sys.argv[1] + "/weights.safetensors").items()}
given = load_file(sys.argv[1] + "/given.safetensors")

def conv(x, name, stride, pad):
    k = w[name + ".weight"]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, k.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bihwyx,oiyx->bohw", windows, k, optimize=True)

def norm(x, name):
    part = lambda p: w[name + "." + p][None, :, None, None]
    return (x - part("running_mean")) / np.sqrt(part("running_var") + 1e-5) * part("weight") + part("bias")

relu = lambda x: np.maximum(x, 0)

def block(x, name, stride):
    y = relu(norm(conv(x, name + ".conv1", 1, 0), name + ".bn1"))
    y = relu(norm(conv(y, name + ".conv2", stride, 1), name + ".bn2"))
    y = norm(conv(y, name + ".conv3", 1, 0), name + ".bn3")
    if name + ".downsample.0.weight" in w:
        x = norm(conv(x, name + ".downsample.0", stride, 0), name + ".downsample.1")
    return relu(x + y)

x = relu(norm(conv(given["x"].astype(np.float64), "conv1", 2, 3), "bn1"))
x = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].max((4, 5))
for layer, (blocks, stride) in enumerate([(3, 1), (4, 2), (6, 2), (3, 2)], 1):
    for i in range(blocks):
        x = block(x, f"layer{layer}.{i}", stride if i == 0 else 1)
logits = x.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]

prepared = []
for image in given["images"]:
    short = min(image.shape[:2])
    size = (image.shape[1] * 256 // short, image.shape[0] * 256 // short)
    image = np.asarray(Image.fromarray(image).resize(size, Image.BILINEAR), np.float64) / 255
    top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
    image = image[top : top + 224, left : left + 224]
    prepared.append(((image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1))
save_file({"logits": logits, "prepared": np.stack(prepared)}, sys.argv[1] + "/wanted.safetensors")
)";

TEST(ResNet50, EqualsTheLayersOfTorchvisionInNumpy) {
  const base::TemporaryFolder folder;
  save(folder / "weights.safetensors", made_weights());
  const Tensor x = (2 * test::hash_v("x", {2, 3, 64, 96})).to(at::kFloat);
  const Tensor images_BHWC = at::cat({test::hash_int_tensor("image", {1, 90, 60, 3}, 256),
                                      test::hash_int_tensor("other", {1, 90, 60, 3}, 100)})
                                 .to(at::kByte);
  nn::save_tensors(folder / "given.safetensors", {{"x", x}, {"images", images_BHWC}});
  test::run_python(kForward, folder.path());
  const base::SafetensorsFile wanted(folder / "wanted.safetensors");

  const ResNet50 network = ResNet50::load(folder / "weights.safetensors");
  EXPECT_EQ(network.classes(), kClasses);
  EXPECT_EQ(network.identity(), ResNet50(made_weights(), "made").identity());
  const Tensor want = nn::load_tensor(wanted, "logits"), got = network.logits(x).to(at::kDouble);
  const double scale = want.abs().max().item<double>();
  EXPECT_GT((want[0] - want[1]).abs().max().item<double>(), 0.01 * scale) << "the images are one to it";
  EXPECT_LT((got - want).abs().max().item<double>(), 1e-5 * scale);

  // Pillow rounds to grey levels after each of its two passes: at most one, the smallest deviation 0.224.
  const Tensor prepared = ResNet50::prepare(images_BHWC.permute({0, 3, 1, 2}));
  ASSERT_EQ(prepared.sizes(), (std::vector<int64_t>{2, 3, 224, 224}));
  EXPECT_LT((prepared - nn::load_tensor(wanted, "prepared")).abs().max().item<double>(), 1.01 / 255 / 0.224);
}

TEST(ResNet50, TakesImagesOfItsOwnSizeAsTheyAre) {
  const Tensor images = test::hash_int_tensor("image", {1, 3, 256, 256}, 256).to(at::kByte);
  const Tensor prepared = ResNet50::prepare(images);
  const float pixel = images[0][2][16 + 7][16 + 9].item<float>() / 255;
  EXPECT_NEAR(prepared[0][2][7][9].item<float>(), (pixel - 0.406) / 0.225, 1e-6);
  const ResNet50 network(made_weights(), "made");
  const Tensor p_BK = network.probabilities(images);
  EXPECT_EQ(p_BK.sizes(), (std::vector<int64_t>{1, kClasses}));
  EXPECT_NEAR(p_BK.sum().item<double>(), 1, 1e-12);
  EXPECT_TRUE(at::allclose(p_BK, at::softmax(network.logits(prepared).to(at::kDouble), 1), 1e-12, 0));
}

TEST(ResNet50, HasTorchvisionsNames) {
  const nn::NamedTensors state = ResNet50::state(1000);
  EXPECT_EQ(state.size(), 320u);
  int64_t parameters = 0;
  for (const auto& [name, tensor] : state)
    if (!name.ends_with("num_batches_tracked") && name.find("running") == std::string::npos)
      parameters += tensor.numel();
  EXPECT_EQ(parameters, 25'557'032);  // as torchvision's documentation has it
  EXPECT_EQ(state[0].name, "conv1.weight");
  EXPECT_EQ(state[1].name, "bn1.weight");
}

TEST(ResNet50, RefusesWeightsOfAnotherNetwork) {
  const auto refusal = [](auto change) {
    ResNet50::Weights weights = made_weights();
    change(weights);
    return message_of<UserError>([&] { ResNet50(weights, "w.safetensors"); });
  };
  EXPECT_THAT(refusal([](auto& w) { w.erase("layer3.5.conv2.weight"); }),
              HasSubstr("w.safetensors: holds no tensor layer3.5.conv2.weight"));
  EXPECT_EQ(refusal([](auto& w) {
              w["layer1.0.conv2.weight"] = at::zeros({64, 64, 1, 1});
            }),
            "w.safetensors: layer1.0.conv2.weight has shape [64, 64, 1, 1], expected [64, 64, 3, 3]");
  EXPECT_THAT(refusal([](auto& w) {
                w["layer3.6.conv1.weight"] = at::zeros({256, 1024, 1, 1});
              }),
              HasSubstr("unexpected tensor layer3.6.conv1.weight; ResNet-50 has none of that name"));
  EXPECT_THAT(refusal([](auto& w) {
                w["fc.weight"] = at::zeros({kClasses + 1, 2048});
              }),
              HasSubstr("fc.weight has shape [6, 2048], expected [5, 2048]"));
  EXPECT_THAT(refusal([](auto& w) { w["conv1.weight"] = w["conv1.weight"].to(at::kInt); }),
              HasSubstr("w.safetensors: conv1.weight has dtype Int, expected floating point"));
  EXPECT_THAT(refusal([](auto& w) { w["bn1.bias"][3] = std::numeric_limits<float>::infinity(); }),
              HasSubstr("bn1.bias holds a value that is not a finite number"));
}

}  // namespace
}  // namespace varscale::evaluate
