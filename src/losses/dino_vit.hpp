// The DINO vision transformer, frozen, for its features.
//
//   const DinoVit vit(read_weights({"dino_deitsmall16_pretrain.pth"}));
//   std::vector<Tensor> maps_BCN = vit.features(image_B3XX);    // 224 px: five of [B, 384, 196]
//
// Weights  the public state dict's names: cls_token, pos_embed, patch_embed.proj.{weight,bias},
//          blocks.i.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,mlp.fc2}.{weight,bias}. Other names are passed
//          over (norm, which comes after the last feature, and heads); a block too many is an error.
// Errors   UserError names the file and the key: missing, of another shape, or of another network.
// Legend   B batch, C width, N patches, L = N + 1 tokens, H heads, D head width, X image side.
// Source   arXiv 2104.14294; facebookresearch/dino vision_transformer.py; which features and how the class
//          token joins them: arXiv 2301.09515, autonomousvision/stylegan-t networks/vit_utils.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "losses/network.hpp"
#include "nn/tensor.hpp"

namespace varscale::losses {

// The defaults are ViT-S/16, 21.6 M parameters.
struct DinoVitConfig {
  int64_t image_side = 224;
  int64_t patch = 16;
  int64_t width = 384;
  int64_t depth = 12;
  int64_t heads = 6;
  std::vector<int64_t> taps = {2, 5, 8, 11};  // features after these blocks, besides those before block 0

  int64_t patches() const noexcept { return (image_side / patch) * (image_side / patch); }
  void check() const;  // UserError
};

class DinoVit {
 public:
  explicit DinoVit(const WeightMap& weights, const DinoVitConfig& config = {}, const NetworkOptions& options = {});
  // Weights for trials without the published file; a function of (seed, name, index).
  static DinoVit hash_made(uint64_t seed, const DinoVitConfig& config = {}, const NetworkOptions& options = {});

  const DinoVitConfig& config() const noexcept { return config_; }
  // image float32 [B, 3, side, side] in [-1, 1], scaled here by ImageNet's means and deviations. Before block
  // 0 and after each tap: patch tokens plus the class token, [B, C, N], float32 (float64 where compute is).
  // Differentiable in the image, also twice.
  std::vector<Tensor> features(const Tensor& image_B3XX) const;

  // "dino_vit:" and the SHA-256 of the weights; "dino_vit:made:..." for hash_made(). For records.
  const std::string& identity() const noexcept { return identity_; }

 private:
  DinoVit(const WeightMap& weights, const DinoVitConfig& config, const NetworkOptions& options, bool made);

  struct Block {
    Tensor norm1_weight, norm1_bias, qkv_weight, qkv_bias, proj_weight, proj_bias;
    Tensor norm2_weight, norm2_bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias;
  };
  Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) const;
  Tensor attention(const Tensor& x_BLC, const Block& block) const;

  DinoVitConfig config_;
  NetworkOptions options_;
  Tensor cls_token_11C_, pos_embed_1LC_, patch_weight_, patch_bias_, mean_1311_, deviation_1311_;
  std::vector<Block> blocks_;
  std::string identity_;
};

}  // namespace varscale::losses
