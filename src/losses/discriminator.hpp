// What tells real images from reconstructions: the face that the adversarial losses and a trainer see.
//
//   discriminator.initialise(seed);
//   for each step:
//     discriminator.advance();                                 // once, on every rank alike
//     Tensor logits = discriminator.logits(discriminator.view(image_B3XX, keys));
//
// Layout   An image's logits depend on that image and the weights alone: no batch norm, no statistics of a
//          batch. So every division of a batch among ranks and micro-batches gives the same sums.
// Saving   parameters() and buffers() are the whole state; both are replicated, equal on all ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "losses/network.hpp"
#include "nn/tensor.hpp"

namespace varscale::losses {

class Discriminator {
 public:
  virtual ~Discriminator() = default;

  // What is trained: float32 leaves that require grad, in the order of the forward pass.
  const nn::NamedTensors& parameters() const noexcept { return parameters_; }
  // What belongs to the state without being trained; may be empty.
  const nn::NamedTensors& buffers() const noexcept { return buffers_; }

  // Every element of parameters() and buffers() becomes a function of (seed, name, index).
  virtual void initialise(uint64_t seed) = 0;
  // Moves buffers() on by one step; a function of parameters() and buffers() alone. Call it once a step,
  // before the step's first logits().
  virtual void advance() {}
  // What of each image is shown, differentiable. The image itself where nothing is drawn.
  virtual Tensor view(const Tensor& image_B3XX, const SampleKeys& keys) const;
  // [B, ...] float32 (float64 where compute is): high for real. Takes images and views.
  virtual Tensor logits(const Tensor& image_B3XX) const = 0;

 protected:
  nn::NamedTensors parameters_, buffers_;
};

}  // namespace varscale::losses
