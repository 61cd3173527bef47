// LayerNorm with AdaLN's scale and shift: ATen has the norm alone, and the modulation as passes over memory of their own.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "nn/functional.hpp"
#include "nn/lanes.hpp"
#include "nn/row_access.hpp"

namespace varscale::nn {

namespace {

struct Moments {
  float mean, rstd;  // 1 / sqrt(variance + eps)
};

VARSCALE_SIMD Moments moments_of_row(const float* x, int64_t n, double eps) {
  const int64_t whole = n / kLanes * kLanes;
  Floats lanes{};
  for (int64_t i = 0; i < whole; i += kLanes) lanes += load_lanes(x + i);
  float sum = sum_of(lanes);
  for (int64_t i = whole; i < n; ++i) sum += x[i];
  const float mean = sum / static_cast<float>(n);
  lanes = Floats{};
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats away = load_lanes(x + i) - mean;
    lanes += away * away;
  }
  float squares = sum_of(lanes);
  for (int64_t i = whole; i < n; ++i) squares += (x[i] - mean) * (x[i] - mean);
  return {mean, static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + eps))};
}

VARSCALE_SIMD void modulate_row(const float* x, const float* scale, const float* shift, Moments of, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - of.mean) * of.rstd * (1.0F + scale[i]) + shift[i];
}

struct Along {
  float grad, normed;  // means over the row of the gradient of the normed row, and of it times the normed row
};

// Adds what this row gives to the gradients of scale and shift.
VARSCALE_SIMD Along modulate_backward_sums(const float* dy, const float* x, const float* scale, Moments of, float* dscale,
                                           float* dshift, int64_t n) {
  const int64_t whole = n / kLanes * kLanes;
  Floats grads{}, along{};
  for (int64_t i = 0; i < whole; i += kLanes) {
    const Floats d = load_lanes(dy + i), normed = (load_lanes(x + i) - of.mean) * of.rstd;
    const Floats g = d * (1.0F + load_lanes(scale + i));
    grads += g;
    along += g * normed;
    store_lanes(load_lanes(dscale + i) + d * normed, dscale + i);
    store_lanes(load_lanes(dshift + i) + d, dshift + i);
  }
  float grad_sum = sum_of(grads), along_sum = sum_of(along);
  for (int64_t i = whole; i < n; ++i) {
    const float normed = (x[i] - of.mean) * of.rstd, g = dy[i] * (1.0F + scale[i]);
    grad_sum += g;
    along_sum += g * normed;
    dscale[i] += dy[i] * normed;
    dshift[i] += dy[i];
  }
  return {grad_sum / static_cast<float>(n), along_sum / static_cast<float>(n)};
}

VARSCALE_SIMD void modulate_backward_row(const float* dy, const float* x, const float* scale, Moments of, Along mean,
                                         float* dx, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float normed = (x[i] - of.mean) * of.rstd;
    dx[i] = of.rstd * (dy[i] * (1.0F + scale[i]) - mean.grad - normed * mean.normed);
  }
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Keeps x and two numbers a row.
class ModulatedNorm : public torch::autograd::Function<ModulatedNorm> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C,
                        double eps, at::ScalarType out) {
    const int64_t B = x_BLC.size(0), L = x_BLC.size(1), C = x_BLC.size(2);
    const Tensor y_BLC = at::empty({B, L, C}, x_BLC.options().dtype(out));
    const Tensor moments_N2 = at::empty({B * L, 2}, at::TensorOptions(at::kFloat));
    const auto* x = x_BLC.const_data_ptr<float>();
    auto* moments = moments_N2.data_ptr<float>();
    const SampleRows scale(scale_B1C), shift(shift_B1C);
    at::parallel_for(0, B * L, row_grain(C), [&](int64_t begin, int64_t end) {
      RowWriter writer(y_BLC, C);
      for (int64_t n = begin; n < end; ++n) {
        const Moments of = moments_of_row(x + n * C, C, eps);
        moments[2 * n] = of.mean;
        moments[2 * n + 1] = of.rstd;
        modulate_row(x + n * C, scale.of(n / L), shift.of(n / L), of, writer.at(n * C), C);
        writer.done(n * C, C);
      }
    });
    ctx->save_for_backward({x_BLC, scale_B1C, moments_N2});
    return y_BLC;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x_BLC = saved[0], &scale_B1C = saved[1], &moments_N2 = saved[2];
    const int64_t B = x_BLC.size(0), L = x_BLC.size(1), C = x_BLC.size(2);
    const Tensor dy_BLC = grads[0].contiguous(), dx_BLC = at::empty_like(x_BLC);
    const auto* x = x_BLC.const_data_ptr<float>();
    const auto* moments = moments_N2.const_data_ptr<float>();
    auto* dx = dx_BLC.data_ptr<float>();
    const SampleRows scale(scale_B1C);
    const Tensor sums_B2C = sample_sums(B, L, 2 * C, [&](int64_t begin, int64_t end, float* sums) {
      RowReader dys(dy_BLC, C);
      for (int64_t n = begin; n < end; ++n) {
        const float* dy = dys.at(n * C, C);
        const Moments of{moments[2 * n], moments[2 * n + 1]};
        const Along mean = modulate_backward_sums(dy, x + n * C, scale.of(n / L), of, sums, sums + C, C);
        modulate_backward_row(dy, x + n * C, scale.of(n / L), of, mean, dx + n * C, C);
      }
    });
    const Tensor dscale_B1C = sums_B2C.slice(1, 0, C).unsqueeze(1), dshift_B1C = sums_B2C.slice(1, C, 2 * C).unsqueeze(1);
    return {dx_BLC, dscale_B1C, dshift_B1C, Tensor(), Tensor()};
  }
};

bool for_rows(const Tensor& x_BLC, const Tensor& modulation_B1C) {
  return modulation_B1C.scalar_type() == at::kFloat && modulation_B1C.dim() == 3 && modulation_B1C.size(0) == x_BLC.size(0) &&
         modulation_B1C.size(1) == 1;
}

}  // namespace

Tensor modulated_norm(const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C, double eps, at::ScalarType out) {
  const bool out_rows = out == at::kFloat || out == at::kBFloat16;
  if (x_BLC.is_cpu() && x_BLC.scalar_type() == at::kFloat && x_BLC.is_contiguous() && out_rows && for_rows(x_BLC, scale_B1C) &&
      for_rows(x_BLC, shift_B1C)) {
    return ModulatedNorm::apply(x_BLC, scale_B1C, shift_B1C, eps, out);
  }
  const Tensor normed = at::layer_norm(x_BLC, {x_BLC.size(-1)}, {}, {}, eps);
  return at::addcmul(shift_B1C, normed, scale_B1C + 1).to(out);
}

}  // namespace varscale::nn
