// LPIPS v0.1 with VGG16: how unlike two images look to a network trained to see.
//
//   const Lpips lpips(read_weights({"vgg16-397923af.pth", "lpips_heads.pth"}));   // .safetensors as well
//   Tensor loss = lpips.distances(reconstruction_B3XX, image_B3XX).sum() / global_batch;
//
// The image is scaled by fixed means and deviations a channel; at five places of VGG16 (relu 1_2, 2_2, 3_3,
// 4_3, 5_3) the features are divided by their length over the channels, squared differences are weighted by
// a head of one weight a channel, and averaged over the places. The distance is the sum of the five.
//
// Weights  torchvision's names features.N.weight and features.N.bias of VGG16; the heads are
//          lin<i>.model.1.weight [1, n, 1, 1] or lin<i> [n], i = 0 ... 4, n = 64 128 256 512 512. Other
//          names than features.* and lin* are passed over (a classifier, for example).
// Errors   UserError names the file and the key: missing, of another shape, or of another network.
// Legend   B batch, X image side (16 at least; images need not be square).
// Source   arXiv 1801.03924; richzhang/PerceptualSimilarity lpips/lpips.py, net='vgg'.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <string>
#include <vector>

#include "losses/network.hpp"

namespace varscale::losses {

class Lpips {
 public:
  static constexpr int64_t kLayers = 5;
  static constexpr int64_t kLeastSide = 16;  // four halvings

  explicit Lpips(const WeightMap& weights, const NetworkOptions& options = {});
  // Weights for trials without the published files: convolutions at deviation sqrt(2 / fan_in), heads
  // uniform in [0, 1); a function of (seed, name, index). Its distances mean little to an eye.
  static Lpips hash_made(uint64_t seed, const NetworkOptions& options = {});

  // [B] float32 (float64 where compute is), differentiable in both images; give the one that needs no
  // gradient without one. a, b float32 [B, 3, X, X] in [-1, 1]. An image's distance does not depend on the
  // others of the batch.
  Tensor distances(const Tensor& a_B3XX, const Tensor& b_B3XX) const;
  Tensor layer_distances(const Tensor& a_B3XX, const Tensor& b_B3XX) const;  // [B, 5], before the sum
  // The five raw feature maps [B, n, h, w] in the compute dtype.
  std::vector<Tensor> features(const Tensor& image_B3XX) const;

  // "lpips_vgg16:" and the SHA-256 of the weights; "lpips_vgg16:made:..." for hash_made(). For records.
  const std::string& identity() const noexcept { return identity_; }

 private:
  Lpips(const WeightMap& weights, const NetworkOptions& options, bool made);

  struct Conv {
    Tensor weight_OIkk, bias_O;
  };
  NetworkOptions options_;
  std::vector<Conv> convs_;  // the 13 of VGG16, in order
  std::array<Tensor, kLayers> heads_C_;
  Tensor shift_1311_, scale_1311_;
  std::string identity_;
};

}  // namespace varscale::losses
