#include "losses/dino_discriminator.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/random.hpp"
#include "losses/parts/initial.hpp"
#include "losses/parts/weight_reader.hpp"

namespace varscale::losses {

using base::UserError;

namespace {

constexpr double kSlope = 0.2, kEps = 1e-5;

// One side of a resize from `in` to `out` places as a product, [out, in]: linear interpolation between the
// centres of places to a larger side, the mean over what a place covers to a smaller one. As a product it has
// gradients of every order, and on a GPU the same bits each time.
Tensor resize_matrix(int64_t out, int64_t in) {
  Tensor matrix = at::zeros({out, in}, at::kDouble);
  auto rows = matrix.accessor<double, 2>();
  for (int64_t i = 0; i < out; ++i) {
    if (out < in) {
      const int64_t first = i * in / out, end = ((i + 1) * in + out - 1) / out;
      for (int64_t j = first; j < end; ++j) rows[i][j] = 1 / static_cast<double>(end - first);
    } else {
      const double place =
          std::max(0.0, (static_cast<double>(i) + 0.5) * static_cast<double>(in) / static_cast<double>(out) - 0.5);
      const int64_t low = std::min(static_cast<int64_t>(place), in - 1), high = std::min(low + 1, in - 1);
      rows[i][low] += 1 - (place - static_cast<double>(low));
      rows[i][high] += place - static_cast<double>(low);
    }
  }
  return matrix;
}

}  // namespace

void DinoDiscriminatorConfig::check(const DinoVitConfig& vit) const {
  if (image_side < 1) throw UserError("image_side is {}, expected 1 or more", image_side);
  if (!(crop_probability >= 0 && crop_probability <= 1)) {
    throw UserError("crop_probability is {}, expected 0 to 1", crop_probability);
  }
  if (crop_probability > 0 && image_side <= vit.image_side) {
    throw UserError("crop_probability is {}, but images of {} pixels leave no room for a crop of {}",
                    crop_probability, image_side, vit.image_side);
  }
  if (kernel < 1 || kernel % 2 == 0 || kernel / 2 > vit.patches()) {
    throw UserError("kernel is {}, expected an odd number up to twice the {} patches", kernel, vit.patches());
  }
  if (groups < 1 || vit.width % groups != 0) {
    throw UserError("groups is {}, which does not divide the transformer's width, {}", groups, vit.width);
  }
}

DinoDiscriminator::DinoDiscriminator(DinoVit vit, const DinoDiscriminatorConfig& config,
                                     const NetworkOptions& options)
    : vit_(std::move(vit)), config_(config), options_(options) {
  config_.check(vit_.config());
  if (config_.image_side != vit_.config().image_side) {
    resize_SX_ = resize_matrix(vit_.config().image_side, config_.image_side)
                     .to(at::TensorOptions(options.device).dtype(wide(options.compute)));
  }
  for (size_t i = 0; i <= vit_.config().taps.size(); ++i) {
    const std::string name = fmt::format("heads.{}.", i);
    // In this order: the parameters' is that of the forward pass.
    Block first = make_block(name + "first", 1), second = make_block(name + "second", config_.kernel);
    heads_.push_back({std::move(first), std::move(second), make_convolution(name + "cls", 1, 1)});
  }
}

DinoDiscriminator::Convolution DinoDiscriminator::make_convolution(const std::string& name, int64_t out,
                                                                   int64_t kernel) {
  const auto options = at::TensorOptions(options_.device);
  const Tensor weight = at::zeros({out, vit_.config().width, kernel}, options).set_requires_grad(true);
  const Tensor bias = at::zeros({out}, options).set_requires_grad(true);
  parameters_.push_back({name + ".weight", weight});
  parameters_.push_back({name + ".bias", bias});
  return {SpectralNorm(weight, name, buffers_), bias};
}

DinoDiscriminator::Block DinoDiscriminator::make_block(const std::string& name, int64_t kernel) {
  const auto options = at::TensorOptions(options_.device);
  Convolution conv = make_convolution(name + ".conv", vit_.config().width, kernel);
  const Tensor weight = at::ones({vit_.config().width}, options).set_requires_grad(true);
  const Tensor bias = at::zeros({vit_.config().width}, options).set_requires_grad(true);
  parameters_.push_back({name + ".norm.weight", weight});
  parameters_.push_back({name + ".norm.bias", bias});
  return {std::move(conv), weight, bias};
}

void DinoDiscriminator::initialise(uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : parameters_) {
    if (tensor.dim() == 3)
      fill_normal(tensor, seed, name, 1 / std::sqrt(static_cast<double>(tensor[0].numel())));
    else
      tensor.fill_(name.ends_with("norm.weight") ? 1 : 0);
  }
  for (Head& head : heads_) {
    head.first.conv.spectral.start(seed);
    head.second.conv.spectral.start(seed);
    head.cls.spectral.start(seed);
  }
}

void DinoDiscriminator::advance() {
  for (Head& head : heads_) {
    head.first.conv.spectral.advance();
    head.second.conv.spectral.advance();
    head.cls.spectral.advance();
  }
}

Tensor DinoDiscriminator::resized(const Tensor& image_B3XX) const {
  if (!resize_SX_.defined()) return image_B3XX;
  return at::matmul(at::matmul(resize_SX_, image_B3XX.to(resize_SX_.scalar_type())), resize_SX_.t());
}

Tensor DinoDiscriminator::view(const Tensor& image_B3XX, const SampleKeys& keys) const {
  const int64_t from = config_.image_side, side = vit_.config().image_side, batch = image_B3XX.size(0);
  VARSCALE_CHECK(image_B3XX.dim() == 4 && image_B3XX.size(2) == from && image_B3XX.size(3) == from,
                 "image [{}], expected [B, 3, {}, {}]", fmt::join(image_B3XX.sizes(), ", "), from, from);
  if (config_.crop_probability == 0) return resized(image_B3XX);
  VARSCALE_CHECK(static_cast<int64_t>(keys.samples.size()) == batch, "{} keys for {} images", keys.samples.size(),
                 batch);
  std::vector<Tensor> views;
  for (int64_t i = 0; i < batch; ++i) {
    const base::RandomStream draw(keys.seed, keys.purpose, static_cast<uint64_t>(keys.step),
                                  static_cast<uint64_t>(keys.samples[i]));
    if (draw.uniform(0) >= config_.crop_probability) {
      views.push_back(resized(image_B3XX[i]));
      continue;
    }
    auto place = [&](uint64_t index) {
      return static_cast<int64_t>(draw.below(index, static_cast<uint64_t>(from - side + 1)));
    };
    views.push_back(image_B3XX[i].narrow(1, place(1), side).narrow(2, place(2), side));
  }
  return at::stack(views);
}

Tensor DinoDiscriminator::convolve(const Convolution& conv, const Tensor& x_BCN) const {
  const Tensor weight_OIk = conv.spectral.weight(options_.compute);
  const int64_t reach = weight_OIk.size(2) / 2, patches = x_BCN.size(2);
  const Tensor wrapped =
      reach == 0 ? x_BCN : at::cat({x_BCN.narrow(2, patches - reach, reach), x_BCN, x_BCN.narrow(2, 0, reach)}, 2);
  return at::conv1d(wrapped, weight_OIk, conv.bias_O.to(options_.compute));
}

Tensor DinoDiscriminator::apply(const Block& block, const Tensor& x_BCN) const {
  const Tensor y_BCN =
      at::group_norm(convolve(block.conv, x_BCN), config_.groups, block.norm_weight_C.to(options_.compute),
                     block.norm_bias_C.to(options_.compute), kEps);
  return at::leaky_relu(y_BCN, kSlope);
}

Tensor DinoDiscriminator::logits(const Tensor& image_B3XX) const {
  const bool is_view = image_B3XX.size(-1) == vit_.config().image_side;
  const std::vector<Tensor> features = vit_.features(is_view ? image_B3XX : resized(image_B3XX));
  std::vector<Tensor> logits;
  for (size_t i = 0; i < heads_.size(); ++i) {
    const Tensor first_BCN = apply(heads_[i].first, features[i].to(options_.compute));
    const Tensor joined_BCN = (apply(heads_[i].second, first_BCN) + first_BCN) * std::sqrt(0.5);
    logits.push_back(convolve(heads_[i].cls, joined_BCN).flatten(1));
  }
  return at::cat(logits, 1).to(wide(options_.compute));
}

}  // namespace varscale::losses
