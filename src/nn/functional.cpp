#include "nn/functional.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <array>

#include "base/error.hpp"
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

bool has_row_kernels(const Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

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

class ScaledUnitNorm : public torch::autograd::Function<ScaledUnitNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x_BHLD, const Tensor& scale_1H11,
                        at::ScalarType out) {
    const Tensor scale_H = scale_1H11.flatten().contiguous();
    UnitRows rows = unit_rows(x_BHLD, scale_H, out);
    ctx->save_for_backward({x_BHLD, rows.norm_BHL, scale_H});
    return rows.y_BHLD;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const UnitRowsGrad grad = unit_rows_backward(grads[0], saved[0], saved[1], saved[2]);
    return {grad.dx_BHLD, grad.dscale_H.defined() ? grad.dscale_H.view({1, -1, 1, 1}) : Tensor(),
            Tensor()};
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

// y = x W^T + b in float32 by oneDNN, which reaches a tenth more of an AMD processor's rate than the BLAS that
// ATen calls. x_NK and weight_MK contiguous, bias_M may be empty.
Tensor onednn_linear(const Tensor& x_NK, const Tensor& weight_MK, const Tensor& bias_M) {
  using Op = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, std::string_view,
                    c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Op>();
  return op.call(x_NK, weight_MK, bias_M.numel() > 0 ? std::optional(bias_M) : std::nullopt, "none",
                 c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

class Linear : public torch::autograd::Function<Linear> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x_NK, const Tensor& weight_MK,
                        const Tensor& bias_M) {
    ctx->save_for_backward({x_NK, weight_MK});
    ctx->saved_data["bias"] = bias_M.numel() > 0;
    return onednn_linear(x_NK, weight_MK, bias_M);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x_NK = saved[0], &weight_MK = saved[1];
    const Tensor dy_NM = grads[0].contiguous();
    variable_list result(3);
    if (ctx->needs_input_grad(0))
      result[0] = onednn_linear(dy_NM, weight_MK.t().contiguous(), at::empty({0}));
    if (ctx->needs_input_grad(1)) result[1] = at::mm(dy_NM.t(), x_NK);
    if (ctx->saved_data["bias"].toBool()) result[2] = dy_NM.sum(0);
    return result;
  }
};

// Where oneDNN's float32 product pays: many rows on the CPU.
bool onednn_pays(const Tensor& x, const Tensor& weight, at::ScalarType compute) {
  constexpr int64_t kRows = 64;
  return compute == at::kFloat && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
         x.is_cpu() && at::hasMKLDNN() && x.is_contiguous() && weight.is_contiguous() &&
         x.numel() >= kRows * x.size(-1);
}

}  // namespace

Tensor modulated_norm(const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C,
                      double eps, at::ScalarType out) {
  const Tensor normed = at::layer_norm(x_BLC, {x_BLC.size(-1)}, {}, {}, eps);
  return at::addcmul(shift_B1C, normed, scale_B1C + 1).to(out);
}

Tensor unit_norm(const Tensor& x) {
  const Tensor x32 = at_least_float(x);
  return x32 / at::linalg_vector_norm(x32, 2, {-1}, /*keepdim=*/true).clamp_min(1e-12);
}

Tensor scaled_unit_norm(const Tensor& x_BHLD, const Tensor& scale_1H11, at::ScalarType out) {
  if (has_row_kernels(x_BHLD) && (out == at::kFloat || out == at::kBFloat16) &&
      x_BHLD.stride(-1) == 1) {
    // Functions take no undefined tensors: an empty one stands for no scale.
    const Tensor scale = scale_1H11.defined() ? scale_1H11 : at::empty({0}, at::kFloat);
    return ScaledUnitNorm::apply(x_BHLD, scale, out);
  }
  const Tensor unit = unit_norm(x_BHLD);
  return (scale_1H11.defined() ? unit * scale_1H11 : unit).to(out);
}

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, at::ScalarType compute) {
  if (onednn_pays(x, weight, compute)) {
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = weight.size(0);
    // Functions take no undefined tensors: an empty one stands for no bias.
    const Tensor b = bias.defined() ? bias : at::empty({0}, at::kFloat);
    return Linear::apply(x.view({-1, x.size(-1)}), weight, b).view(sizes);
  }
  return at::linear(x.to(compute), weight.to(compute), bias.defined() ? bias.to(compute) : bias);
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
