// Cross-entropy and correct answers in one pass over the logits, whose memory becomes the gradient's.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "nn/functional.hpp"
#include "nn/lanes.hpp"
#include "nn/row_access.hpp"

namespace varscale::nn {

namespace {

template <class T>
inline __attribute__((always_inline)) float max_of(const T* x, int64_t n) {
  Floats lanes = Floats{} + widen(x[0]);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Floats next = load_lanes(x + i);
    lanes = next > lanes ? next : lanes;
  }
  float largest = lanes[0];
  for (int64_t l = 1; l < kLanes; ++l) largest = std::max(largest, lanes[l]);
  for (; i < n; ++i) largest = std::max(largest, widen(x[i]));
  return largest;
}

// out = exp(x - shift); returns the sum, of what is not rounded yet. x and out may be one.
template <class T>
inline __attribute__((always_inline)) float exponentials(const T* x, float shift, T* out, int64_t n) {
  Floats lanes{};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Floats e = exp_lanes(load_lanes(x + i) - shift);
    lanes += e;
    store_lanes(e, out + i);
  }
  float sum = sum_of(lanes);
  const Floats rest = exp_lanes(load_first(x + i, n - i) - shift);
  for (int64_t l = 0; l < n - i; ++l) sum += rest[l];
  store_first(rest, out + i, n - i);
  return sum;
}

VARSCALE_SIMD float max_of_row(const float* x, int64_t n) { return max_of(x, n); }
VARSCALE_SIMD float max_of_row(const uint16_t* x, int64_t n) { return max_of(x, n); }
VARSCALE_SIMD float exp_row(const float* x, float shift, float* out, int64_t n) { return exponentials(x, shift, out, n); }
VARSCALE_SIMD float exp_row(const uint16_t* x, float shift, uint16_t* out, int64_t n) {
  return exponentials(x, shift, out, n);
}

// Whether `picked` is the first of the largest elements, the answer of argmax.
template <class T>
bool is_first(const T* x, int64_t picked, float largest) {
  return widen(x[picked]) == largest &&
         std::find_if(x, x + picked, [&](T v) { return widen(v) == largest; }) == x + picked;
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Takes the logits' memory: from forward to backward it holds the exponentials of their distances from the largest.
// once: then it becomes the gradient's.
class ConsumedLogits : public torch::autograd::Function<ConsumedLogits> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& logits_NV, const Tensor& targets_N, bool once) {
    const int64_t N = logits_NV.size(0), V = logits_NV.size(1);
    const auto floats = [&] { return at::empty({N}, at::TensorOptions(at::kFloat)); };
    const Tensor loss_N = floats(), correct_N = floats(), reciprocal_N = floats();
    const auto* target = targets_N.const_data_ptr<int64_t>();
    auto *loss = loss_N.data_ptr<float>(), *correct = correct_N.data_ptr<float>(), *reciprocal = reciprocal_N.data_ptr<float>();
    with_elements(logits_NV, [&](auto element) {
      auto* logits = mutable_elements<decltype(element)>(logits_NV);
      at::parallel_for(0, N, row_grain(V), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
          auto* x = logits + n * V;
          const float largest = max_of_row(x, V), picked = widen(x[target[n]]);
          correct[n] = is_first(x, target[n], largest) ? 1.0F : 0.0F;
          const float sum = exp_row(x, largest, x, V);
          loss[n] = largest + std::log(sum) - picked;
          reciprocal[n] = 1 / sum;
        }
      });
    });
    ctx->save_for_backward({logits_NV, targets_N, reciprocal_N});
    ctx->saved_data["once"] = once;
    ctx->saved_data["spent"] = false;
    ctx->mark_non_differentiable({correct_N});
    return {loss_N, correct_N};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    VARSCALE_CHECK(!ctx->saved_data["spent"].toBool(), "the logits have become their gradient: there is no second backward");
    ctx->saved_data["spent"] = ctx->saved_data["once"];
    const variable_list saved = ctx->get_saved_variables();
    const Tensor exp_NV = saved[0].detach(), &targets_N = saved[1], weight_N = grads[0].contiguous();
    const Tensor grad_NV = ctx->saved_data["once"].toBool() ? exp_NV : at::empty_like(exp_NV);
    const int64_t N = grad_NV.size(0), V = grad_NV.size(1);
    const auto* target = targets_N.const_data_ptr<int64_t>();
    const auto *weight = weight_N.const_data_ptr<float>(), *reciprocal = saved[2].const_data_ptr<float>();
    with_elements(grad_NV, [&](auto element) {
      using T = decltype(element);
      at::parallel_for(0, N, row_grain(V), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
          const T* exps = elements<T>(exp_NV) + n * V;
          T* out = mutable_elements<T>(grad_NV) + n * V;
          const float factor = weight[n] * reciprocal[n], at_target = widen(exps[target[n]]) * factor - weight[n];
          scale_row(exps, factor, out, V);
          store_first(Floats{at_target}, out + target[n], 1);
        }
      });
    });
    return {grad_NV, Tensor(), Tensor()};
  }
};

// Half precisions are computed in float32; float32 and float64 as they are.
Tensor at_least_float(const Tensor& x) {
  const auto type = x.scalar_type();
  return type == at::kBFloat16 || type == at::kHalf ? x.to(at::kFloat) : x;
}

// By ATen's operations; backward keeps the logits and their log-sum-exp.
class CrossEntropy : public torch::autograd::Function<CrossEntropy> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& logits_NV, const Tensor& targets_N) {
    const Tensor lse_N = at::logsumexp(at_least_float(logits_NV), {1});
    const Tensor picked_N = logits_NV.gather(1, targets_N.unsqueeze(1)).squeeze(1);
    const Tensor correct_N = logits_NV.argmax(1).eq(targets_N).to(at::kFloat);
    ctx->save_for_backward({logits_NV, lse_N, targets_N});
    ctx->mark_non_differentiable({correct_N});
    return {lse_N - picked_N, correct_N};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &logits_NV = saved[0], &lse_N = saved[1], &targets_N = saved[2], grad_N1 = grads[0].unsqueeze(1);
    Tensor grad_NV = (at_least_float(logits_NV) - lse_N.unsqueeze(1)).exp_().mul_(grad_N1);
    grad_NV.scatter_add_(1, targets_N.unsqueeze(1), grad_N1.neg());
    return {grad_NV.to(logits_NV.scalar_type()), Tensor()};
  }
};

TokenScores scores_of(const variable_list& both) { return {both[0], both[1]}; }

}  // namespace

TokenScores score_and_consume(const Tensor& logits_NV, const Tensor& targets_N) {
  return scores_of(has_row_kernels(logits_NV) && logits_NV.is_contiguous()
                       ? ConsumedLogits::apply(logits_NV, targets_N, /*once=*/true)
                       : CrossEntropy::apply(logits_NV, targets_N));
}

TokenScores score_tokens(const Tensor& logits_NV, const Tensor& targets_N) {
  return scores_of(has_row_kernels(logits_NV)
                       ? ConsumedLogits::apply(logits_NV.clone(at::MemoryFormat::Contiguous), targets_N, /*once=*/false)
                       : CrossEntropy::apply(logits_NV, targets_N));
}

}  // namespace varscale::nn
