// A codebook that follows its data: k-means start, exponential averages, restart of codes that died.
//
//   CodebookAverage average(quantizer.embedding_VC(), /*decay=*/0.98);
//   average.start(kmeans(z_NC, 256, 8, seed));
//   average.update(out.residuals, out.tokens);                // once a step
//   int64_t revived = average.restart(out.residuals, 0.05, seed, step);
//
// Legend   C code width, N rows, S scales, V codes. All on the CPU, float32; nothing has a gradient.
// Source   EMA codebook: arXiv 1711.00937, appendix A.1; restarts: arXiv 2005.00341, section 3.1.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "nn/tensor.hpp"

namespace varscale::tokenizer {

using at::Tensor;

// Lloyd's algorithm from `codes` rows of z_NC drawn without repetition (with, if there are fewer). Clusters
// that lose all rows are put on random rows. Returns [codes, C]; a function of (z_NC, seed).
Tensor kmeans(const Tensor& z_NC, int64_t codes, int64_t iterations, uint64_t seed);

class CodebookAverage {
 public:
  // Keeps a handle of the codebook and writes into it.
  CodebookAverage(Tensor embedding_VC, double decay);

  // Begins anew from these codes, each with the weight of an equal share.
  void start(const Tensor& codes_VC);

  // weight_v <- decay weight_v + (1 - decay) hits_v, likewise the sums of the rows; code = sum / weight.
  // residuals: S tensors [N_k, C], tokens: S tensors [N_k] int64.
  void update(const std::vector<Tensor>& residuals, const std::vector<Tensor>& tokens);

  // Codes whose weight is below `share` of an equal one become residuals, drawn equally from the scales
  // by (seed, step), with the weight of an equal share. Returns how many.
  int64_t restart(const std::vector<Tensor>& residuals, double share, uint64_t seed, int64_t step);

  nn::NamedTensors state() const {
    return {{"codebook.weight", weight_V_}, {"codebook.sum", sum_VC_}};
  }

 private:
  Tensor embedding_VC_, weight_V_, sum_VC_;
  double decay_;
};

// How a set of tokens uses the codes, from how often each was chosen.
struct CodebookUse {
  int64_t codes = 0;      // V
  int64_t used = 0;       // chosen at least once
  double perplexity = 0;  // exp of the entropy of the choices, 1 to V
  double used_share() const { return static_cast<double>(used) / static_cast<double>(codes); }
};
CodebookUse codebook_use(const Tensor& hits_V);

// The public code's running mean of hits_SV (its weights: 0.1 for the first 100 updates, then 0.01).
void update_hits(const Tensor& mean_SV, const Tensor& hits_SV, int64_t updates_before);

}  // namespace varscale::tokenizer
