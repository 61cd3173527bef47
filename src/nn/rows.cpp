#include "nn/rows.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "base/error.hpp"
#include "nn/lanes.hpp"
#include "nn/row_access.hpp"

namespace varscale::nn {

namespace {

// GELU in its tanh form is x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3).
constexpr float kGeluFactor = 0.7978845608F;  // sqrt(2 / pi)
constexpr float kGeluCubic = 0.044715F;

inline __attribute__((always_inline)) Floats tanh_lanes(const Floats u) {
  const Floats size = u < 0.0F ? -u : u;
  const Floats t = exp_lanes(size * -2.0F);
  const Floats tanh = (1.0F - t) / (1.0F + t);
  return u < 0.0F ? -tanh : tanh;
}

inline __attribute__((always_inline)) Floats gelu_lanes(const Floats x) {
  const Floats tanh = tanh_lanes(kGeluFactor * x * (1.0F + kGeluCubic * x * x));
  return 0.5F * x * (1.0F + tanh);
}

inline __attribute__((always_inline)) Floats gelu_slope_lanes(const Floats x) {
  const Floats square = x * x;
  const Floats tanh = tanh_lanes(kGeluFactor * x * (1.0F + kGeluCubic * square));
  const Floats inner_slope = kGeluFactor * (1.0F + 3.0F * kGeluCubic * square);
  return 0.5F * (1.0F + tanh) + 0.5F * x * (1.0F - tanh * tanh) * inner_slope;
}

VARSCALE_SIMD void gelu_row(const float* x, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(gelu_lanes(load(x + i, kLanes)), out + i, kLanes);
  if (i < n) store(gelu_lanes(load(x + i, n - i)), out + i, n - i);
}

VARSCALE_SIMD void gelu_row_backward(const float* grad, const float* x, float* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store(load(grad + i, kLanes) * gelu_slope_lanes(load(x + i, kLanes)), out + i, kLanes);
  if (i < n) store(load(grad + i, n - i) * gelu_slope_lanes(load(x + i, n - i)), out + i, n - i);
}

// Adds x - shift and its square to the sums, element by element.
VARSCALE_SIMD void add_moments(const float* x, const float* shift, float* sum, float* square, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float away = x[i] - shift[i];
    sum[i] += away;
    square[i] += away * away;
  }
}

// SiLU of scale x + shift, element by element: v / (1 + exp(-v)).
VARSCALE_SIMD void scaled_silu(const float* x, const float* scale, const float* shift, float* out, int64_t n) {
  constexpr float kLargest = 88.0F;
  const auto silu = [](const Floats v) __attribute__((always_inline)) {
    const Floats away = v < -kLargest ? Floats{} + kLargest : -v;
    return v / (1.0F + exp_lanes(away));
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store(silu(load(x + i, kLanes) * load(scale + i, kLanes) + load(shift + i, kLanes)), out + i, kLanes);
  if (i < n) store(silu(load(x + i, n - i) * load(scale + i, n - i) + load(shift + i, n - i)), out + i, n - i);
}

}  // namespace

Tensor gelu_rows(const Tensor& x) {
  const Tensor y = at::empty_like(x);
  const int64_t C = x.size(-1), N = x.numel() / C;
  at::parallel_for(0, N, row_grain(C), [&](int64_t begin, int64_t end) {
    RowReader xs(x, C);
    RowWriter writer(y, C);
    for (int64_t n = begin; n < end; ++n) {
      gelu_row(xs.at(n * C, C), writer.at(n * C), C);
      writer.done(n * C, C);
    }
  });
  return y;
}

Tensor gelu_rows_backward(const Tensor& grad, const Tensor& x) {
  const Tensor dx = at::empty_like(x);
  const int64_t C = x.size(-1), N = x.numel() / C;
  at::parallel_for(0, N, row_grain(C), [&](int64_t begin, int64_t end) {
    RowReader gs(grad, C), xs(x, C);
    RowWriter writer(dx, C);
    for (int64_t n = begin; n < end; ++n) {
      gelu_row_backward(gs.at(n * C, C), xs.at(n * C, C), writer.at(n * C), C);
      writer.done(n * C, C);
    }
  });
  return dx;
}

Tensor group_norm_silu(const Tensor& x_BCHW, int64_t groups, const Tensor& weight_C, const Tensor& bias_C, double eps) {
  constexpr int64_t kChunk = 256;  // rows whose moments are added up in float32
  const int64_t B = x_BCHW.size(0), C = x_BCHW.size(1), N = x_BCHW.size(2) * x_BCHW.size(3), width = C / groups;
  VARSCALE_CHECK(x_BCHW.is_contiguous(at::MemoryFormat::ChannelsLast) && C % groups == 0,
                 "{} channels in {} groups", C, groups);
  const int64_t chunks = (N + kChunk - 1) / kChunk;
  // About the first pixel, so that a mean far from zero takes no digits from the variance.
  std::vector<float> moments(static_cast<size_t>(B * chunks * 2 * C)), first(static_cast<size_t>(B * C));
  RowReader pixels(x_BCHW, C);
  for (int64_t b = 0; b < B; ++b) std::copy_n(pixels.at(b * N * C, C), C, first.begin() + b * C);
  at::parallel_for(0, B * chunks, 1, [&](int64_t begin, int64_t end) {
    RowReader reader(x_BCHW, C);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t b = chunk / chunks, from = chunk % chunks * kChunk, to = std::min(N, from + kChunk);
      float* sum = moments.data() + chunk * 2 * C;
      for (int64_t n = from; n < to; ++n)
        add_moments(reader.at((b * N + n) * C, C), first.data() + b * C, sum, sum + C, C);
    }
  });
  std::vector<float> scale(static_cast<size_t>(B * C)), shift(static_cast<size_t>(B * C));
  const auto* weight = weight_C.const_data_ptr<float>();
  const auto* bias = bias_C.const_data_ptr<float>();
  for (int64_t b = 0; b < B; ++b) {
    std::vector<double> mean(static_cast<size_t>(C)), variance(static_cast<size_t>(C));  // of each channel
    for (int64_t c = 0; c < C; ++c) {
      double away = 0, away_square = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const float* sum = moments.data() + (b * chunks + chunk) * 2 * C;
        away += sum[c];
        away_square += sum[C + c];
      }
      const double base = first[b * C + c], count = static_cast<double>(N);
      mean[c] = base + away / count;
      variance[c] = std::max(0.0, away_square / count - (away / count) * (away / count));
    }
    for (int64_t g = 0; g < groups; ++g) {
      double group_mean = 0, group_variance = 0;
      for (int64_t c = g * width; c < (g + 1) * width; ++c) group_mean += mean[c] / static_cast<double>(width);
      for (int64_t c = g * width; c < (g + 1) * width; ++c)
        group_variance += (variance[c] + (mean[c] - group_mean) * (mean[c] - group_mean)) / static_cast<double>(width);
      const double factor = 1 / std::sqrt(group_variance + eps);
      for (int64_t c = g * width; c < (g + 1) * width; ++c) {
        scale[b * C + c] = static_cast<float>(weight[c] * factor);
        shift[b * C + c] = static_cast<float>(bias[c] - group_mean * weight[c] * factor);
      }
    }
  }
  const Tensor y_BCHW = at::empty_like(x_BCHW);
  at::parallel_for(0, B * N, row_grain(C), [&](int64_t begin, int64_t end) {
    RowReader reader(x_BCHW, C);
    RowWriter writer(y_BCHW, C);
    for (int64_t n = begin; n < end; ++n) {
      const int64_t b = n / N;
      scaled_silu(reader.at(n * C, C), scale.data() + b * C, shift.data() + b * C, writer.at(n * C), C);
      writer.done(n * C, C);
    }
  });
  return y_BCHW;
}

}  // namespace varscale::nn
