// VAR: a transformer that predicts the token maps of an image from coarse to fine.
//
//   Var model(VarShape::from_depth(16, tokens, 1000));
//   model.initialise({.seed = 0});
//   Tensor logits_BLV = model.forward(labels_B, teacher_BLE, {.compute = at::kBFloat16});
//
// Plain model code: no rank, shard or stream. The pieces (embed, block, head) are public so that a
// wrapper can gather and release weights between them, and so that sampling can run them map by
// map.
//
// Legend   B batch, L tokens, C width, H heads, D head width, E code width (Cvae), V codes, S
//          scales.
// Source   arXiv 2404.02905; FoundationVision/VAR models/{var,basic_var}.py for names and numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "nn/attention.hpp"
#include "nn/functional.hpp"
#include "nn/tensor.hpp"
#include "scaling/shape.hpp"

namespace varscale::models {

using at::Tensor;

// The public initialisation: normal weights of deviation `std` (no effective truncation), zero
// biases, output projections over sqrt(2 depth), AdaLN and head scaled as below.
struct InitOptions {
  uint64_t seed = 0;
  double std = -1;            // -1: sqrt(1 / (3 width))
  double adaln = 0.5;         // factor on scale and shift rows of AdaLN
  double adaln_gamma = 1e-5;  // factor on the gate rows
  double head = 0.02;         // factor on the head
};

// Where the parameters live, and in what form.
struct VarOptions {
  at::Device device = at::kCPU;
  // dtype of the parameters that only products use; all others are float32. With bfloat16 the owner of
  // the master weights keeps them elsewhere.
  at::ScalarType weights = at::kFloat;
  bool allocate = true;  // false: leaves without storage (nn::absent_leaf), for a wrapper to fill
};

// The computation of one block on {x_BLC, class_BC, shared_B6C}; the last is undefined where AdaLN is
// not shared. It may be called again in backward.
using BlockBody = std::function<Tensor(const std::vector<Tensor>&)>;
using BlockRunner =
    std::function<Tensor(int64_t index, const std::vector<Tensor>& inputs, const BlockBody& body)>;

struct ForwardOptions {
  at::ScalarType compute = at::kFloat;  // dtype of matrix products and attention
  // Drop-path factors [2 depth, B] (0, or 1 / keep rate), row 2 i for attention and 2 i + 1 for the
  // feed-forward part of block i; undefined: nothing is dropped.
  Tensor drop_path_SB = {};
  // Backward computes the inputs of linear layers again (modulated norms, GELU) instead of keeping them.
  bool recompute_inputs = false;
  // Runs a block's body when its weights are there; empty: at once.
  BlockRunner run_block = {};
};

// Keys and values of the maps so far, for sampling: one pair a block, preallocated for all L
// tokens.
struct KvCache {
  std::vector<Tensor> k_BHLD, v_BHLD;
  int64_t tokens = 0;  // filled
};

class Var {
 public:
  // Parameters are uninitialised and require grad.
  explicit Var(scaling::VarShape shape, const VarOptions& options = {});

  const scaling::VarShape& shape() const noexcept { return shape_; }
  // In the public order, under the public names (without the buffers lvl_1L, attn_bias_for_masking,
  // zero_k_bias).
  const nn::NamedTensors& parameters() const noexcept { return parameters_; }

  // The same parameters by the part of the forward pass that needs them: first all that lies outside the
  // blocks, then each block.
  std::vector<nn::NamedTensors> units() const;

  // Every element is a function of (seed, parameter name, index). For allocated float32 parameters.
  void initialise(const InitOptions& options);

  // Teacher forcing. labels_B int64 in [0, classes] (classes: the null label), teacher_BLE float32
  // with the input of the maps 1, 2, ... (fewer maps than S are allowed: progressive training).
  // Returns logits [B, L, V] of the maps given, in `compute`.
  Tensor forward(const Tensor& labels_B, const Tensor& teacher_BLE,
                 const ForwardOptions& options = {}) const;

  // --- the pieces ------------------------------------------------------------------------------
  // What a forward pass derives from the labels alone.
  struct Condition {
    Tensor class_BC;    // class embedding rows
    Tensor shared_B6C;  // [B, 1, 6, C] of the shared AdaLN; undefined otherwise
  };
  Condition condition(const Tensor& labels_B) const;
  // Linear embedding of codes, without positions: [B, L, C] float32.
  Tensor embed_words(const Tensor& codes_BLE) const;
  // Start tokens and embedded teacher input, with level and position embeddings: [B, L, C] float32.
  Tensor embed(const Condition& condition, const Tensor& teacher_BLE) const;
  // The same for map k > 0 alone (sampling): [B, side_k^2, C].
  Tensor embed_map(int64_t k, const Tensor& input_BLE) const;
  // What the condition adds to one block: gates, scales and shifts, [B, 1, C] float32 each.
  struct Modulation {
    Tensor gamma1, gamma2, scale1, scale2, shift1, shift2;
  };
  Modulation modulation(int64_t index, const Condition& condition, at::ScalarType compute) const;
  // How a block computes: ForwardOptions' two settings.
  struct Arithmetic {
    at::ScalarType compute = at::kFloat;
    bool recompute_inputs = false;
  };
  // The two residual branches of a block, before their gates gamma1 and gamma2: [B, L, C] in
  // `compute`.
  Tensor attention_branch(int64_t index, const Tensor& x_BLC, const Modulation& mod,
                          const std::vector<nn::PrefixSpan>& spans, Arithmetic arithmetic) const;
  Tensor feed_forward_branch(int64_t index, const Tensor& x_BLC, const Modulation& mod, Arithmetic arithmetic) const;
  Tensor block(int64_t index, const Tensor& x_BLC, const Condition& condition,
               const std::vector<nn::PrefixSpan>& spans, const ForwardOptions& options) const;
  // One block on the tokens of the next map, attending to the cache, which it extends.
  Tensor block_cached(int64_t index, const Tensor& x_BLC, const Condition& condition,
                      KvCache& cache, at::ScalarType compute) const;
  // The head's modulated norm, and the logits after it, both in `compute`.
  Tensor head_norm(const Tensor& x_BLC, const Condition& condition, at::ScalarType compute) const;
  Tensor head(const Tensor& x_BLC, const Condition& condition, at::ScalarType compute) const;
  KvCache make_cache(int64_t batch, at::ScalarType compute) const;
  std::vector<nn::PrefixSpan> spans(int64_t tokens) const { return prefix_plan_.spans(tokens); }

 private:
  struct Block {
    Tensor ada_gss;  // shared AdaLN: [1, 1, 6, C]
    Tensor scale_mul, q_bias, v_bias, qkv_weight, proj_weight, proj_bias;
    Tensor fc1_weight, fc1_bias, fc2_weight, fc2_bias;
    Tensor ada_weight, ada_bias;  // own AdaLN
  };
  enum class Use { kAnywhere, kProducts };
  Tensor add(const std::string& name, std::vector<int64_t> shape, Use use = Use::kAnywhere);
  // q (scaled where the norm is on), k and v of the modulated x as [B, H, L, D] in `compute`.
  nn::Heads project_qkv(const Block& block, const Tensor& x_BLC, const Modulation& mod, Arithmetic arithmetic) const;
  // A linear layer of the modulated x.
  static Tensor norm_and_linear(const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C, const Tensor& weight,
                                const Tensor& bias, Arithmetic arithmetic);
  double attention_scale() const;

  scaling::VarShape shape_;
  VarOptions options_;
  nn::PrefixPlan prefix_plan_;
  nn::NamedTensors parameters_;
  Tensor pos_start_, pos_1LC_, word_weight_, word_bias_, class_emb_, lvl_emb_;
  Tensor shared_ada_weight_, shared_ada_bias_;
  std::vector<Block> blocks_;
  Tensor head_ada_weight_, head_ada_bias_, head_weight_, head_bias_;
  Tensor level_of_token_L_;
};

// The initial values of the elements [first, first + out_P.numel()) of one parameter, in memory order:
// what initialise() fills in. out_P contiguous float32.
void fill_initial(const std::string& name, const scaling::VarShape& shape,
                  const InitOptions& options, int64_t first, const Tensor& out_P);

// --- randomness of training, keyed by (seed, step, global sample, site) -------------------------

// Factors for ForwardOptions::drop_path_SB, or an undefined tensor where the shape drops nothing.
Tensor drop_path_factors(const scaling::VarShape& shape, uint64_t seed, int64_t step,
                         const std::vector<int64_t>& sample_ids);

// labels_B with a share `rate` replaced by the null class.
Tensor drop_labels(const Tensor& labels_B, int64_t classes, double rate, uint64_t seed,
                   int64_t step, const std::vector<int64_t>& sample_ids);

}  // namespace varscale::models
