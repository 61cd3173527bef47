// The residual quantiser of the multi-scale VQVAE: one codebook, a few phi convolutions, a token map a scale.
//
//   Quantizer quantizer = Quantizer::from_weights(token_file.quantizer(), scales);
//   Tensor x_BLC = quantizer.teacher_input(tokens_BL);       // what the transformer is fed
//
// Legend   B batch, C code width (Cvae), H = W the last side, L tokens, N = B h w, V codes, S scales.
// Source   arXiv 2404.02905 algorithms 1 and 2; FoundationVision/VAR models/quant.py for the numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/tensor.hpp"
#include "records/token_file.hpp"
#include "scaling/shape.hpp"
#include "tokenizer/layers.hpp"

namespace varscale::tokenizer {

// Which of `phis` convolutions serves scale k of `scales` (the public code's rule; its exact ties are
// broken by double rounding, so 10 scales and 4 phis give 0 0 1 1 1 2 2 3 3 3).
std::vector<int64_t> phi_of_scale(int64_t scales, int64_t phis);

struct QuantizerConfig {
  int64_t vocabulary = 4096, code_width = 32;
  scaling::ScaleList scales;
  int64_t phis = 4;        // shared over the scales
  double phi_ratio = 0.5;  // phi(h) = (1 - ratio) h + ratio conv3x3(h)
  double beta = 0.25;      // weight of the commitment term
  bool unit_norm =
      false;  // nearest code by cosine instead of Euclidean distance (public: using_znorm)
};

class Quantizer {
 public:
  // Parameters float32; zero, without grad as yet, where they are allocated.
  explicit Quantizer(QuantizerConfig config, const LeafOptions& leaves = {});
  // From what a token file holds of its tokenizer, and back.
  static Quantizer from_weights(const records::QuantizerWeights& weights,
                                scaling::ScaleList scales);
  records::QuantizerWeights weights() const;
  Quantizer to(at::Device device) const;  // a copy there, or one of the same tensors if they are
  const QuantizerConfig& config() const noexcept { return config_; }
  // quantize.embedding.weight [V,C], quantize.quant_resi.qresi_ls.<p>.weight [C,C,3,3], .bias [C]
  const nn::NamedTensors& parameters() const noexcept { return parameters_; }
  Tensor embedding_VC() const { return parameters_[0].tensor; }

  // Nearest codes of a feature map, coarse to fine, each on what the coarser ones left. f_BCHW float32.
  // Returns S tensors [B, side^2] int64. No gradient.
  std::vector<Tensor> encode(const Tensor& f_BCHW) const;

  // Embeds the map of scale k ([B, side_k^2] int64, or codes already looked up as [B, side_k^2, C]),
  // brings it to the last side (bicubic) and applies its phi: what f_hat grows by. [B, C, H, W].
  Tensor contribution(int64_t k, const Tensor& tokens_or_codes) const;

  // All scales' cumulative f_hat, S tensors [B, C, H, W], from tokens_BL int64.
  std::vector<Tensor> cumulative(const Tensor& tokens_BL) const;

  // f_hat after some scales, area-averaged to the side of scale k: [B, side_k^2, C].
  Tensor next_input(int64_t k, const Tensor& f_hat_BCHW) const;

  // The transformer's input for scales 1..S-1: [B, L - side_0^2, C] float32. No gradient.
  Tensor teacher_input(const Tensor& tokens_BL) const;

  // The pieces of encode(), for training: phi of scale k on a map at the last side; the remainder seen at
  // the side of scale k as rows [B side_k^2, C]; the nearest code of each row [N], int64, no gradient.
  Tensor apply_phi(int64_t k, const Tensor& h_BCHW) const;
  Tensor residual_codes(int64_t k, const Tensor& rest_BCHW) const;
  Tensor nearest(const Tensor& z_NC) const;
  // Softmax over the codes of -distance^2 / temperature, [N, V], with gradients to rows and codes.
  Tensor soft_use(const Tensor& z_NC, double temperature) const;

 private:
  QuantizerConfig config_;
  nn::NamedTensors parameters_;
  std::vector<int64_t> phi_of_scale_;
};

}  // namespace varscale::tokenizer
