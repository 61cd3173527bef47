// A weight divided by its largest singular value, estimated by power iteration.
//
//   SpectralNorm conv(weight_OIk, "heads.0.cls", buffers);   // adds heads.0.cls.u and heads.0.cls.v
//   conv.start(seed);
//   conv.advance();                                          // once a step
//   y = at::conv1d(x, conv.weight(at::kFloat));
//
// The iteration is no part of the forward pass: how often that runs in a step (micro-batches, real and fake,
// the generator's pass) changes nothing, and equal weights and buffers on all ranks stay equal.
//
// Legend   O rows of the weight (output channels), I all else, flattened.
// Source   arXiv 1802.05957, algorithm 1.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "nn/tensor.hpp"

namespace varscale::losses {

using at::Tensor;

class SpectralNorm {
 public:
  // weight float32 [O, ...], kept as a handle; the buffers are appended as "<name>.u" [O], "<name>.v" [I].
  SpectralNorm(Tensor weight, const std::string& name, nn::NamedTensors& buffers);

  // u drawn from (seed, name), then 15 iterations with the weight as it is.
  void start(uint64_t seed);
  // v = unit(W^T u), u = unit(W v), in place.
  void advance();
  // W / (u^T W v) in `compute`; the gradient reaches W, u and v are constants.
  Tensor weight(at::ScalarType compute) const;

 private:
  Tensor weight_, u_O_, v_I_;
  std::string name_;
};

}  // namespace varscale::losses
