#include "nn/functional.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "nn/row_access.hpp"
#include "nn/rows.hpp"

namespace varscale::nn {

namespace {

// Half precisions are computed in float32; float32 and float64 as they are.
Tensor at_least_float(const Tensor& x) {
  const auto type = x.scalar_type();
  return type == at::kBFloat16 || type == at::kHalf ? x.to(at::kFloat) : x;
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Loss and correct answers of each row in one pass; backward keeps the log-sum-exp alone.
class CrossEntropy : public torch::autograd::Function<CrossEntropy> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& logits_NV,
                               const Tensor& targets_N) {
    SoftmaxRows rows;
    if (has_row_kernels(logits_NV)) {
      rows = softmax_rows(logits_NV.contiguous(), targets_N);
    } else {
      const Tensor logits = at_least_float(logits_NV);
      rows.lse_N = at::logsumexp(logits, {1});
      rows.picked_N = logits.gather(1, targets_N.unsqueeze(1)).squeeze(1);
      rows.correct_N = logits.argmax(1).eq(targets_N).to(at::kFloat);
    }
    ctx->save_for_backward({logits_NV, rows.lse_N, targets_N});
    ctx->mark_non_differentiable({rows.correct_N});
    return {rows.lse_N - rows.picked_N, rows.correct_N};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &logits_NV = saved[0], &lse_N = saved[1], &targets_N = saved[2];
    if (has_row_kernels(logits_NV))
      return {softmax_rows_backward(logits_NV.contiguous(), lse_N, targets_N, grads[0]), Tensor()};
    const Tensor grad_N1 = grads[0].unsqueeze(1);
    Tensor grad_NV = (at_least_float(logits_NV) - lse_N.unsqueeze(1)).exp_().mul_(grad_N1);
    grad_NV.scatter_add_(1, targets_N.unsqueeze(1), grad_N1.neg());
    return {grad_NV.to(logits_NV.scalar_type()), Tensor()};
  }
};

class Gelu : public torch::autograd::Function<Gelu> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x) {
    ctx->save_for_backward({x});
    return gelu_rows(x);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {gelu_rows_backward(grads[0].contiguous(), ctx->get_saved_variables()[0])};
  }
};

}  // namespace

Tensor unit_norm(const Tensor& x) {
  const Tensor x32 = at_least_float(x);
  return x32 / at::linalg_vector_norm(x32, 2, {-1}, /*keepdim=*/true).clamp_min(1e-12);
}

Tensor gelu_tanh(const Tensor& x) {
  return has_row_kernels(x) && x.is_contiguous() ? Gelu::apply(x) : at::gelu(x, "tanh");
}

Tensor sum_of_squares(const Tensor& x) {
  at::NoGradGuard no_grad;
  if (!x.is_cpu()) return at::linalg_vector_norm(x, 2, std::nullopt, false, at::kDouble).square();
  VARSCALE_CHECK(x.is_contiguous() && x.scalar_type() == at::kFloat,
                 "sum_of_squares takes contiguous float32");
  constexpr int64_t kChunk = 1 << 14;
  const float* values = x.const_data_ptr<float>();
  const int64_t count = x.numel(), chunks = (count + kChunk - 1) / kChunk;
  std::vector<double> partial(chunks);
  at::parallel_for(0, chunks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const int64_t stop = std::min(count, (c + 1) * kChunk);
      std::array<double, 8> lanes{};  // fixed order of additions, and room for the vectoriser
      int64_t i = c * kChunk;
      for (; i + 8 <= stop; i += 8) {
        for (int lane = 0; lane < 8; ++lane) {
          const double value = values[i + lane];
          lanes[lane] += value * value;
        }
      }
      for (; i < stop; ++i) lanes[0] += static_cast<double>(values[i]) * values[i];
      for (const double lane : lanes) partial[c] += lane;
    }
  });
  double sum = 0;
  for (const double part : partial) sum += part;
  return at::scalar_tensor(sum, at::kDouble);
}

TokenScores score_tokens(const Tensor& logits_NV, const Tensor& targets_N) {
  const variable_list scores = CrossEntropy::apply(logits_NV, targets_N);
  return {scores[0], scores[1]};
}

}  // namespace varscale::nn
