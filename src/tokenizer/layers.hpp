// The few layers that encoder and decoder are made of, each with its named parameters.
//
//   Builder build("encoder.", /*groups=*/32, parameters, {});   // appends zero tensors, in state-dict order
//   ResidualBlock block(build.below("mid.block_1"), 640, 640);
//   Tensor y_BCHW = block(x_BCHW);
//
// Legend   B batch, C channels, H = W side, N = H W.
// Source   the VQGAN autoencoder (arXiv 2012.09841) as FoundationVision/VAR models/basic_vae.py has it.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/tensor.hpp"

namespace varscale::tokenizer {

using at::Tensor;

// Called with the name and output of a few named modules as a pass goes on; may be empty.
using Observer = std::function<void(std::string_view name, const Tensor& output)>;

// A part of the network that a wrapper may gather and release by itself: {activation} in, one out. It may be
// called again in backward.
using BlockBody = std::function<Tensor(const std::vector<Tensor>&)>;
// Runs the body of block `index` when its weights are there; empty: at once.
using BlockRunner = std::function<Tensor(int64_t index, const std::vector<Tensor>& inputs, const BlockBody& body)>;
Tensor run_block(const BlockRunner& runner, int64_t index, const Tensor& x, const BlockBody& body);

// Where parameters live, and in what form.
struct LeafOptions {
  at::Device device = at::kCPU;
  // dtype of the convolutions, which compute in it; norms and codes are float32 always. With bfloat16 the
  // owner of the master weights keeps them elsewhere.
  at::ScalarType weights = at::kFloat;
  bool allocate = true;  // false: leaves without storage (nn::absent_leaf), for a wrapper to fill
};
Tensor make_leaf(const std::vector<int64_t>& sizes, at::ScalarType dtype, const LeafOptions& options);  // zeros

// Converts its input to the dtype of its weight. Without gradients, large channels-last maps take the faster of
// at::conv2d and nn::winograd_convolution.
struct Conv {
  Tensor weight_OIkk, bias_O;
  int64_t stride = 1, padding = 0;
  Tensor operator()(const Tensor& x_BCHW) const;
};

struct GroupNorm {
  Tensor weight_C, bias_C;
  int64_t groups = 32;
  Tensor operator()(const Tensor& x_BCHW) const;  // eps 1e-6
  Tensor silu(const Tensor& x_BCHW) const;        // SiLU of it
};

// Makes the parameters of layers under one prefix. Norms start at one and zero, convolutions at zero.
class Builder {
 public:
  Builder(std::string prefix, int64_t groups, nn::NamedTensors& parameters, const LeafOptions& leaves)
      : prefix_(std::move(prefix)), groups_(groups), parameters_(parameters), leaves_(leaves) {}
  Builder below(const std::string& name) const {
    return {prefix_ + name + ".", groups_, parameters_, leaves_};
  }
  Conv conv(const std::string& name, int64_t in, int64_t out, int64_t kernel = 3,
            int64_t stride = 1) const;
  GroupNorm norm(const std::string& name, int64_t channels) const;

 private:
  std::string prefix_;
  int64_t groups_;
  nn::NamedTensors& parameters_;
  LeafOptions leaves_;
};

// x + conv2(silu(norm2(conv1(silu(norm1(x)))))), x through a 1x1 convolution where the channels change.
class ResidualBlock {
 public:
  ResidualBlock(const Builder& build, int64_t in, int64_t out);
  Tensor operator()(const Tensor& x_BCHW) const;

 private:
  GroupNorm norm1_;
  Conv conv1_;
  GroupNorm norm2_;
  Conv conv2_;
  std::optional<Conv> shortcut_;
};

// x + single-head attention over the H W places, C wide.
class AttentionBlock {
 public:
  AttentionBlock(const Builder& build, int64_t channels);
  Tensor operator()(const Tensor& x_BCHW) const;

 private:
  GroupNorm norm_;
  Conv qkv_, proj_out_;
};

// Residual block, attention, residual block.
class MiddleBlock {
 public:
  MiddleBlock(const Builder& build, int64_t channels);
  Tensor operator()(const Tensor& x_BCHW, std::string_view prefix, const Observer& observe) const;

 private:
  ResidualBlock block_1_;
  AttentionBlock attn_1_;
  ResidualBlock block_2_;
};

}  // namespace varscale::tokenizer
