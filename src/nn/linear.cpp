// Linear layers by the library that is fastest for the dtype and the device.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "nn/functional.hpp"
#include "nn/row_access.hpp"
#include "nn/rows.hpp"
#include "nn/simd.hpp"

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

// Where our own node pays: many rows on the CPU.
bool has_many_rows(const Tensor& x, const Tensor& weight) {
  constexpr int64_t kRows = 64;
  return has_row_kernels(x) && x.scalar_type() == weight.scalar_type() && x.is_contiguous() && weight.is_contiguous() &&
         x.numel() >= kRows * x.size(-1);
}

// Where oneDNN's float32 product does. ATen gives products of bf16 to oneDNN by itself.
bool onednn_pays(const Tensor& x, const Tensor& weight) {
  return at::hasMKLDNN() && x.scalar_type() == at::kFloat && has_many_rows(x, weight);
}

// x and dy of two dimensions.
Tensor input_gradient(const Tensor& dy_NM, const Tensor& weight_MK) {
  if (!onednn_pays(dy_NM, weight_MK)) return at::mm(dy_NM, weight_MK);
  return onednn_linear(dy_NM, weight_MK.t(), at::empty({0}));
}

// Rows [begin, end) of x [N, M], at most kTile of them, as columns of out [M, N].
constexpr int64_t kTile = 16;
VARSCALE_SIMD void transpose_rows(const float* x, int64_t N, int64_t M, int64_t begin, int64_t end, float* out) {
  for (int64_t m = 0; m < M; ++m)
    for (int64_t n = begin; n < end; ++n) out[m * N + n] = x[n * M + m];
}

// ATen copies a transposed matrix in one thread.
Tensor transposed(const Tensor& x_NM) {
  const int64_t N = x_NM.size(0), M = x_NM.size(1), tiles = (N + kTile - 1) / kTile;
  Tensor out_MN = at::empty({M, N}, x_NM.options());
  const float* x = x_NM.const_data_ptr<float>();
  float* out = out_MN.mutable_data_ptr<float>();
  at::parallel_for(0, tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile)
      transpose_rows(x, N, M, tile * kTile, std::min((tile + 1) * kTile, N), out);
  });
  return out_MN;
}

Tensor weight_gradient(const Tensor& dy_NM, const Tensor& x_NK, const Tensor& weight_MK) {
  if (!onednn_pays(x_NK, weight_MK)) return at::mm(dy_NM.t(), x_NK);
  // oneDNN takes its second factor as it lies; the first is copied, so it is the smaller one.
  return dy_NM.size(1) <= x_NK.size(1) ? onednn_linear(transposed(dy_NM), x_NK.t(), at::empty({0}))
                                       : onednn_linear(transposed(x_NK), dy_NM.t(), at::empty({0})).t();
}

// Of many rows float32, as the bias is, also where dy is bf16.
Tensor bias_gradient(const Tensor& dy_NM, const Tensor& x_NK, const Tensor& weight_MK) {
  return has_many_rows(x_NK, weight_MK) ? column_sums(dy_NM) : dy_NM.sum(0);
}

class Linear : public torch::autograd::Function<Linear> {
 public:
  // x and the weights of one dtype; the bias, which may be empty, float32.
  static Tensor forward(AutogradContext* ctx, const Tensor& x_NK, const Tensor& weight_MK, const Tensor& bias_M) {
    ctx->save_for_backward({x_NK, weight_MK});
    ctx->saved_data["bias"] = bias_M.numel() > 0;
    if (onednn_pays(x_NK, weight_MK)) return onednn_linear(x_NK, weight_MK, bias_M);
    return at::linear(x_NK, weight_MK, bias_M.numel() > 0 ? std::optional(bias_M.to(x_NK.scalar_type())) : std::nullopt);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x_NK = saved[0], &weight_MK = saved[1];
    const Tensor dy_NM = grads[0].contiguous();
    variable_list result(3);
    if (ctx->needs_input_grad(0)) result[0] = input_gradient(dy_NM, weight_MK);
    if (ctx->needs_input_grad(1)) result[1] = weight_gradient(dy_NM, x_NK, weight_MK);
    if (ctx->saved_data["bias"].toBool()) result[2] = bias_gradient(dy_NM, x_NK, weight_MK);
    return result;
  }
};

// Functions are kept in the context as custom classes.
struct InnerHolder : torch::CustomClassHolder {
  explicit InnerHolder(Inner f) : inner(std::move(f)) {}
  Inner inner;
};

class LinearOf : public torch::autograd::Function<LinearOf> {
 public:
  static Tensor forward(AutogradContext* ctx, const c10::intrusive_ptr<InnerHolder>& holder, const Tensor& weight_MK,
                        const Tensor& bias_M, at::ArrayRef<Tensor> inputs) {
    variable_list saved{weight_MK};
    saved.insert(saved.end(), inputs.begin(), inputs.end());
    ctx->save_for_backward(saved);
    ctx->saved_data["inner"] = c10::IValue::make_capsule(holder);
    at::NoGradGuard no_grad;
    return linear(holder->inner(inputs.vec()), weight_MK, bias_M, weight_MK.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor& weight_MK = saved[0];
    const auto capsule = ctx->saved_data["inner"].toCapsule();
    const Tensor dy_NM = grads[0].contiguous().flatten(0, -2);
    variable_list leaves;
    for (size_t i = 1; i < saved.size(); ++i) leaves.push_back(saved[i].detach().set_requires_grad(true));
    Tensor x;
    {
      const at::AutoGradMode grad_mode(true);
      x = static_cast<InnerHolder*>(capsule.get())->inner(leaves);
    }
    const Tensor dx = input_gradient(dy_NM, weight_MK).view(x.sizes()), x_NK = x.detach().flatten(0, -2);
    variable_list result{Tensor(), weight_gradient(dy_NM, x_NK, weight_MK), bias_gradient(dy_NM, x_NK, weight_MK)};
    for (const Tensor& grad : torch::autograd::grad({x}, leaves, {dx})) result.push_back(grad);
    return result;
  }
};

}  // namespace

Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias, at::ScalarType compute) {
  const Tensor narrow = x.to(compute), narrow_weight = weight.to(compute);
  if (!has_many_rows(narrow, narrow_weight))
    return at::linear(narrow, narrow_weight, bias.defined() ? bias.to(compute) : bias);
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  // Functions take no undefined tensors: an empty one stands for no bias.
  const Tensor b = bias.defined() ? bias : at::empty({0}, at::kFloat);
  return Linear::apply(narrow.view({-1, x.size(-1)}), narrow_weight, b).view(sizes);
}

Tensor linear_of(const Inner& inner, const std::vector<Tensor>& inputs, const Tensor& weight, const Tensor& bias,
                 at::ScalarType compute) {
  return LinearOf::apply(c10::make_intrusive<InnerHolder>(inner), weight.to(compute), bias, at::ArrayRef<Tensor>(inputs));
}

}  // namespace varscale::nn
