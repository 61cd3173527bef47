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

template <class T>
inline __attribute__((always_inline)) void gelu(const T* x, T* out, int64_t n) {
  map_lanes([](const Floats v) __attribute__((always_inline)) { return gelu_lanes(v); }, n, out, x);
}
template <class T>
inline __attribute__((always_inline)) void gelu_backward(const T* grad, const T* x, T* out, int64_t n) {
  map_lanes([](const Floats g, const Floats v) __attribute__((always_inline)) { return g * gelu_slope_lanes(v); }, n, out,
            grad, x);
}

VARSCALE_SIMD void gelu_row(const float* x, float* out, int64_t n) { gelu(x, out, n); }
VARSCALE_SIMD void gelu_row(const uint16_t* x, uint16_t* out, int64_t n) { gelu(x, out, n); }
VARSCALE_SIMD void gelu_row_backward(const float* grad, const float* x, float* out, int64_t n) {
  gelu_backward(grad, x, out, n);
}
VARSCALE_SIMD void gelu_row_backward(const uint16_t* grad, const uint16_t* x, uint16_t* out, int64_t n) {
  gelu_backward(grad, x, out, n);
}

// Adds `rows` rows of M elements to the sums of the columns, four rows to a pass over the sums.
template <class T>
inline __attribute__((always_inline)) void add_to_columns(const T* x, int64_t rows, int64_t M, float* sums) {
  int64_t n = 0;
  for (; n + 4 <= rows; n += 4) {
    const T* row = x + n * M;
    map_lanes([](const Floats sum, const Floats a, const Floats b, const Floats c, const Floats d)
                  __attribute__((always_inline)) { return sum + ((a + b) + (c + d)); },
              M, sums, sums, row, row + M, row + 2 * M, row + 3 * M);
  }
  for (; n < rows; ++n)
    map_lanes([](const Floats sum, const Floats a) __attribute__((always_inline)) { return sum + a; }, M, sums, sums,
              x + n * M);
}
VARSCALE_SIMD void add_rows(const float* x, int64_t rows, int64_t M, float* sums) { add_to_columns(x, rows, M, sums); }
VARSCALE_SIMD void add_rows(const uint16_t* x, int64_t rows, int64_t M, float* sums) { add_to_columns(x, rows, M, sums); }

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
  const auto silu = [](const Floats v, const Floats factor, const Floats offset) __attribute__((always_inline)) {
    const Floats moved = v * factor + offset;
    return moved / (1.0F + exp_lanes(moved < -kLargest ? Floats{} + kLargest : -moved));
  };
  map_lanes(silu, n, out, x, scale, shift);
}

}  // namespace

Tensor gelu_rows(const Tensor& x) {
  const Tensor y = at::empty_like(x);
  const int64_t C = x.size(-1), N = x.numel() / C;
  with_elements(x, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, N, row_grain(C), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) gelu_row(elements<T>(x) + n * C, mutable_elements<T>(y) + n * C, C);
    });
  });
  return y;
}

Tensor gelu_rows_backward(const Tensor& grad, const Tensor& x) {
  const Tensor dx = at::empty_like(x);
  const int64_t C = x.size(-1), N = x.numel() / C;
  with_elements(x, [&](auto element) {
    using T = decltype(element);
    at::parallel_for(0, N, row_grain(C), [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        gelu_row_backward(elements<T>(grad) + n * C, elements<T>(x) + n * C, mutable_elements<T>(dx) + n * C, C);
    });
  });
  return dx;
}

Tensor column_sums(const Tensor& x_NM) {
  constexpr int64_t kChunk = 128;  // of thousands of rows of thousands: the chunks' sums are memory as well
  const int64_t N = x_NM.size(0), M = x_NM.size(1);
  Tensor sums_1M;
  with_elements(x_NM, [&](auto element) {
    const auto* x = elements<decltype(element)>(x_NM);
    const auto add = [&](int64_t begin, int64_t end, float* sums) { add_rows(x + begin * M, end - begin, M, sums); };
    sums_1M = sample_sums(1, N, M, add, kChunk);
  });
  return sums_1M.squeeze(0);
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
