// A codebook that follows its data: k-means start, exponential averages, restart of codes that died.
//
//   CodebookAverage average(quantizer.embedding_VC(), /*decay=*/0.98);
//   average.start(kmeans(z_NC, 256, 8, seed));
//   average.update(hits_V, sums_VC);                          // once a step, of the whole batch
//   std::vector<RowChoice> rows = average.to_restart(0.05, {2, 8, 32}, seed, step);
//   average.restart(rows_nC);                                 // those rows of the residuals
//
// Legend   C code width, N rows, S scales, V codes. All on the device of the codes, float32; nothing has a gradient.
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

struct RowChoice {
  int64_t scale, row;
};

class CodebookAverage {
 public:
  // Keeps a handle of the codebook and writes into it.
  CodebookAverage(Tensor embedding_VC, double decay);

  // Begins anew from these codes, each with the weight of an equal share.
  void start(const Tensor& codes_VC);

  // weight_v <- decay weight_v + (1 - decay) hits_v, likewise the sums of the rows; code = sum / weight.
  // hits_V: how often each code was chosen; sums_VC: of the rows that chose it (code_sums()).
  void update(const Tensor& hits_V, const Tensor& sums_VC);

  // For each code whose weight is below `share` of an equal one, in their order, a row of the residuals, drawn
  // equally from the scales by (seed, step). `rows`: how many each scale has.
  std::vector<RowChoice> to_restart(double share, const std::vector<int64_t>& rows, uint64_t seed, int64_t step);
  // These codes become those rows [n, C], with the weight of an equal share.
  void restart(const Tensor& rows_nC);

  nn::NamedTensors state() const {
    return {{"codebook.weight", weight_V_}, {"codebook.sum", sum_VC_}};
  }

 private:
  Tensor embedding_VC_, weight_V_, sum_VC_;
  double decay_;
  double equal_ = 0;            // weight of an equal share, as to_restart() saw it
  std::vector<int64_t> weak_;  // codes that restart() replaces
};

// Sums of the rows by the code they chose, [V, C]: residuals S tensors [N_k, C], tokens S tensors [N_k] int64;
// counted: S tensors [N_k] float32 that the rows are multiplied by, or none.
Tensor code_sums(const std::vector<Tensor>& residuals, const std::vector<Tensor>& tokens,
                 const std::vector<Tensor>& counted, int64_t vocabulary);

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
