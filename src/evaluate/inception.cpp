#include "evaluate/inception.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

constexpr int64_t kSide = 299;

// For each output place the two input places and the weight of the second.
struct Places {
  Tensor low, high, weight;
};

Places places(int64_t in, int64_t out) {
  const float step = static_cast<float>(in) / static_cast<float>(out);
  std::vector<int64_t> low(out), high(out);
  std::vector<float> weight(out);
  for (int64_t i = 0; i < out; ++i) {
    const float source = static_cast<float>(i) * step;
    low[i] = std::min(static_cast<int64_t>(source), in - 1);
    high[i] = std::min(low[i] + 1, in - 1);
    weight[i] = source - static_cast<float>(low[i]);
  }
  return {at::tensor(low, at::kLong), at::tensor(high, at::kLong), at::tensor(weight, at::kFloat)};
}

Tensor average_pool(const Tensor& x_BCHW) {
  return at::avg_pool2d(x_BCHW, 3, 1, 1, /*ceil_mode=*/false, /*count_include_pad=*/false);
}

}  // namespace

Tensor resize_tf1(const Tensor& x_BCHW, int64_t height, int64_t width) {
  const Places y = places(x_BCHW.size(2), height), x = places(x_BCHW.size(3), width);
  const Tensor left = x_BCHW.index_select(3, x.low), right = x_BCHW.index_select(3, x.high);
  const Tensor rows = left + (right - left) * x.weight;
  const Tensor top = rows.index_select(2, y.low), bottom = rows.index_select(2, y.high);
  return top + (bottom - top) * y.weight.unsqueeze(1);
}

// Convolution, batch norm, ReLU. Odd kernels keep the size unless pad is false.
Tensor Inception::unit(const std::string& name, const Tensor& x_BCHW, int64_t stride, bool pad) const {
  const FoldedConvolution& unit = units_.at(name);
  const int64_t padding[] = {pad ? unit.weight_OIkk.size(2) / 2 : 0, pad ? unit.weight_OIkk.size(3) / 2 : 0};
  return at::conv2d(x_BCHW, unit.weight_OIkk, unit.bias_O, stride, padding).relu_();
}

Tensor Inception::mixed_a(const std::string& name, const Tensor& x) const {
  const Tensor five = unit(name + ".branch5x5_2", unit(name + ".branch5x5_1", x));
  Tensor three = unit(name + ".branch3x3dbl_2", unit(name + ".branch3x3dbl_1", x));
  three = unit(name + ".branch3x3dbl_3", three);
  return at::cat({unit(name + ".branch1x1", x), five, three, unit(name + ".branch_pool", average_pool(x))}, 1);
}

Tensor Inception::mixed_b(const std::string& name, const Tensor& x) const {
  const Tensor once = unit(name + ".branch3x3", x, 2, false);
  Tensor twice = unit(name + ".branch3x3dbl_2", unit(name + ".branch3x3dbl_1", x));
  twice = unit(name + ".branch3x3dbl_3", twice, 2, false);
  return at::cat({once, twice, at::max_pool2d(x, 3, 2)}, 1);
}

Tensor Inception::mixed_c(const std::string& name, const Tensor& x, Tensor* branch1x1) const {
  const Tensor one = unit(name + ".branch1x1", x);
  if (branch1x1 != nullptr) *branch1x1 = one;
  Tensor seven = x, twice = x;
  for (const char* i : {"1", "2", "3"}) seven = unit(name + ".branch7x7_" + i, seven);
  for (const char* i : {"1", "2", "3", "4", "5"}) twice = unit(name + ".branch7x7dbl_" + i, twice);
  return at::cat({one, seven, twice, unit(name + ".branch_pool", average_pool(x))}, 1);
}

Tensor Inception::mixed_d(const std::string& name, const Tensor& x) const {
  const Tensor three = unit(name + ".branch3x3_2", unit(name + ".branch3x3_1", x), 2, false);
  Tensor seven = x;
  for (const char* i : {"1", "2", "3"}) seven = unit(name + ".branch7x7x3_" + i, seven);
  seven = unit(name + ".branch7x7x3_4", seven, 2, false);
  return at::cat({three, seven, at::max_pool2d(x, 3, 2)}, 1);
}

Tensor Inception::mixed_e(const std::string& name, const Tensor& x, bool max_pool) const {
  const Tensor three = unit(name + ".branch3x3_1", x);
  const Tensor twice = unit(name + ".branch3x3dbl_2", unit(name + ".branch3x3dbl_1", x));
  const Tensor pooled = max_pool ? at::max_pool2d(x, 3, 1, 1) : average_pool(x);
  return at::cat({unit(name + ".branch1x1", x), unit(name + ".branch3x3_2a", three),
                  unit(name + ".branch3x3_2b", three), unit(name + ".branch3x3dbl_3a", twice),
                  unit(name + ".branch3x3dbl_3b", twice), unit(name + ".branch_pool", pooled)},
                 1);
}

Inception::Output Inception::run(const Tensor& images_u8_B3HW, const Observer& observe) const {
  VARSCALE_CHECK(images_u8_B3HW.scalar_type() == at::kByte && images_u8_B3HW.dim() == 4 && images_u8_B3HW.size(1) == 3,
                 "Inception takes uint8 [B,3,H,W]");
  at::NoGradGuard no_grad;
  Tensor x = (resize_tf1(images_u8_B3HW.to(at::kFloat), kSide, kSide) - 128) / 128;
  const auto see = [&](const char* block, Tensor output) {
    if (observe) observe(block, output);
    x = std::move(output);
  };
  see("input", x);
  see("Conv2d_1a_3x3", unit("Conv2d_1a_3x3", x, 2, false));
  see("Conv2d_2a_3x3", unit("Conv2d_2a_3x3", x, 1, false));
  see("Conv2d_2b_3x3", unit("Conv2d_2b_3x3", x));
  see("MaxPool_1", at::max_pool2d(x, 3, 2));
  see("Conv2d_3b_1x1", unit("Conv2d_3b_1x1", x));
  see("Conv2d_4a_3x3", unit("Conv2d_4a_3x3", x, 1, false));
  see("MaxPool_2", at::max_pool2d(x, 3, 2));
  see("Mixed_5b", mixed_a("Mixed_5b", x));
  see("Mixed_5c", mixed_a("Mixed_5c", x));
  see("Mixed_5d", mixed_a("Mixed_5d", x));
  see("Mixed_6a", mixed_b("Mixed_6a", x));
  see("Mixed_6b", mixed_c("Mixed_6b", x));
  see("Mixed_6c", mixed_c("Mixed_6c", x));
  Tensor branch_BCHW;
  see("Mixed_6d", mixed_c("Mixed_6d", x, &branch_BCHW));
  see("Mixed_6e", mixed_c("Mixed_6e", x));
  see("Mixed_7a", mixed_d("Mixed_7a", x));
  see("Mixed_7b", mixed_e("Mixed_7b", x, /*max_pool=*/false));
  see("Mixed_7c", mixed_e("Mixed_7c", x, /*max_pool=*/true));
  return {x.mean({2, 3}), branch_BCHW.slice(1, 0, 7).permute({0, 2, 3, 1}).flatten(1)};
}

Tensor Inception::logits(const Tensor& pool3_BD) const { return at::linear(pool3_BD, fc_weight_CD_); }

}  // namespace varscale::evaluate
