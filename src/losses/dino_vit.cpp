#include "losses/dino_vit.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/random.hpp"
#include "losses/parts/weight_reader.hpp"

namespace varscale::losses {

using base::UserError;

namespace {

constexpr double kEps = 1e-6;
constexpr int64_t kMlpFactor = 4;

struct Parameter {
  std::string name;
  std::vector<int64_t> shape;
};

// All that features() needs, in the state dict's order.
std::vector<Parameter> parameters_of(const DinoVitConfig& config) {
  const int64_t c = config.width, hidden = kMlpFactor * c;
  std::vector<Parameter> list = {{"cls_token", {1, 1, c}},
                                 {"pos_embed", {1, config.patches() + 1, c}},
                                 {"patch_embed.proj.weight", {c, 3, config.patch, config.patch}},
                                 {"patch_embed.proj.bias", {c}}};
  for (int64_t i = 0; i < config.depth; ++i) {
    auto add = [&](const char* name, std::vector<int64_t> shape) {
      list.push_back({fmt::format("blocks.{}.{}", i, name), std::move(shape)});
    };
    add("norm1.weight", {c}), add("norm1.bias", {c});
    add("attn.qkv.weight", {3 * c, c}), add("attn.qkv.bias", {3 * c});
    add("attn.proj.weight", {c, c}), add("attn.proj.bias", {c});
    add("norm2.weight", {c}), add("norm2.bias", {c});
    add("mlp.fc1.weight", {hidden, c}), add("mlp.fc1.bias", {hidden});
    add("mlp.fc2.weight", {c, hidden}), add("mlp.fc2.bias", {c});
  }
  return list;
}

WeightMap made_weights(uint64_t seed, const DinoVitConfig& config) {
  config.check();
  WeightMap map{"made weights", {}};
  for (const auto& [name, shape] : parameters_of(config)) {
    Tensor tensor = at::zeros(shape);
    if (shape.size() > 1) {
      const bool added = name == "cls_token" || name == "pos_embed";
      const double fan_in = static_cast<double>(tensor[0].numel());
      base::RandomStream(seed, "dino_vit.made", name)
          .fill_normal(tensor.mutable_data_ptr<float>(), 0, tensor.numel(),
                       static_cast<float>(added ? 0.5 : 1 / std::sqrt(fan_in)));
    } else if (name.ends_with(".weight")) {
      tensor.fill_(1);
    }
    map.tensors[name] = tensor;
  }
  return map;
}

}  // namespace

void DinoVitConfig::check() const {
  if (patch < 1 || image_side < patch || image_side % patch != 0) {
    throw UserError("image_side is {}, expected a multiple of patch, {}", image_side, patch);
  }
  if (heads < 1 || width < heads || width % heads != 0) {
    throw UserError("width is {}, expected a multiple of heads, {}", width, heads);
  }
  if (depth < 1) throw UserError("depth is {}, expected 1 or more", depth);
  for (size_t i = 0; i < taps.size(); ++i) {
    if (taps[i] < 0 || taps[i] >= depth || (i > 0 && taps[i] <= taps[i - 1])) {
      throw UserError("taps is [{}], expected rising block numbers from 0 to {}", fmt::join(taps, ", "), depth - 1);
    }
  }
}

DinoVit::DinoVit(const WeightMap& weights, const DinoVitConfig& config, const NetworkOptions& options)
    : DinoVit(weights, config, options, /*made=*/false) {}

DinoVit DinoVit::hash_made(uint64_t seed, const DinoVitConfig& config, const NetworkOptions& options) {
  return {made_weights(seed, config), config, options, /*made=*/true};
}

DinoVit::DinoVit(const WeightMap& weights, const DinoVitConfig& config, const NetworkOptions& options, bool made)
    : config_(config), options_(options) {
  config_.check();
  WeightReader reader(weights, fmt::format("a DINO transformer of width {}, {} blocks and {} patches", config.width,
                                           config.depth, config.patches()));
  // What products use is kept in their dtype, all else in float32.
  const auto wide_options = at::TensorOptions(options.device).dtype(wide(options.compute));
  const auto product_options = at::TensorOptions(options.device).dtype(options.compute);
  std::vector<Tensor> placed;
  for (const auto& [name, shape] : parameters_of(config_)) {
    const bool wide_use = name == "cls_token" || name == "pos_embed" || name.find("norm") != std::string::npos;
    placed.push_back(reader.take(name, shape).to(wide_use ? wide_options : product_options));
  }
  reader.refuse_others("blocks.");
  auto next = placed.begin();
  auto take = [&] { return *next++; };
  cls_token_11C_ = take(), pos_embed_1LC_ = take(), patch_weight_ = take(), patch_bias_ = take();
  for (int64_t i = 0; i < config_.depth; ++i) {
    Block block;
    for (Tensor* tensor : {&block.norm1_weight, &block.norm1_bias, &block.qkv_weight, &block.qkv_bias,
                           &block.proj_weight, &block.proj_bias, &block.norm2_weight, &block.norm2_bias,
                           &block.fc1_weight, &block.fc1_bias, &block.fc2_weight, &block.fc2_bias})
      *tensor = take();
    blocks_.push_back(block);
  }
  mean_1311_ = at::tensor({0.485, 0.456, 0.406}, at::kDouble).view({1, 3, 1, 1}).to(wide_options);
  deviation_1311_ = at::tensor({0.229, 0.224, 0.225}, at::kDouble).view({1, 3, 1, 1}).to(wide_options);
  identity_ = (made ? "dino_vit:made:" : "dino_vit:") + reader.fingerprint();
}

// Not nn::linear, nor a fused attention: a gradient penalty differentiates all of this twice.
Tensor DinoVit::linear(const Tensor& x, const Tensor& weight, const Tensor& bias) const {
  return at::linear(x.to(options_.compute), weight, bias);
}

Tensor DinoVit::attention(const Tensor& x_BLC, const Block& block) const {
  const int64_t batch = x_BLC.size(0), tokens = x_BLC.size(1), heads = config_.heads, head = config_.width / heads;
  const Tensor qkv_3BHLD =
      linear(x_BLC, block.qkv_weight, block.qkv_bias).view({batch, tokens, 3, heads, head}).permute({2, 0, 3, 1, 4});
  const Tensor score_BHLL =
      at::matmul(qkv_3BHLD[0], qkv_3BHLD[1].transpose(2, 3)) * (1 / std::sqrt(static_cast<double>(head)));
  const Tensor share_BHLL = at::softmax(score_BHLL.to(wide(options_.compute)), 3).to(options_.compute);
  const Tensor mixed_BLC = at::matmul(share_BHLL, qkv_3BHLD[2]).transpose(1, 2).reshape(x_BLC.sizes());
  return linear(mixed_BLC, block.proj_weight, block.proj_bias);
}

std::vector<Tensor> DinoVit::features(const Tensor& image_B3XX) const {
  VARSCALE_CHECK(image_B3XX.dim() == 4 && image_B3XX.size(1) == 3 && image_B3XX.size(2) == config_.image_side &&
                     image_B3XX.size(3) == config_.image_side,
                 "image [{}], expected [B, 3, {}, {}]", fmt::join(image_B3XX.sizes(), ", "), config_.image_side,
                 config_.image_side);
  const at::ScalarType type = wide(options_.compute);
  const Tensor scaled = ((image_B3XX.to(type) + 1) / 2 - mean_1311_) / deviation_1311_;
  const Tensor patches_BNC =
      at::conv2d(scaled.contiguous().to(options_.compute), patch_weight_, patch_bias_, config_.patch)
          .flatten(2)
          .transpose(1, 2);
  Tensor x_BLC = at::cat({cls_token_11C_.expand({image_B3XX.size(0), 1, config_.width}), patches_BNC.to(type)}, 1) +
                 pos_embed_1LC_;

  auto with_class = [&] {  // patch tokens plus the class token
    return (x_BLC.slice(1, 1) + x_BLC.slice(1, 0, 1)).transpose(1, 2).contiguous();
  };
  auto norm = [&](const Tensor& weight, const Tensor& bias) {
    return at::layer_norm(x_BLC, {config_.width}, weight, bias, kEps);
  };
  std::vector<Tensor> features = {with_class()};
  const int64_t blocks = config_.taps.empty() ? 0 : config_.taps.back() + 1;
  for (int64_t i = 0; i < blocks; ++i) {
    const Block& block = blocks_[i];
    x_BLC = x_BLC + attention(norm(block.norm1_weight, block.norm1_bias), block).to(type);
    const Tensor hidden =
        at::gelu(linear(norm(block.norm2_weight, block.norm2_bias), block.fc1_weight, block.fc1_bias));
    x_BLC = x_BLC + linear(hidden, block.fc2_weight, block.fc2_bias).to(type);
    if (std::ranges::find(config_.taps, i) != config_.taps.end()) features.push_back(with_class());
  }
  return features;
}

}  // namespace varscale::losses
