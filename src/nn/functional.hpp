// The small differentiable pieces a VAR block is made of.
//
// On the CPU in float32 and bf16 one pass over memory each way; elsewhere, and in float64, ATen's operations. Differentiable once.
//
// Legend   B batch, L tokens, C width, H heads, D head width, N = B L, V codes.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace varscale::nn {

using at::Tensor;

// LayerNorm without affine part in float32, then x (1 + scale) + shift. x_BLC float32, scale and
// shift [B, 1, C] float32; the result has dtype `out`.
Tensor modulated_norm(const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C,
                      double eps, at::ScalarType out);

// x + branch gate. x_BLC float32, branch_BLC float32 or bf16, gate [B, 1, C] float32; the result is float32.
Tensor gated_residual(const Tensor& x_BLC, const Tensor& branch_BLC, const Tensor& gate_B1C);

// x / max(|x|, 1e-12) over the last dimension; half precisions are computed and returned in
// float32.
Tensor unit_norm(const Tensor& x);

// Of a projection laid out as [B, L, 3, H, D]: views of it.
struct Heads {
  Tensor q_BHLD, k_BHLD, v_BHLD;
};
Heads split_heads(const Tensor& qkv_BLM, int64_t heads);
// The same with q = unit_norm(.) scale and k = unit_norm(.), in its dtype. scale float32 [1, H, 1, 1], above zero.
Heads unit_heads(const Tensor& qkv_BLM, const Tensor& scale_1H11);

// Linear layer whose weights are used in dtype `compute` (gradients reach the float32 weights).
// bias may be undefined.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, at::ScalarType compute);

// linear(inner(inputs), ...) that keeps the inputs and not what inner makes of them: backward runs it again. inner gives the
// dtype `compute` and uses no weights; bias is defined.
using Inner = std::function<Tensor(const std::vector<Tensor>&)>;
Tensor linear_of(const Inner& inner, const std::vector<Tensor>& inputs, const Tensor& weight, const Tensor& bias,
                 at::ScalarType compute);

// GELU in its tanh form, of float32 or half precisions.
Tensor gelu_tanh(const Tensor& x);

// Sum of squares in double of a contiguous float32 tensor, as a float64 scalar on its device. On the CPU
// in chunks of a fixed order: the number of threads changes no bit.
Tensor sum_of_squares(const Tensor& x);

// What a softmax classifier says of its targets. One pass over the logits.
struct TokenScores {
  Tensor loss_N;     // cross-entropy in nats, float32, differentiable
  Tensor correct_N;  // float32, 1 where the largest logit is the target's
};

// logits_NV float32 or bf16 (softmax and loss are float32), targets_N int64.
TokenScores score_tokens(const Tensor& logits_NV, const Tensor& targets_N);

// The same for logits that nobody reads afterwards: on the CPU their memory becomes that of their gradient, so that there is
// one [N, V] instead of two. One backward.
TokenScores score_and_consume(const Tensor& logits_NV, const Tensor& targets_N);

}  // namespace varscale::nn
