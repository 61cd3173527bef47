// What a branch adds to the stream: one pass each way, whatever the dtype of the branch.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/functional.hpp"
#include "nn/row_access.hpp"
#include "nn/simd.hpp"

namespace varscale::nn {

namespace {

VARSCALE_SIMD void add_gated_row(const float* x, const float* branch, const float* gate, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] + branch[i] * gate[i];
}

// Adds what this row gives to the gate's gradient.
VARSCALE_SIMD void gate_backward_row(const float* dy, const float* branch, const float* gate, float* dbranch, float* dgate,
                                     int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    dbranch[i] = dy[i] * gate[i];
    dgate[i] += dy[i] * branch[i];
  }
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

class GatedResidual : public torch::autograd::Function<GatedResidual> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& x_BLC, const Tensor& branch_BLC, const Tensor& gate_B1C) {
    const int64_t B = x_BLC.size(0), L = x_BLC.size(1), C = x_BLC.size(2);
    const Tensor y_BLC = at::empty_like(x_BLC);
    const auto* x = x_BLC.const_data_ptr<float>();
    auto* y = y_BLC.data_ptr<float>();
    const SampleRows gate(gate_B1C);
    at::parallel_for(0, B * L, row_grain(C), [&](int64_t begin, int64_t end) {
      RowReader branch(branch_BLC, C);
      for (int64_t n = begin; n < end; ++n)
        add_gated_row(x + n * C, branch.at(n * C, C), gate.of(n / L), y + n * C, C);
    });
    ctx->save_for_backward({branch_BLC, gate_B1C});
    return y_BLC;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &branch_BLC = saved[0], &gate_B1C = saved[1];
    const int64_t B = branch_BLC.size(0), L = branch_BLC.size(1), C = branch_BLC.size(2);
    const Tensor dy_BLC = grads[0].contiguous(), dbranch_BLC = at::empty_like(branch_BLC);
    const auto* dy = dy_BLC.const_data_ptr<float>();
    const SampleRows gate(gate_B1C);
    const Tensor dgate_BC = sample_sums(B, L, C, [&](int64_t begin, int64_t end, float* sums) {
      RowReader branch(branch_BLC, C);
      RowWriter dbranch(dbranch_BLC, C);
      for (int64_t n = begin; n < end; ++n) {
        gate_backward_row(dy + n * C, branch.at(n * C, C), gate.of(n / L), dbranch.at(n * C), sums, C);
        dbranch.done(n * C, C);
      }
    });
    return {dy_BLC, dbranch_BLC, dgate_BC.unsqueeze(1)};
  }
};

}  // namespace

Tensor gated_residual(const Tensor& x_BLC, const Tensor& branch_BLC, const Tensor& gate_B1C) {
  if (x_BLC.is_cpu() && x_BLC.scalar_type() == at::kFloat && has_row_kernels(branch_BLC) && x_BLC.is_contiguous() &&
      branch_BLC.is_contiguous() && branch_BLC.sizes() == x_BLC.sizes() && gate_B1C.scalar_type() == at::kFloat &&
      gate_B1C.sizes() == at::IntArrayRef({x_BLC.size(0), 1, x_BLC.size(2)})) {
    return GatedResidual::apply(x_BLC, branch_BLC, gate_B1C);
  }
  return at::addcmul(x_BLC, branch_BLC.to(x_BLC.scalar_type()), gate_B1C);
}

}  // namespace varscale::nn
