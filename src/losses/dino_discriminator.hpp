// A discriminator on the features of a frozen DINO transformer: five small heads of 1-D convolutions.
//
//   DinoDiscriminator discriminator(DinoVit(read_weights({"dino_vits16.safetensors"})), {.image_side = 256});
//   discriminator.initialise(seed);
//   Tensor logits_BP = discriminator.logits(discriminator.view(image_B3XX, keys));   // P = 5 x 196
//
// A head: a block of kernel 1, a block of kernel 9 added to its input over sqrt(2), a convolution to one
// channel. A block: convolution along the patches in raster order, wrapped around, with spectral norm; group
// norm; leaky ReLU of slope 0.2. The public heads normalise over 8 images at a time; this one within an image,
// so that a loss does not depend on which images come together.
//
// Legend   B batch, C width, N patches, P logits an image, X image side.
// Errors   UserError: settings that do not fit together.
// Source   arXiv 2301.09515 section 3; autonomousvision/stylegan-t networks/discriminator.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "losses/dino_vit.hpp"
#include "losses/discriminator.hpp"
#include "losses/spectral_norm.hpp"

namespace varscale::losses {

struct DinoDiscriminatorConfig {
  int64_t image_side = 256;      // pixels of the images judged
  double crop_probability = 0;   // share of images shown as a random crop of the transformer's side, unresized
  int64_t kernel = 9;            // odd
  int64_t groups = 32;           // of the norms; must divide the transformer's width

  void check(const DinoVitConfig& vit) const;  // UserError
};

class DinoDiscriminator : public Discriminator {
 public:
  // On the transformer's device; the heads' compute dtype may be another than the transformer's.
  DinoDiscriminator(DinoVit vit, const DinoDiscriminatorConfig& config, const NetworkOptions& options = {});

  const DinoVit& vit() const noexcept { return vit_; }
  const DinoDiscriminatorConfig& config() const noexcept { return config_; }
  // Convolutions normal of deviation 1 / sqrt(fan_in), biases 0, norms 1 and 0; spectral norms started.
  void initialise(uint64_t seed) override;
  void advance() override;  // one power iteration of every spectral norm
  // [B, 3, S, S], S the transformer's side: a random crop where the image's draw is below crop_probability,
  // else the image resized (bilinear to a larger side, means of areas to a smaller one).
  Tensor view(const Tensor& image_B3XX, const SampleKeys& keys) const override;
  // [B, P], the heads one after another. Images of side X are resized, views taken as they are.
  Tensor logits(const Tensor& image_B3XX) const override;

 private:
  struct Convolution {
    SpectralNorm spectral;
    Tensor bias_O;
  };
  struct Block {
    Convolution conv;
    Tensor norm_weight_C, norm_bias_C;
  };
  struct Head {
    Block first, second;
    Convolution cls;
  };
  Convolution make_convolution(const std::string& name, int64_t out, int64_t kernel);
  Block make_block(const std::string& name, int64_t kernel);
  Tensor convolve(const Convolution& conv, const Tensor& x_BCN) const;
  Tensor apply(const Block& block, const Tensor& x_BCN) const;
  Tensor resized(const Tensor& image_B3XX) const;

  DinoVit vit_;
  DinoDiscriminatorConfig config_;
  NetworkOptions options_;
  Tensor resize_SX_;  // one side of the resize as a product
  std::vector<Head> heads_;
};

}  // namespace varscale::losses
