// Exact parameters and FLOPs of a VAR model, from its shape alone.
//
//   VarShape d16 = VarShape::from_depth(16, TokenSpace{4096, 32, scales}, 1000);
//   count_parameters(d16).total();              // 310,283,520
//   ForwardFlops forward = count_forward(d16);  // forward.total(): 298.5e9 for one image
//   training_flops(d16, images);                // by kFlopFormula
//
// A number without its definition is worthless, so each rule of counting has a name: by_rule() and
// kFlopFormula go into every run's records. FLOPs are whole numbers in doubles, exact below 2^53 =
// 9e15 (one image of d30 at 256 px is 1.9e12).
//
// Errors   UserError where VarShape::check() finds a size that makes no model.
// Source   arXiv 2404.02905, section 5 and Eq. 8; public layout of the VAR state dict.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "scaling/shape.hpp"

namespace varscale::scaling {

// Learned numbers, by part. Buffers (the zero key bias, level numbers) are not counted.
struct ParameterCount {
  int64_t class_embedding = 0;  // (classes + 1) w: the last row is the null class
  int64_t positions = 0;        // start, one per token, one per scale
  int64_t word_embedding = 0;   // linear Cvae -> w
  int64_t attention = 0;        // all blocks: qkv, q and v bias, scale per head, output projection
  int64_t feed_forward = 0;     // all blocks
  int64_t adaln = 0;  // all blocks: own projections, or the shared one and a table per block
  int64_t head_adaln = 0;
  int64_t head = 0;        // linear w -> V
  int64_t paper_rule = 0;  // Eq. 8, not part of the total: 18 d w^2, with shared AdaLN 12 d w^2

  int64_t embeddings() const { return class_embedding + positions + word_embedding; }
  int64_t blocks() const { return attention + feed_forward + adaln; }
  int64_t blocks_no_adaln() const { return attention + feed_forward; }
  int64_t total() const { return embeddings() + blocks() + head_adaln + head; }
  int64_t non_embedding() const { return total() - embeddings(); }

  // Rules in the order of the records: n_total (what the paper's figures plot), n_non_embedding,
  // n_blocks, n_blocks_no_adaln, n_paper_rule.
  std::vector<std::pair<std::string, int64_t>> by_rule() const;
  int64_t by_rule(std::string_view rule) const;  // UserError naming the known rules
};

ParameterCount count_parameters(const VarShape& shape);

// The definition that count_forward() and training_flops() follow; recorded as `flop_formula`.
inline constexpr std::string_view kFlopFormula =
    "exact-v1: 3 x forward, 2 per multiply-add, masked attention, AdaLN once per image, no "
    "recompute";

// Forward work of one scale's tokens for one image under teacher forcing.
struct ScaleFlops {
  double word_embedding = 0;  // none for the first scale, which is the class embedding
  double linear = 0;          // qkv, projection and feed-forward of all blocks
  double attention = 0;  // q k^T and p v of all blocks, only pairs the block-causal mask allows
  double head = 0;
  double total() const { return word_embedding + linear + attention + head; }
};

struct ForwardFlops {
  std::vector<ScaleFlops> scales;
  double adaln = 0;  // of blocks and head: works on the condition, once per image
  double total() const;
  double attention() const;
  double attention_share() const { return attention() / total(); }
};

// Matrix products of one forward pass over one image: additions, norms, activations, softmax, the
// frozen tokenizer and the loss are left out.
ForwardFlops count_forward(const VarShape& shape);

// (query, key) pairs of one head that the block-causal mask allows: a token sees its own and all
// earlier scales. The square has tokens()^2.
int64_t attention_pairs(const ScaleList& scales);

double training_flops(const VarShape& shape, double images);  // kFlopFormula

// The usual estimate 6 N D. It overstates VAR by 31 to 45 % when N is the total, because AdaLN
// weights, a third of N, work once per image.
double six_nd(double parameters, double tokens);

// Units of the paper's equations 11 to 16.
constexpr double to_billions(double parameters) { return parameters / 1e9; }
constexpr double to_petaflop(double flops) { return flops / 1e15; }

}  // namespace varscale::scaling
