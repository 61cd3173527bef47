#include "evaluate/inception.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

constexpr int64_t kSide = 299;
constexpr int64_t kRowsAtOnce = 64;  // of the output, by one thread

// For each output place the two input places and the weight of the second.
struct Places {
  std::vector<int64_t> low, high;
  std::vector<float> weight;
};

Places places(int64_t in, int64_t out) {
  const float step = static_cast<float>(in) / static_cast<float>(out);
  Places all{std::vector<int64_t>(out), std::vector<int64_t>(out), std::vector<float>(out)};
  for (int64_t i = 0; i < out; ++i) {
    const float source = static_cast<float>(i) * step;
    all.low[i] = std::min(static_cast<int64_t>(source), in - 1);
    all.high[i] = std::min(all.low[i] + 1, in - 1);
    all.weight[i] = source - static_cast<float>(all.low[i]);
  }
  return all;
}

// Rows of one image at the output's width, [W,C] each. Keeps the newest two: those between which output rows lie.
class WideRows {
 public:
  WideRows(const Places& x, int64_t channels, int64_t height, int64_t width)
      : x_(x), channels_(channels), height_(height), width_(width) {}

  const float* row(const float* image_CHW, int64_t y) {
    Row& row = rows_[y % 2];
    if (row.image == image_CHW && row.y == y) return row.values.data();
    const auto columns = static_cast<int64_t>(x_.low.size());
    row = {image_CHW, y, std::move(row.values)};
    row.values.resize(columns * channels_);
    for (int64_t c = 0; c < channels_; ++c) {
      const float* in = image_CHW + (c * height_ + y) * width_;
      for (int64_t i = 0; i < columns; ++i) {
        const float left = in[x_.low[i]], right = in[x_.high[i]];
        row.values[i * channels_ + c] = left + (right - left) * x_.weight[i];
      }
    }
    return row.values.data();
  }

 private:
  struct Row {
    const float* image = nullptr;
    int64_t y = 0;
    std::vector<float> values;
  };
  const Places& x_;
  int64_t channels_, height_, width_;
  std::array<Row, 2> rows_;
};

// relu(convolution + bias) in one pass over the result; x and weight channels last, for oneDNN would have to convert
// the plain layout on the way in and out.
Tensor convolution_relu(const Tensor& x_BCHW, const FoldedConvolution& unit, int64_t stride, at::IntArrayRef padding) {
  if (!at::hasMKLDNN()) return at::conv2d(x_BCHW, unit.weight_OIkk, unit.bias_O, stride, padding).relu_();
  using Op = Tensor(const Tensor&, const Tensor&, const std::optional<Tensor>&, at::IntArrayRef, at::IntArrayRef,
                    at::IntArrayRef, int64_t, std::string_view, c10::List<std::optional<at::Scalar>>,
                    std::optional<std::string_view>);
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_convolution_pointwise", "").typed<Op>();
  return op.call(x_BCHW, unit.weight_OIkk, unit.bias_O, padding, {stride, stride}, {1, 1}, /*groups=*/1, "relu",
                 c10::List<std::optional<at::Scalar>>(), std::nullopt);
}

Tensor average_pool(const Tensor& x_BCHW) {
  return at::avg_pool2d(x_BCHW, 3, 1, 1, /*ceil_mode=*/false, /*count_include_pad=*/false);
}

}  // namespace

Tensor resize_tf1(const Tensor& x_BCHW, int64_t height, int64_t width) {
  const Tensor in_BCHW = x_BCHW.contiguous();
  const int64_t B = in_BCHW.size(0), C = in_BCHW.size(1), H = in_BCHW.size(2), W = in_BCHW.size(3);
  const Tensor out_BCHW = at::empty({B, C, height, width}, in_BCHW.options(), at::MemoryFormat::ChannelsLast);
  const Places y = places(H, height), x = places(W, width);
  const auto* in = in_BCHW.const_data_ptr<float>();
  auto* out = out_BCHW.mutable_data_ptr<float>();
  at::parallel_for(0, B * height, kRowsAtOnce, [&](int64_t begin, int64_t end) {
    WideRows rows(x, C, H, W);
    for (int64_t i = begin; i < end; ++i) {
      const float* image = in + i / height * C * H * W;
      const int64_t to = i % height;
      const float *top = rows.row(image, y.low[to]), *bottom = rows.row(image, y.high[to]);
      const float weight = y.weight[to];
      float* row = out + i * width * C;
      for (int64_t j = 0; j < width * C; ++j) row[j] = top[j] + (bottom[j] - top[j]) * weight;
    }
  });
  return out_BCHW;
}

// Convolution, batch norm, ReLU. Odd kernels keep the size unless pad is false.
Tensor Inception::unit(const std::string& name, const Tensor& x_BCHW, int64_t stride, bool pad) const {
  const FoldedConvolution& unit = units_.at(name);
  const int64_t padding[] = {pad ? unit.weight_OIkk.size(2) / 2 : 0, pad ? unit.weight_OIkk.size(3) / 2 : 0};
  return convolution_relu(x_BCHW, unit, stride, padding);
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
  Tensor x = resize_tf1(images_u8_B3HW.to(at::kFloat), kSide, kSide).sub_(128).div_(128);
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
