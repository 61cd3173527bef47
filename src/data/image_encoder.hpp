// A tokenizer as this folder sees it: images to rows of tokens.
//
//   ImageEncoder encoder = load_encoder("tok.safetensors");
//   at::Tensor tokens_BL = encoder.encode(x_BCHW);
//
// Legend   B batch, C = 3 channels, H = W = image side, L tokens an image.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "records/token_file.hpp"

namespace varscale::data {

struct ImageEncoder {
  int64_t image_side = 0;
  std::vector<int64_t> scales;          // sides of the token maps
  std::string fingerprint, path;        // of the weights; where they came from
  records::QuantizerWeights quantizer;  // also fixes the vocabulary
  // float32 [B,3,H,W] in [-1,1] to int64 [B,L], coarse to fine. Called from one thread, without grad.
  std::function<at::Tensor(const at::Tensor& x_BCHW)> encode;
  at::Device device = at::kCPU;  // of what encode takes and gives
  std::string precision = "fp32";  // of the encoder's arithmetic, or "bf16"; codes are searched in float32
};

// The tokenizer of that file on `device`. UserError as tokenizer::Vqvae::load, and for another precision.
ImageEncoder load_encoder(const std::filesystem::path& path, at::Device device = at::kCPU,
                          const std::string& precision = "fp32");

}  // namespace varscale::data
