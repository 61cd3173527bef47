#include "losses/lpips.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <cmath>

#include "base/error.hpp"
#include "base/random.hpp"
#include "losses/parts/weight_reader.hpp"

namespace varscale::losses {

namespace {

constexpr const char* kNetwork = "LPIPS of VGG16";

struct VggConv {
  int64_t number;  // of the module in torchvision's list
  int64_t in, out;
  bool pool_before, tap_after;
};
constexpr std::array<VggConv, 13> kConvs = {{{0, 3, 64, false, false},
                                             {2, 64, 64, false, true},
                                             {5, 64, 128, true, false},
                                             {7, 128, 128, false, true},
                                             {10, 128, 256, true, false},
                                             {12, 256, 256, false, false},
                                             {14, 256, 256, false, true},
                                             {17, 256, 512, true, false},
                                             {19, 512, 512, false, false},
                                             {21, 512, 512, false, true},
                                             {24, 512, 512, true, false},
                                             {26, 512, 512, false, false},
                                             {28, 512, 512, false, true}}};
constexpr std::array<int64_t, Lpips::kLayers> kHeadWidths = {64, 128, 256, 512, 512};

std::string conv_name(const VggConv& conv, const char* part) {
  return fmt::format("features.{}.{}", conv.number, part);
}

WeightMap made_weights(uint64_t seed) {
  WeightMap map{.from = "made weights"};
  auto add = [&](const std::string& name, at::IntArrayRef shape) -> Tensor& {
    return map.tensors[name] = at::zeros(shape);
  };
  for (const VggConv& conv : kConvs) {
    const std::string name = conv_name(conv, "weight");
    Tensor& weight = add(name, {conv.out, conv.in, 3, 3});
    base::RandomStream(seed, "lpips.made", name)
        .fill_normal(weight.mutable_data_ptr<float>(), 0, weight.numel(),
                     static_cast<float>(std::sqrt(2.0 / static_cast<double>(9 * conv.in))));
    add(conv_name(conv, "bias"), {conv.out});
  }
  for (int64_t i = 0; i < Lpips::kLayers; ++i) {
    const std::string name = fmt::format("lin{}", i);
    Tensor& head = add(name, {kHeadWidths[i]});
    base::RandomStream(seed, "lpips.made", name)
        .fill_uniform(head.mutable_data_ptr<float>(), 0, head.numel());
  }
  return map;
}

// A feature vector of zeros stays one, and passes no gradient.
Tensor unit_features(const Tensor& feature_BCHW, at::ScalarType type) {
  const Tensor f = feature_BCHW.to(type);
  return f / (at::linalg_vector_norm(f, 2, {1}, /*keepdim=*/true) + 1e-10);
}

}  // namespace

Lpips::Lpips(const WeightMap& weights, const NetworkOptions& options)
    : Lpips(weights, options, /*made=*/false) {}

Lpips Lpips::hash_made(uint64_t seed, const NetworkOptions& options) {
  return {made_weights(seed), options, /*made=*/true};
}

Lpips::Lpips(const WeightMap& weights, const NetworkOptions& options, bool made) : options_(options) {
  WeightReader reader(weights, kNetwork);
  auto placed = [&](const Tensor& weight) { return weight.to(options.device, options.compute); };
  for (const VggConv& conv : kConvs) {
    const Tensor weight = reader.take(conv_name(conv, "weight"), {conv.out, conv.in, 3, 3});
    convs_.push_back({placed(weight), placed(reader.take(conv_name(conv, "bias"), {conv.out}))});
  }
  const auto wide_options = at::TensorOptions(options.device).dtype(wide(options.compute));
  for (int64_t i = 0; i < kLayers; ++i) {
    const int64_t n = kHeadWidths[i];
    heads_C_[i] = reader
                      .take_either(fmt::format("lin{}", i), {n}, fmt::format("lin{}.model.1.weight", i),
                                   {1, n, 1, 1})
                      .to(wide_options);
  }
  reader.refuse_others("features.");
  shift_1311_ = at::tensor({-0.030, -0.088, -0.188}, at::kDouble).view({1, 3, 1, 1}).to(wide_options);
  scale_1311_ = at::tensor({0.458, 0.448, 0.450}, at::kDouble).view({1, 3, 1, 1}).to(wide_options);
  identity_ = (made ? "lpips_vgg16:made:" : "lpips_vgg16:") + reader.fingerprint();
}

std::vector<Tensor> Lpips::features(const Tensor& image_B3XX) const {
  VARSCALE_CHECK(image_B3XX.dim() == 4 && image_B3XX.size(1) == 3 && image_B3XX.size(2) >= kLeastSide &&
                     image_B3XX.size(3) >= kLeastSide,
                 "LPIPS takes images [B, 3, {} or more, {} or more], not [{}]", kLeastSide, kLeastSide,
                 fmt::join(image_B3XX.sizes(), ", "));
  Tensor x_BCHW = ((image_B3XX.to(scale_1311_.scalar_type()) - shift_1311_) / scale_1311_)
                      .contiguous()
                      .to(options_.compute);
  std::vector<Tensor> features;
  for (size_t i = 0; i < kConvs.size(); ++i) {
    if (kConvs[i].pool_before) x_BCHW = at::max_pool2d(x_BCHW, {2, 2}, {2, 2});
    x_BCHW = at::relu(at::conv2d(x_BCHW, convs_[i].weight_OIkk, convs_[i].bias_O, 1, 1));
    if (kConvs[i].tap_after) features.push_back(x_BCHW);
  }
  return features;
}

Tensor Lpips::layer_distances(const Tensor& a_B3XX, const Tensor& b_B3XX) const {
  VARSCALE_CHECK(a_B3XX.sizes() == b_B3XX.sizes(), "LPIPS of images [{}] and [{}]",
                 fmt::join(a_B3XX.sizes(), ", "), fmt::join(b_B3XX.sizes(), ", "));
  const std::vector<Tensor> a = features(a_B3XX), b = features(b_B3XX);
  const at::ScalarType type = wide(options_.compute);
  std::vector<Tensor> layers;
  for (int64_t i = 0; i < kLayers; ++i) {
    const Tensor square_BCHW = (unit_features(a[i], type) - unit_features(b[i], type)).square();
    layers.push_back((square_BCHW.mean({2, 3}) * heads_C_[i]).sum(1));
  }
  return at::stack(layers, 1);
}

Tensor Lpips::distances(const Tensor& a_B3XX, const Tensor& b_B3XX) const {
  return layer_distances(a_B3XX, b_B3XX).sum(1);
}

}  // namespace varscale::losses
