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

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

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
  const auto type = x.scalar_type();
  const Tensor x32 = type == at::kBFloat16 || type == at::kHalf ? x.to(at::kFloat) : x;
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

}  // namespace varscale::nn
