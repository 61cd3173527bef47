// Linear layers by the library that is fastest for the dtype and the device.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>

#include "nn/functional.hpp"

namespace varscale::nn {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// y = x W^T + b in float32 by oneDNN, which reaches more of an AMD processor's rate than the BLAS that ATen calls: a tenth
// more on family 25, twice as much on family 26. bias_M may be empty.
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
  static Tensor forward(AutogradContext* ctx, const Tensor& x_NK, const Tensor& weight_MK, const Tensor& bias_M) {
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
      result[0] = onednn_linear(dy_NM, weight_MK.t(), at::empty({0}));
    if (ctx->needs_input_grad(1)) {
      // oneDNN takes its second factor as it lies; the first is copied, so it is the smaller one.
      const bool dy_is_smaller = dy_NM.size(1) <= x_NK.size(1);
      result[1] = dy_is_smaller ? onednn_linear(dy_NM.t(), x_NK.t(), at::empty({0}))
                                : onednn_linear(x_NK.t(), dy_NM.t(), at::empty({0})).t();
    }
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

}  // namespace varscale::nn
