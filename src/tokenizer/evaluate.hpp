// What a tokenizer keeps of images, and how it uses its codes.
//
//   TokenizerReport report = evaluate(tokenizer, images, /*limit=*/0);
//   report.psnr_db; report.scales[0].perplexity;
//
// Legend   B batch, S scales, X image side.
#pragma once

#include <ATen/core/Tensor.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "tokenizer/codebook.hpp"
#include "tokenizer/image_source.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::tokenizer {

struct TokenizerReport {
  int64_t images = 0;
  double psnr_db = 0;      // mean over images of 10 log10(4 / mse), images in [-1, 1], clamped
  double mse = 0, l1 = 0;  // means over pixels and channels, same range
  std::vector<CodebookUse> scales;  // one a scale
  CodebookUse all;                  // all scales together
  int64_t dead_codes() const { return all.codes - all.used; }
  nlohmann::ordered_json json() const;
};

// Over the first `limit` images (0: all), centre crops as the source gives them.
TokenizerReport evaluate(const Vqvae& tokenizer, const ImageSource& images, int64_t limit = 0,
                         int64_t batch = 32);

// The images, then what the first 1, 2, ..., S scales give: S + 1 tensors [B, 3, X, X] in [-1, 1].
std::vector<Tensor> reconstructions_by_scale(const Vqvae& tokenizer, const Tensor& image_B3XX);

}  // namespace varscale::tokenizer
