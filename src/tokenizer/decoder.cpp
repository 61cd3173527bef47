#include <ATen/ATen.h>
#include <fmt/format.h>

#include "tokenizer/autoencoder.hpp"

namespace varscale::tokenizer {

Decoder::Decoder(const AutoencoderShape& shape, nn::NamedTensors& parameters, const LeafOptions& leaves) {
  const Builder build("decoder.", shape.groups, parameters, leaves);
  const int64_t last = shape.levels() - 1;
  conv_in_ = build.conv("conv_in", shape.code_width, shape.width(last));
  middle_.emplace(build.below("mid"), shape.width(last));
  for (int64_t i = 0; i <= last; ++i) {  // parameters from level 0 on; the pass goes the other way
    const Builder below = build.below(fmt::format("up.{}", i));
    Level& level = levels_.emplace_back();
    int64_t width = shape.width(std::min(i + 1, last));
    for (int64_t j = 0; j <= shape.blocks; ++j) {
      level.blocks.emplace_back(below.below(fmt::format("block.{}", j)), width, shape.width(i));
      width = shape.width(i);
    }
    for (int64_t j = 0; i == last && j <= shape.blocks; ++j) {
      level.attention.emplace_back(below.below(fmt::format("attn.{}", j)), width);
    }
    if (i > 0) level.upsample = below.conv("upsample.conv", width, width);
  }
  norm_out_ = build.norm("norm_out", shape.width(0));
  conv_out_ = build.conv("conv_out", shape.width(0), 3);
}

Tensor Decoder::pass_level(size_t i, Tensor h, const Observer& observe) const {
  const Level& level = levels_[i];
  for (size_t j = 0; j < level.blocks.size(); ++j) {
    h = level.blocks[j](h);
    if (!level.attention.empty()) h = level.attention[j](h);
    if (observe) observe(fmt::format("decoder.up.{}.block.{}", i, j), h);
  }
  if (!level.upsample) return h;
  h = (*level.upsample)(at::upsample_nearest2d(h, {2 * h.size(2), 2 * h.size(3)}));
  if (observe) observe(fmt::format("decoder.up.{}.upsample", i), h);
  return h;
}

Tensor Decoder::operator()(const Tensor& z_BCHW, const Observer& observe, const BlockRunner& runner) const {
  Tensor h = conv_in_(z_BCHW);
  if (observe) observe("decoder.conv_in", h);
  int64_t block = 0;
  h = run_block(runner, block++, h, [this, observe](const std::vector<Tensor>& in) {
    return (*middle_)(in[0], "decoder.", observe);
  });
  for (size_t i = levels_.size(); i-- > 0;) {
    h = run_block(runner, block++, h,
                  [this, i, observe](const std::vector<Tensor>& in) { return pass_level(i, in[0], observe); });
  }
  h = conv_out_(norm_out_.silu(h));
  if (observe) observe("decoder.conv_out", h);
  return h;
}

}  // namespace varscale::tokenizer
