// PatchGAN: a small convolutional network that judges overlapping patches of an image.
//
//   PatchGan discriminator({.image_side = 256});
//   discriminator.initialise(seed);
//   Tensor logits_B1hw = discriminator.logits(image_B3XX);     // 256 px: 30 x 30 patches of 70 px
//
// 4x4 convolutions: `layers` of stride 2, then two of stride 1; channels, 2 channels, ... up to 8 channels;
// leaky ReLU of slope 0.2. Where the public network has batch norm, this one has group norm: a batch norm
// would make an image's logits, and so the loss, depend on which images share its micro-batch.
//
// Names    main.N.weight and main.N.bias, N the place in the public network's list of modules.
// Legend   B batch, X image side, h = w side of the map of logits.
// Errors   UserError: settings that do not fit together.
// Source   arXiv 1611.07004; CompVis/taming-transformers taming/modules/discriminator/model.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "losses/discriminator.hpp"

namespace varscale::losses {

struct PatchGanConfig {
  int64_t image_side = 256;  // pixels
  int64_t channels = 64;     // of the first convolution
  int64_t layers = 3;        // convolutions of stride 2: 3 for 32 px and more, 2 for 16
  int64_t groups = 32;       // of the norms; must divide 2 channels

  int64_t logits_side() const noexcept;  // below 1: the image is too small for the layers
  void check() const;                    // UserError
};

class PatchGan : public Discriminator {
 public:
  explicit PatchGan(const PatchGanConfig& config, const NetworkOptions& options = {});

  const PatchGanConfig& config() const noexcept { return config_; }
  // Convolutions normal of deviation 0.02, biases 0, norms 1 and 0.
  void initialise(uint64_t seed) override;
  Tensor logits(const Tensor& image_B3XX) const override;  // [B, 1, h, w]

 private:
  struct Stage {
    Tensor weight_OIkk, bias_O;          // no bias where a norm follows
    Tensor norm_weight_O, norm_bias_O;   // undefined in the first and the last stage
    int64_t stride = 1;
  };
  PatchGanConfig config_;
  NetworkOptions options_;
  std::vector<Stage> stages_;
};

}  // namespace varscale::losses
