// ResNet-50 as torchvision has it: a classifier that the user brings, for rejection sampling (generate/reject.hpp).
//
//   const ResNet50 classifier = ResNet50::load("resnet50-11ad3fa6.pth");
//   Tensor p_BK = classifier.probabilities(images_u8_B3HW);
//
// Input    uint8 of any size: the short side brought to 256 (bilinear with antialiasing; not if it has it already), the
//          central 224 x 224, x / 255, less the mean (0.485, 0.456, 0.406), over the deviation (0.229, 0.224, 0.225).
// Network  Stride in the 3 x 3 convolution of a block (what torchvision has, "v1.5"), batch norm with eps 1e-5.
// Weights  320 tensors under torchvision's names, float32, in a .pth or a .safetensors file; `num_batches_tracked` may be
//          missing. Any number of classes. Batch norm is folded into the convolutions in float64.
// Errors   UserError with the file and the tensor: missing, of another shape, not finite, or not the network's.
// Legend   B images, H, W pixels, K classes.
// Source   arXiv 1512.03385; the structure and the preprocessing of pytorch/vision models/resnet.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "evaluate/named_weights.hpp"
#include "nn/tensor.hpp"

namespace varscale::evaluate {

using at::Tensor;

class ResNet50 {
 public:
  using Weights = NamedWeights;
  ResNet50(const Weights& weights, const std::string& where);
  static ResNet50 load(const std::filesystem::path& path);

  int64_t classes() const { return fc_weight_KD_.size(0); }
  const std::string& identity() const noexcept { return identity_; }  // SHA-256 over the weights, in hex

  // float32 [B,3,224,224], as the network takes it.
  static Tensor prepare(const Tensor& images_u8_B3HW);
  Tensor logits(const Tensor& x_B3HW) const;  // prepared images, of any side from 32 on; [B,K]
  // float64 [B,K]. No gradient.
  Tensor probabilities(const Tensor& images_u8_B3HW) const;

  // All tensors with their shapes, in state-dict order, uninitialised.
  static nn::NamedTensors state(int64_t classes);

 private:
  Tensor unit(const std::string& name, const Tensor& x_BCHW, int64_t stride) const;
  Tensor block(const std::string& name, const Tensor& x_BCHW, int64_t stride) const;

  std::map<std::string, FoldedConvolution, std::less<>> units_;  // by the name of the convolution
  Tensor fc_weight_KD_, fc_bias_K_;
  std::string identity_;
};

}  // namespace varscale::evaluate
