#include <ATen/ATen.h>
#include <fmt/format.h>

#include "tokenizer/autoencoder.hpp"

namespace varscale::tokenizer {

Encoder::Encoder(const AutoencoderShape& shape, nn::NamedTensors& parameters, at::Device device) {
  const Builder build("encoder.", shape.groups, parameters, device);
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

Tensor Encoder::operator()(const Tensor& image_B3XX, const Observer& observe) const {
  Tensor h = conv_in_(image_B3XX);
  if (observe) observe("encoder.conv_in", h);
  for (size_t i = 0; i < levels_.size(); ++i) {
    const Level& level = levels_[i];
    for (size_t j = 0; j < level.blocks.size(); ++j) {
      h = level.blocks[j](h);
      if (level.attention.empty()) continue;
      h = level.attention[j](h);
      if (observe) observe(fmt::format("encoder.down.{}.attn.{}", i, j), h);
    }
    if (!level.downsample) continue;
    h = (*level.downsample)(at::constant_pad_nd(h, {0, 1, 0, 1}));
    if (observe) observe(fmt::format("encoder.down.{}.downsample", i), h);
  }
  h = (*middle_)(h, "encoder.", observe);
  h = conv_out_(at::silu(norm_out_(h)));
  if (observe) observe("encoder.conv_out", h);
  return h;
}

}  // namespace varscale::tokenizer
