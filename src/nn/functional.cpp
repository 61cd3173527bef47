#include "nn/functional.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace varscale::nn {

namespace {

// Half precisions are computed in float32; float32 and float64 as they are.
Tensor at_least_float(const Tensor& x) {
  const auto type = x.scalar_type();
  return type == at::kBFloat16 || type == at::kHalf ? x.to(at::kFloat) : x;
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Keeps the softmax instead of log-probabilities and their gradient: one [N, V] tensor less each way.
class CrossEntropy : public torch::autograd::Function<CrossEntropy> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& logits_NV, const Tensor& targets_N) {
    const Tensor logits = at_least_float(logits_NV);
    const Tensor lse_N1 = at::logsumexp(logits, {1}, /*keepdim=*/true);
    const Tensor picked_N1 = logits.gather(1, targets_N.unsqueeze(1));
    ctx->save_for_backward({logits_NV, lse_N1, targets_N});
    return (lse_N1 - picked_N1).squeeze(1);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &logits_NV = saved[0], &lse_N1 = saved[1], &targets_N = saved[2];
    const Tensor grad_N1 = grads[0].unsqueeze(1);
    Tensor grad_NV = (at_least_float(logits_NV) - lse_N1).exp_().mul_(grad_N1);
    grad_NV.scatter_add_(1, targets_N.unsqueeze(1), grad_N1.neg());
    return {grad_NV.to(logits_NV.scalar_type()), Tensor()};
  }
};

}  // namespace

Tensor modulated_norm(const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C, double eps,
                      at::ScalarType out) {
  const Tensor normed = at::layer_norm(x_BLC, {x_BLC.size(-1)}, {}, {}, eps);
  return at::addcmul(shift_B1C, normed, scale_B1C + 1).to(out);
}

Tensor unit_norm(const Tensor& x) {
  const Tensor x32 = at_least_float(x);
  return x32 / at::linalg_vector_norm(x32, 2, {-1}, /*keepdim=*/true).clamp_min(1e-12);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, at::ScalarType compute) {
  return at::linear(x.to(compute), weight.to(compute), bias.defined() ? bias.to(compute) : bias);
}

TokenScores score_tokens(const Tensor& logits_NV, const Tensor& targets_N) {
  TokenScores scores;
  scores.loss_N = CrossEntropy::apply(logits_NV, targets_N);
  {
    at::NoGradGuard no_grad;
    scores.correct_N = logits_NV.detach().argmax(1).eq(targets_N).to(at::kFloat);
  }
  return scores;
}

}  // namespace varscale::nn
