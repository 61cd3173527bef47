// What a tokenizer keeps of images, and how it uses its codes.
//
//   Measured some = measure(tokenizer, image_B3XX);
//   TokenizerReport report = summarise(some.errors_B3, some.hits_SV);
//   report.psnr_db; report.scales[0].perplexity;
//
// Figures of one image depend on that image alone, so a report is one over any split of the images: measure() parts of
// them anywhere, and summarise() the rows in the order of the images. What needs other networks is in
// tokenizer_evaluation/judge.hpp.
//
// Legend   B batch, N all images, S scales, V codes, X image side.
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

// Some images through the tokenizer.
struct Measured {
  Tensor reconstruction_B3XX;  // float32, clamped to [-1, 1]
  Tensor errors_B3;            // float64: mean squared error, mean absolute error, PSNR in dB
  Tensor hits_SV;              // int64: how often each scale chose each code
};
Measured measure(const Vqvae& tokenizer, const Tensor& image_B3XX);

// The rows of errors of all images, in their order, and the sum of the hits.
TokenizerReport summarise(const Tensor& errors_N3, const Tensor& hits_SV);

// How many images there are to judge on: the first `limit`, all where that is 0. UserError: none.
int64_t images_judged(const ImageSource& images, int64_t limit);

// The images, then what the first 1, 2, ..., S scales give: S + 1 tensors [B, 3, X, X] in [-1, 1].
std::vector<Tensor> reconstructions_by_scale(const Vqvae& tokenizer, const Tensor& image_B3XX);

}  // namespace varscale::tokenizer
