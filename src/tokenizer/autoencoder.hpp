// Encoder and decoder of the tokenizer: image to feature map and back.
//
// Legend   B batch, C code width, H = W side of the feature map; the image is 2^(levels - 1) times larger.
// Source   arXiv 2012.09841; names and order of the parameters as in the public VAR tokenizer.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "tokenizer/layers.hpp"

namespace varscale::tokenizer {

// Channels at level i are channels * mult[i]; attention at the last level and in the middle.
struct AutoencoderShape {
  int64_t channels = 160;
  std::vector<int64_t> mult = {1, 1, 2, 2, 4};
  int64_t blocks = 2;  // residual blocks a level of the encoder; the decoder has one more
  int64_t groups = 32;
  int64_t code_width = 32;
  int64_t levels() const { return static_cast<int64_t>(mult.size()); }
  int64_t width(int64_t level) const { return channels * mult.at(level); }
};

class Encoder {
 public:
  Encoder(const AutoencoderShape& shape, nn::NamedTensors& parameters, const LeafOptions& leaves = {});
  // image_B3XX in [-1, 1] to [B, C, H, W]. Its blocks are the levels from 0 on, then the middle.
  Tensor operator()(const Tensor& image_B3XX, const Observer& observe = {}, const BlockRunner& runner = {}) const;

 private:
  struct Level {
    std::vector<ResidualBlock> blocks;
    std::vector<AttentionBlock> attention;  // empty, or one after each block
    std::optional<Conv> downsample;         // stride 2, padded on the right and below
  };
  Tensor pass_level(size_t i, Tensor h_BCHW, const Observer& observe) const;
  Conv conv_in_;
  std::vector<Level> levels_;
  std::optional<MiddleBlock> middle_;
  GroupNorm norm_out_;
  Conv conv_out_;
};

class Decoder {
 public:
  Decoder(const AutoencoderShape& shape, nn::NamedTensors& parameters, const LeafOptions& leaves = {});
  // [B, C, H, W] to an image, not clamped. Its blocks are the middle, then the levels from the last down to 0.
  Tensor operator()(const Tensor& z_BCHW, const Observer& observe = {}, const BlockRunner& runner = {}) const;
  // The last convolution's weight [3, channels, 3, 3], for losses that balance gradients there.
  const Tensor& last_weight() const { return conv_out_.weight_OIkk; }

 private:
  struct Level {
    std::vector<ResidualBlock> blocks;
    std::vector<AttentionBlock> attention;
    std::optional<Conv> upsample;  // after nearest-neighbour doubling
  };
  Tensor pass_level(size_t i, Tensor h_BCHW, const Observer& observe) const;
  Conv conv_in_;
  std::optional<MiddleBlock> middle_;
  std::vector<Level> levels_;
  GroupNorm norm_out_;
  Conv conv_out_;
};

}  // namespace varscale::tokenizer
