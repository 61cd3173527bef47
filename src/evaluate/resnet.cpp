#include "evaluate/resnet.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/error.hpp"

namespace varscale::evaluate {

namespace {

constexpr double kEps = 1e-5;
constexpr int64_t kShortSide = 256, kSide = 224;
constexpr NetworkWords kWords{"ResNet-50", "a ResNet-50 under torchvision's names"};

struct Stage {
  const char* name;
  int64_t blocks, width, stride;
};
constexpr Stage kStages[] = {{"layer1", 3, 64, 1}, {"layer2", 4, 128, 2}, {"layer3", 6, 256, 2}, {"layer4", 3, 512, 2}};
constexpr int64_t kWiden = 4;

// "conv2" has the norm "bn2", "downsample.0" has "downsample.1".
std::string norm_of(std::string convolution) {
  if (convolution.ends_with("downsample.0")) convolution.back() = '1';
  else convolution.replace(convolution.rfind("conv"), 4, "bn");
  return convolution;
}

void add_unit(nn::NamedTensors& state, const std::string& name, int64_t in, int64_t out, int64_t side) {
  state.push_back({name + ".weight", at::empty({out, in, side, side})});
  for (const char* part : {".weight", ".bias", ".running_mean", ".running_var"})
    state.push_back({norm_of(name) + part, at::empty({out})});
  state.push_back({norm_of(name) + ".num_batches_tracked", at::empty({}, at::kLong)});
}

}  // namespace

nn::NamedTensors ResNet50::state(int64_t classes) {
  nn::NamedTensors state;
  add_unit(state, "conv1", 3, 64, 7);
  int64_t in = 64;
  for (const Stage& stage : kStages) {
    for (int64_t i = 0; i < stage.blocks; ++i) {
      const std::string block = fmt::format("{}.{}", stage.name, i);
      add_unit(state, block + ".conv1", in, stage.width, 1);
      add_unit(state, block + ".conv2", stage.width, stage.width, 3);
      add_unit(state, block + ".conv3", stage.width, kWiden * stage.width, 1);
      if (i == 0) add_unit(state, block + ".downsample.0", in, kWiden * stage.width, 1);
      in = kWiden * stage.width;
    }
  }
  state.push_back({"fc.weight", at::empty({classes, in})});
  state.push_back({"fc.bias", at::empty({classes})});
  return state;
}

ResNet50::ResNet50(const Weights& weights, const std::string& where) {
  at::NoGradGuard no_grad;
  const auto fc = weights.find("fc.bias");
  const int64_t classes = fc == weights.end() || fc->second.dim() != 1 ? 1000 : fc->second.size(0);
  const nn::NamedTensors state = ResNet50::state(classes);
  check_state(weights, state, where, kWords);
  nn::NamedTensors hashed;  // what has an effect
  for (const auto& [name, empty] : state) {
    if (!is_counter(name)) hashed.push_back({name, finite_weight(weights, name, where)});
  }
  identity_ = nn::fingerprint(hashed);
  const auto of = [&](const std::string& name) {
    return std::ranges::find(hashed, name, &nn::NamedTensor::name)->tensor;
  };
  for (const auto& [name, tensor] : hashed) {
    if (tensor.dim() != 4) continue;
    const std::string unit = name.substr(0, name.size() - std::string_view(".weight").size()), norm = norm_of(unit);
    units_[unit] = fold_norm(tensor, of(norm + ".weight"), of(norm + ".bias"), of(norm + ".running_mean"),
                             of(norm + ".running_var"), kEps);
  }
  fc_weight_KD_ = hashed[hashed.size() - 2].tensor;
  fc_bias_K_ = hashed.back().tensor;
}

ResNet50 ResNet50::load(const std::filesystem::path& path) {
  const StateOnDisk file = read_state(path, state(/*classes=*/1));
  return ResNet50(file.weights, file.where);
}

Tensor ResNet50::prepare(const Tensor& images_u8_B3HW) {
  VARSCALE_CHECK(images_u8_B3HW.scalar_type() == at::kByte && images_u8_B3HW.dim() == 4 && images_u8_B3HW.size(1) == 3,
                 "ResNet-50 takes uint8 [B,3,H,W]");
  at::NoGradGuard no_grad;
  const int64_t height = images_u8_B3HW.size(2), width = images_u8_B3HW.size(3), side = std::min(height, width);
  Tensor x = images_u8_B3HW.to(at::kFloat) / 255;
  if (side != kShortSide) {
    const int64_t size[] = {height * kShortSide / side, width * kShortSide / side};
    x = at::_upsample_bilinear2d_aa(x, size, /*align_corners=*/false);
  }
  x = x.narrow(2, (x.size(2) - kSide) / 2, kSide).narrow(3, (x.size(3) - kSide) / 2, kSide);
  const Tensor mean_3 = at::tensor({0.485f, 0.456f, 0.406f}).view({1, 3, 1, 1});
  const Tensor deviation_3 = at::tensor({0.229f, 0.224f, 0.225f}).view({1, 3, 1, 1});
  return ((x - mean_3) / deviation_3).contiguous();
}

Tensor ResNet50::unit(const std::string& name, const Tensor& x_BCHW, int64_t stride) const {
  const FoldedConvolution& unit = units_.at(name);
  return at::conv2d(x_BCHW, unit.weight_OIkk, unit.bias_O, stride, unit.weight_OIkk.size(2) / 2);
}

Tensor ResNet50::block(const std::string& name, const Tensor& x_BCHW, int64_t stride) const {
  Tensor y = unit(name + ".conv1", x_BCHW, 1).relu_();
  y = unit(name + ".conv2", y, stride).relu_();
  y = unit(name + ".conv3", y, 1);
  const std::string down = name + ".downsample.0";
  return y.add_(units_.contains(down) ? unit(down, x_BCHW, stride) : x_BCHW).relu_();
}

Tensor ResNet50::logits(const Tensor& x_B3HW) const {
  at::NoGradGuard no_grad;
  Tensor x = at::max_pool2d(unit("conv1", x_B3HW, 2).relu_(), 3, 2, 1);
  for (const Stage& stage : kStages)
    for (int64_t i = 0; i < stage.blocks; ++i)
      x = block(fmt::format("{}.{}", stage.name, i), x, i == 0 ? stage.stride : 1);
  return at::linear(x.mean({2, 3}), fc_weight_KD_, fc_bias_K_);
}

Tensor ResNet50::probabilities(const Tensor& images_u8_B3HW) const {
  return at::softmax(logits(prepare(images_u8_B3HW)).to(at::kDouble), 1);
}

}  // namespace varscale::evaluate
