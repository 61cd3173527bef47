// DiffAugment: random changes of colour, place and content, seen by the discriminator in real and fake alike.
//
//   Tensor seen_B3XX = diff_augment({.cutout = 0.2}, image_B3XX, {seed, step, "augment.real", samples});
//
// In this order: brightness + (u - 1/2); saturation about the pixel's mean x 2u; contrast about the image's mean
// x (u + 1/2); translation by whole pixels, up to `translation` of the side each way, empty places 0; cutout of
// a square of `cutout` of the side, set to 0, its centre anywhere in the image. u uniform in [0, 1), drawn for
// each image from its key; the same image with the same key is changed the same way in every layout.
//
// Legend   B batch, X image side.
// Errors   UserError: settings out of their range.
// Source   arXiv 2006.10738; mit-han-lab/data-efficient-gans DiffAugment_pytorch.py (there cutout is 1/2).
#pragma once

#include <ATen/core/Tensor.h>

#include "losses/network.hpp"

namespace varscale::losses {

struct DiffAugmentConfig {
  bool color = true;
  double translation = 0.125;  // 0: none
  double cutout = 0.5;         // 0: none
  double probability = 1;      // of each of colour, translation and cutout, drawn for each image

  void check() const;  // UserError
};

// image float32 or float64 [B, 3, X, X]; one key a row. Differentiable in the image.
Tensor diff_augment(const DiffAugmentConfig& config, const Tensor& image_B3XX, const SampleKeys& keys);

}  // namespace varscale::losses
