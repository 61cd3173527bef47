// Inception v3 as the published FID uses it: the 2015 TensorFlow network with its own poolings and 1008 classes.
//
//   const Inception network = Inception::load("pt_inception-2015-12-05-6726825d.pth", kFidNetwork);
//   const Inception stand_in = Inception::random(/*seed=*/0);   // no file at hand
//   Inception::Output out = network.run(images_u8_B3HW);        // out.pool3_BD, out.spatial_BE
//   Tensor logits_BC = network.logits(out.pool3_BD);
//
// Input    uint8, resized to 299 x 299 by resize_tf1(), then (x - 128) / 128.
// Differs from torchvision's network: the average poolings of 5b to 7b leave the padding out of the count, 7c pools by
//          maximum, batch norm has eps 1e-3, there is no auxiliary head.
// Weights  566 tensors under pytorch-fid's names, float32, in a .pth or a .safetensors file. `num_batches_tracked` may
//          be missing. Batch norm is folded into the convolutions in float64.
// Random   He-scaled convolutions (deviation sqrt(2 / fan_in)), batch norm 1, 0, 0, 1, `fc` at 1 / sqrt(fan_in): a
//          function of the seed. Distances then rank sets of images roughly and compare with no published number.
// Errors   UserError with the file and the tensor: missing, of another shape, or not the network's.
// Legend   B images, H, W pixels, D = 2048, E = 17 x 17 x 7 = 2023, C = 1008 classes.
// Source   arXiv 1512.00567, 1706.08500; the structure of mseitz/pytorch-fid inception.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "evaluate/feature_network.hpp"
#include "evaluate/named_weights.hpp"
#include "nn/tensor.hpp"

namespace varscale::evaluate {

// Bilinear as TensorFlow 1 has it without align_corners: output place i reads from i (in / out), with no half-pixel
// offset and no antialiasing, the place in float32. x_BCHW float32; the result [B,C,height,width], channels last
// in memory.
Tensor resize_tf1(const Tensor& x_BCHW, int64_t height, int64_t width);

class Inception : public FeatureNetwork {
 public:
  using Weights = NamedWeights;
  // Called with the name of each block, as "Mixed_5b" or "MaxPool_1", and its output; may be empty.
  using Observer = std::function<void(std::string_view block, const Tensor& output)>;

  struct Output {
    Tensor pool3_BD;    // float32 [B,2048]: FID, KID, precision and recall
    Tensor spatial_BE;  // float32 [B,2023]: sFID; channels 0 to 6 of Mixed_6d.branch1x1, flattened as (17, 17, 7)
  };

  // `name` is the user's word for what the weights are; empty: "inception-" and 8 digits of their hash.
  Inception(const Weights& weights, const std::string& where, std::string name);
  static Inception load(const std::filesystem::path& path, std::string name = "");
  static Inception random(uint64_t seed);

  std::string name() const override { return name_; }
  bool is_random() const override { return is_random_; }
  std::string identity() const override { return identity_; }
  int64_t dimension() const override { return 2048; }
  int64_t spatial_dimension() const override { return 17 * 17 * 7; }
  Tensor batch(const Tensor& images_u8_B3HW) const override { return run(images_u8_B3HW).pool3_BD; }
  BatchFeatures both(const Tensor& images_u8_B3HW) const override {
    Output output = run(images_u8_B3HW);
    return {std::move(output.pool3_BD), std::move(output.spatial_BE)};
  }

  Output run(const Tensor& images_u8_B3HW, const Observer& observe = {}) const;
  int64_t classes() const override { return is_random_ ? 0 : 1008; }
  // Without bias, as the Inception score takes them: [B,D] to [B,1008].
  Tensor logits(const Tensor& pool3_BD) const override;

  // All tensors of the network with their shapes, in state-dict order, uninitialised.
  static nn::NamedTensors state();

 private:
  Tensor unit(const std::string& name, const Tensor& x_BCHW, int64_t stride = 1, bool pad = true) const;
  Tensor mixed_a(const std::string& name, const Tensor& x_BCHW) const;
  Tensor mixed_b(const std::string& name, const Tensor& x_BCHW) const;
  Tensor mixed_c(const std::string& name, const Tensor& x_BCHW, Tensor* branch1x1 = nullptr) const;
  Tensor mixed_d(const std::string& name, const Tensor& x_BCHW) const;
  Tensor mixed_e(const std::string& name, const Tensor& x_BCHW, bool max_pool) const;

  std::map<std::string, FoldedConvolution, std::less<>> units_;
  Tensor fc_weight_CD_;
  std::string name_, identity_;
  bool is_random_ = false;
};

}  // namespace varscale::evaluate
