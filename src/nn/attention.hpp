// Block-causal attention over a pyramid of token maps, without a mask tensor over the whole square.
//
//   PrefixPlan plan(scales);                              // once per scale list
//   Tensor out_BLC = prefix_attention(q_BHLD, k_BHLD, v_BHLD, plan.spans(L), 1.0);
//
// Every token of map k sees all tokens of maps 0..k, so map k is one plain attention call of its
// queries on the key prefix: 62 % of the square at 256 px. The first, tiny maps are merged into one
// call with a small mask, because a call costs more than they do.
//
// Legend   B batch, H heads, L tokens, D head width, C = H D.
// Errors   VARSCALE_CHECK on shapes.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "scaling/shape.hpp"

namespace varscale::nn {

using at::Tensor;

// One attention call: queries [begin, end) on keys [0, end).
struct PrefixSpan {
  int64_t begin, end;
  Tensor mask_QK;  // additive, float32, only where several maps are merged; else undefined
};

class PrefixPlan {
 public:
  static constexpr int64_t kMergeBelow = 32;
  // Maps are merged from the front while the merged span has at most `merge_below` tokens. `device`:
  // where the masks are.
  explicit PrefixPlan(const scaling::ScaleList& scales, int64_t merge_below = kMergeBelow,
                      at::Device device = at::kCPU);
  // The spans of the first `tokens` tokens; `tokens` must end a map.
  std::vector<PrefixSpan> spans(int64_t tokens) const;

 private:
  scaling::ScaleList scales_;
  int64_t merge_below_;
  Tensor mask_QQ_;  // of the longest merged span; shorter ones have its first rows and columns
};

// softmax(scale q k^T, block-causal) v. q, k, v [B, H, L, D] of one floating dtype; returns
// [B, L, C] contiguous. Differentiable once.
Tensor prefix_attention(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                        const std::vector<PrefixSpan>& spans, double scale);

// The same through one dense mask over the square: the slow definition that tests compare with.
Tensor masked_attention(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                        const scaling::ScaleList& scales, double scale);

}  // namespace varscale::nn
