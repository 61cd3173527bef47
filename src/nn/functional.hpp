// The small differentiable pieces a VAR block is made of.
//
// Legend   B batch, L tokens, C width, H heads, D head width, N = B L, V codes.
#pragma once

#include <ATen/core/Tensor.h>

namespace varscale::nn {

using at::Tensor;

// LayerNorm without affine part in float32, then x (1 + scale) + shift. x_BLC float32, scale and
// shift [B, 1, C] float32; the result has dtype `out`.
Tensor modulated_norm(const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C,
                      double eps, at::ScalarType out);

// x / max(|x|, 1e-12) over the last dimension; half precisions are computed and returned in
// float32.
Tensor unit_norm(const Tensor& x);

// Linear layer whose weights are used in dtype `compute` (gradients reach the float32 weights).
// bias may be undefined.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, at::ScalarType compute);

// What a softmax classifier says of its targets. One pass over the logits.
struct TokenScores {
  Tensor loss_N;     // cross-entropy in nats, float32, differentiable
  Tensor correct_N;  // float32, 1 where the largest logit is the target's
};

// logits_NV float32 or bf16 (softmax and loss are float32), targets_N int64.
TokenScores score_tokens(const Tensor& logits_NV, const Tensor& targets_N);

}  // namespace varscale::nn
