#include <ATen/ATen.h>
#include <fmt/format.h>

#include "tokenizer/autoencoder.hpp"

namespace varscale::tokenizer {

Encoder::Encoder(const AutoencoderShape& shape, nn::NamedTensors& parameters, const LeafOptions& leaves) {
  const Builder build("encoder.", shape.groups, parameters, leaves);
  conv_in_ = build.conv("conv_in", 3, shape.channels);
  int64_t width = shape.channels;
  for (int64_t i = 0; i < shape.levels(); ++i) {
    const Builder below = build.below(fmt::format("down.{}", i));
    const bool last = i + 1 == shape.levels();
    Level& level = levels_.emplace_back();
    for (int64_t j = 0; j < shape.blocks; ++j) {
      level.blocks.emplace_back(below.below(fmt::format("block.{}", j)), width, shape.width(i));
      width = shape.width(i);
    }
    for (int64_t j = 0; last && j < shape.blocks; ++j) {
      level.attention.emplace_back(below.below(fmt::format("attn.{}", j)), width);
    }
    if (!last) level.downsample = below.conv("downsample.conv", width, width, 3, 2);
  }
  middle_.emplace(build.below("mid"), width);
  norm_out_ = build.norm("norm_out", width);
  conv_out_ = build.conv("conv_out", width, shape.code_width);
}

Tensor Encoder::pass_level(size_t i, Tensor h, const Observer& observe) const {
  const Level& level = levels_[i];
  for (size_t j = 0; j < level.blocks.size(); ++j) {
    h = level.blocks[j](h);
    if (level.attention.empty()) continue;
    h = level.attention[j](h);
    if (observe) observe(fmt::format("encoder.down.{}.attn.{}", i, j), h);
  }
  if (!level.downsample) return h;
  h = (*level.downsample)(at::constant_pad_nd(h, {0, 1, 0, 1}));
  if (observe) observe(fmt::format("encoder.down.{}.downsample", i), h);
  return h;
}

Tensor Encoder::operator()(const Tensor& image_B3XX, const Observer& observe, const BlockRunner& runner) const {
  Tensor h = conv_in_(image_B3XX);
  if (observe) observe("encoder.conv_in", h);
  for (size_t i = 0; i < levels_.size(); ++i) {
    h = run_block(runner, static_cast<int64_t>(i), h,
                  [this, i, observe](const std::vector<Tensor>& in) { return pass_level(i, in[0], observe); });
  }
  h = run_block(runner, static_cast<int64_t>(levels_.size()), h, [this, observe](const std::vector<Tensor>& in) {
    return (*middle_)(in[0], "encoder.", observe);
  });
  h = conv_out_(norm_out_.silu(h));
  if (observe) observe("encoder.conv_out", h);
  return h;
}

}  // namespace varscale::tokenizer
