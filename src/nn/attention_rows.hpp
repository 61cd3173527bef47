// Block-causal attention on the CPU: own kernels, since ATen's goes by a BLAS whose small products reach half of an AMD
// processor's rate, and in calls map by map whose gradients are copied and added up in passes of their own.
//
// 32 queries at a time: their scores on all keys that they see are [keys, 32], a query a lane, so that the softmax runs along
// the lanes; all products are tiles of 8 rows and 32 lanes that stay in registers. Keeps the log-sum-exp alone for backward.
// The same bits at any number of threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/attention.hpp"

namespace varscale::nn {

// Whether the float32 kernel takes them: float32 on the CPU, rows of D contiguous, D a multiple of 16.
bool has_attention_rows(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD);

struct Attended {
  Tensor out_BLHD, lse_BHL;  // in the dtype of q; float32, of scale q k^T
};
Attended attention_rows(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD, const std::vector<PrefixSpan>& spans,
                        double scale);

// [B, L, H, D] in memory, like the projection that they flow back into.
struct AttentionGrads {
  Tensor dq_BLHD, dk_BLHD, dv_BLHD;
};
AttentionGrads attention_rows_backward(const Tensor& grad_BLHD, const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                                       const Attended& attended, const std::vector<PrefixSpan>& spans, double scale);

// The same in bf16, where the processor has dot products of bf16 pairs; not where it has AMX, by which oneDNN is faster.
bool has_bf16_dot_products();
bool has_attention_bf16(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD);
Attended attention_bf16(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD, const std::vector<PrefixSpan>& spans,
                        double scale);
AttentionGrads attention_bf16_backward(const Tensor& grad_BLHD, const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                                       const Attended& attended, const std::vector<PrefixSpan>& spans, double scale);

}  // namespace varscale::nn
