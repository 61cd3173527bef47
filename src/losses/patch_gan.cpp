#include "losses/patch_gan.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.hpp"
#include "losses/parts/initial.hpp"
#include "losses/parts/weight_reader.hpp"

namespace varscale::losses {

using base::UserError;

namespace {

constexpr int64_t kKernel = 4, kPadding = 1;
constexpr double kSlope = 0.2, kEps = 1e-5;

// Side of the map of logits of an image; a convolution of stride 1 takes one place away.
int64_t side_after(int64_t image_side, int64_t layers) { return (image_side >> std::min<int64_t>(layers, 62)) - 2; }

}  // namespace

int64_t PatchGanConfig::logits_side() const noexcept { return side_after(image_side, layers); }

void PatchGanConfig::check() const {
  if (channels < 1) throw UserError("channels is {}, expected 1 or more", channels);
  if (layers < 1) throw UserError("layers is {}, expected 1 or more", layers);
  if (groups < 1 || 2 * channels % groups != 0) {
    throw UserError("groups is {}, which does not divide the {} channels behind the first convolution", groups,
                    2 * channels);
  }
  if (logits_side() >= 1) return;
  int64_t most = 0;
  while (side_after(image_side, most + 1) >= 1) ++most;
  if (most == 0) throw UserError("image_side is {}, too small for a PatchGAN, which needs 6 pixels", image_side);
  throw UserError("layers is {}, too many for images of {} pixels; at most {} leave a map of logits", layers,
                  image_side, most);
}

PatchGan::PatchGan(const PatchGanConfig& config, const NetworkOptions& options)
    : config_(config), options_(options) {
  config_.check();
  auto add = [&](const std::string& name, at::IntArrayRef shape, double value) {
    const Tensor leaf = at::full(shape, value, at::TensorOptions(options.device)).set_requires_grad(true);
    parameters_.push_back({name, leaf});
    return leaf;
  };
  const int64_t last = config_.layers + 1;  // index of the last convolution
  int64_t place = 0, in = 3;
  for (int64_t i = 0; i <= last; ++i) {
    const bool norm = i > 0 && i < last;
    const int64_t factor = int64_t{1} << std::min<int64_t>(i, 3);  // 1, 2, 4, 8, 8, ...
    const int64_t out = i == last ? 1 : config_.channels * factor;
    Stage stage;
    stage.stride = i < config_.layers ? 2 : 1;
    const std::string conv = fmt::format("main.{}.", place);
    stage.weight_OIkk = add(conv + "weight", {out, in, kKernel, kKernel}, 0);
    if (norm) {
      const std::string name = fmt::format("main.{}.", place + 1);
      stage.norm_weight_O = add(name + "weight", {out}, 1);
      stage.norm_bias_O = add(name + "bias", {out}, 0);
    } else {
      stage.bias_O = add(conv + "bias", {out}, 0);
    }
    stages_.push_back(stage);
    place += norm ? 3 : 2;  // convolution, norm, activation
    in = out;
  }
}

void PatchGan::initialise(uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : parameters_) {
    if (tensor.dim() == 4)
      fill_normal(tensor, seed, name, 0.02);
    else
      tensor.fill_(name.ends_with(".weight") ? 1 : 0);
  }
}

Tensor PatchGan::logits(const Tensor& image_B3XX) const {
  VARSCALE_CHECK(image_B3XX.dim() == 4 && image_B3XX.size(1) == 3 && image_B3XX.size(2) == config_.image_side &&
                     image_B3XX.size(3) == config_.image_side,
                 "image [{}], expected [B, 3, {}, {}]", fmt::join(image_B3XX.sizes(), ", "), config_.image_side,
                 config_.image_side);
  auto cast = [&](const Tensor& t) { return t.defined() ? t.to(options_.compute) : t; };
  Tensor x_BCHW = cast(image_B3XX.contiguous());
  for (size_t i = 0; i < stages_.size(); ++i) {
    const Stage& stage = stages_[i];
    x_BCHW = at::conv2d(x_BCHW, cast(stage.weight_OIkk), cast(stage.bias_O), stage.stride, kPadding);
    if (stage.norm_weight_O.defined())
      x_BCHW = at::group_norm(x_BCHW, config_.groups, cast(stage.norm_weight_O), cast(stage.norm_bias_O), kEps);
    if (i + 1 < stages_.size()) x_BCHW = at::leaky_relu(x_BCHW, kSlope);
  }
  return x_BCHW.to(wide(options_.compute));
}

}  // namespace varscale::losses
