#include "nn/winograd.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>

#include "base/error.hpp"
#include "nn/lanes.hpp"

namespace varscale::nn {

namespace {

constexpr int64_t kOut = 4, kIn = 6, kPoints = kIn * kIn;  // a tile: 4x4 results from 6x6 values
constexpr int64_t kTiles = 48;                             // in one block: what one thread transforms and multiplies
constexpr int64_t kRows = 12;                              // of a product at once, by kPanel columns: 24 registers
constexpr int64_t kPanel = 2 * kLanes;

// The points 0, +-A, +-B, infinity.
constexpr float A = 0.75F, B = 1.5F, A2 = A * A, B2 = B * B;

using Vector = std::array<Floats, kIn>;

// B^T d: the six values of one line of a tile.
inline __attribute__((always_inline)) Vector transform_input(const Vector& d) {
  const Floats even_a = d[4] - B2 * d[2], odd_a = A * (d[3] - B2 * d[1]);
  const Floats even_b = d[4] - A2 * d[2], odd_b = B * (d[3] - A2 * d[1]);
  return {A2 * B2 * d[0] - (A2 + B2) * d[2] + d[4],
          even_a + odd_a,
          even_a - odd_a,
          even_b + odd_b,
          even_b - odd_b,
          A2 * B2 * d[1] - (A2 + B2) * d[3] + d[5]};
}

// G g: the three weights of one line of a filter.
inline __attribute__((always_inline)) Vector transform_weight(const Floats& g0, const Floats& g1, const Floats& g2) {
  constexpr float at_0 = 1 / (A2 * B2), at_a = 1 / (2 * A2 * (A2 - B2)), at_b = 1 / (2 * B2 * (B2 - A2));
  const Floats even_a = at_a * (g0 + A2 * g2), odd_a = at_a * A * g1;
  const Floats even_b = at_b * (g0 + B2 * g2), odd_b = at_b * B * g1;
  return {at_0 * g0, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, g2};
}

// A^T m: four results of one line of products.
inline __attribute__((always_inline)) std::array<Floats, kOut> transform_output(const Vector& m) {
  const Floats even_a = m[1] + m[2], odd_a = A * (m[1] - m[2]);
  const Floats even_b = m[3] + m[4], odd_b = B * (m[3] - m[4]);
  return {m[0] + even_a + even_b, odd_a + odd_b, A2 * even_a + B2 * even_b, A2 * odd_a + B2 * odd_b + m[5]};
}

// values_P, one a pixel of the tile, point to its I channels, or nowhere outside the image; -> out [points, .., I].
VARSCALE_SIMD void tile_to_points(const std::array<const float*, kPoints>& values_P, int64_t I, float* out,
                                  int64_t point_stride) {
  for (int64_t i = 0; i < I; i += kLanes) {
    std::array<Vector, kIn> columns;
    for (int64_t x = 0; x < kIn; ++x) {
      Vector d;
      for (int64_t y = 0; y < kIn; ++y) {
        const float* value = values_P[y * kIn + x];
        d[y] = value != nullptr ? load_lanes(value + i) : Floats{};
      }
      columns[x] = transform_input(d);
    }
    for (int64_t y = 0; y < kIn; ++y) {
      const Vector row = transform_input(
          {columns[0][y], columns[1][y], columns[2][y], columns[3][y], columns[4][y], columns[5][y]});
      for (int64_t x = 0; x < kIn; ++x) store_lanes(row[x], out + (y * kIn + x) * point_stride + i);
    }
  }
}

// The other way: products [points, .., O] -> results at results_P, one a pixel of 4x4, nowhere outside the image.
VARSCALE_SIMD void points_to_tile(const float* products, int64_t point_stride, int64_t O, const float* bias_O,
                                  const std::array<float*, kOut * kOut>& results_P) {
  for (int64_t o = 0; o < O; o += kLanes) {
    std::array<std::array<Floats, kOut>, kIn> columns;
    for (int64_t x = 0; x < kIn; ++x) {
      Vector m;
      for (int64_t y = 0; y < kIn; ++y) m[y] = load_lanes(products + (y * kIn + x) * point_stride + o);
      columns[x] = transform_output(m);
    }
    const Floats bias = load_lanes(bias_O + o);
    for (int64_t y = 0; y < kOut; ++y) {
      const std::array<Floats, kOut> row = transform_output(
          {columns[0][y], columns[1][y], columns[2][y], columns[3][y], columns[4][y], columns[5][y]});
      for (int64_t x = 0; x < kOut; ++x)
        if (float* result = results_P[y * kOut + x]; result != nullptr) store_lanes(row[x] + bias, result + o);
    }
  }
}

// One panel of kPanel filters, weight [O, 3, 3, I] in memory -> out [points, .., I, kPanel].
VARSCALE_SIMD void filters_to_points(const float* weight, int64_t I, float* out, int64_t point_stride) {
  for (int64_t i = 0; i < I; ++i) {
    for (int64_t half = 0; half < kPanel; half += kLanes) {
      std::array<Vector, 3> columns;
      for (int64_t x = 0; x < 3; ++x) {
        std::array<Floats, 3> g;
        for (int64_t y = 0; y < 3; ++y)
          for (int64_t lane = 0; lane < kLanes; ++lane)
            g[y][lane] = weight[((half + lane) * 9 + y * 3 + x) * I + i];
        columns[x] = transform_weight(g[0], g[1], g[2]);
      }
      for (int64_t y = 0; y < kIn; ++y) {
        const Vector row = transform_weight(columns[0][y], columns[1][y], columns[2][y]);
        for (int64_t x = 0; x < kIn; ++x)
          store_lanes(row[x], out + (y * kIn + x) * point_stride + i * kPanel + half);
      }
    }
  }
}

// out[R, kPanel] = values[R, I] filters[I, kPanel], summed over I in order.
template <int64_t R>
inline __attribute__((always_inline)) void multiply_rows(const float* values, int64_t I, const float* filters,
                                                         float* out, int64_t out_stride) {
  Floats sums[R][2] = {};
  for (int64_t i = 0; i < I; ++i) {
    const Floats left = load_lanes(filters + i * kPanel), right = load_lanes(filters + i * kPanel + kLanes);
#pragma GCC unroll 12
    for (int64_t r = 0; r < R; ++r) {
      const float value = values[r * I + i];
      sums[r][0] += value * left;
      sums[r][1] += value * right;
    }
  }
  for (int64_t r = 0; r < R; ++r) {
    store_lanes(sums[r][0], out + r * out_stride);
    store_lanes(sums[r][1], out + r * out_stride + kLanes);
  }
}

// out[tiles, O] = values[tiles, I] filters[O / kPanel, I, kPanel].
VARSCALE_SIMD void multiply(const float* values, int64_t tiles, int64_t I, const float* filters, float* out,
                            int64_t O) {
  for (int64_t o = 0; o < O; o += kPanel) {
    int64_t t = 0;
    for (; t + kRows <= tiles; t += kRows)
      multiply_rows<kRows>(values + t * I, I, filters + o * I, out + t * O + o, O);
    for (; t < tiles; ++t) multiply_rows<1>(values + t * I, I, filters + o * I, out + t * O + o, O);
  }
}

}  // namespace

bool winograd_pays(const Tensor& x_BIHW, const Tensor& weight_OI33) {
  constexpr int64_t kPixels = 64 * 64;
  static const bool has_avx512 = __builtin_cpu_supports("avx512f") != 0;
  return has_avx512 && x_BIHW.is_cpu() && x_BIHW.scalar_type() == at::kFloat &&
         weight_OI33.scalar_type() == at::kFloat && x_BIHW.is_contiguous(at::MemoryFormat::ChannelsLast) &&
         weight_OI33.is_contiguous(at::MemoryFormat::ChannelsLast) && weight_OI33.size(2) == 3 &&
         weight_OI33.size(3) == 3 && weight_OI33.size(0) % kPanel == 0 && weight_OI33.size(1) % kLanes == 0 &&
         x_BIHW.size(2) * x_BIHW.size(3) >= kPixels;
}

Tensor winograd_convolution(const Tensor& x_BIHW, const Tensor& weight_OI33, const Tensor& bias_O) {
  const int64_t images = x_BIHW.size(0), I = x_BIHW.size(1), H = x_BIHW.size(2), W = x_BIHW.size(3);
  const int64_t O = weight_OI33.size(0);
  VARSCALE_CHECK(weight_OI33.size(1) == I && bias_O.numel() == O && I % kLanes == 0 && O % kPanel == 0,
                 "{} -> {} channels, {} biases", I, O, bias_O.numel());
  const auto options = at::TensorOptions(at::kFloat);
  const Tensor filters = at::empty({kPoints, O / kPanel, I, kPanel}, options);
  const auto* weight = weight_OI33.const_data_ptr<float>();
  auto* filter = filters.mutable_data_ptr<float>();
  at::parallel_for(0, O / kPanel, 1, [&](int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel)
      filters_to_points(weight + panel * kPanel * 9 * I, I, filter + panel * kPanel * I, O * I);
  });

  const Tensor y_BOHW = at::empty({images, O, H, W}, options, at::MemoryFormat::ChannelsLast);
  const int64_t down = (H + kOut - 1) / kOut, across = (W + kOut - 1) / kOut, tiles = images * down * across;
  const auto* x = x_BIHW.const_data_ptr<float>();
  const auto* bias = bias_O.const_data_ptr<float>();
  auto* y = y_BOHW.mutable_data_ptr<float>();
  // Channels of pixel (row, column) of an image, or null outside it.
  const auto pixel = [H, W](auto* maps, int64_t channels, int64_t image, int64_t row, int64_t column) {
    const bool inside = row >= 0 && row < H && column >= 0 && column < W;
    return inside ? maps + ((image * H + row) * W + column) * channels : nullptr;
  };
  at::parallel_for(0, (tiles + kTiles - 1) / kTiles, 1, [&](int64_t begin, int64_t end) {
    const Tensor values = at::empty({kPoints, kTiles, I}, options), products = at::empty({kPoints, kTiles, O}, options);
    auto* value = values.mutable_data_ptr<float>();
    auto* product = products.mutable_data_ptr<float>();
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kTiles, count = std::min(kTiles, tiles - first);
      const auto each_tile = [&](auto&& handle) {
        for (int64_t t = 0; t < count; ++t) {
          const int64_t tile = first + t, image = tile / (down * across);
          handle(t, image, tile / across % down * kOut, tile % across * kOut);
        }
      };
      each_tile([&](int64_t t, int64_t image, int64_t row, int64_t column) {
        std::array<const float*, kPoints> pixels;
        for (int64_t p = 0; p < kPoints; ++p)
          pixels[p] = pixel(x, I, image, row + p / kIn - 1, column + p % kIn - 1);
        tile_to_points(pixels, I, value + t * I, kTiles * I);
      });
      for (int64_t p = 0; p < kPoints; ++p)
        multiply(value + p * kTiles * I, count, I, filter + p * O * I, product + p * kTiles * O, O);
      each_tile([&](int64_t t, int64_t image, int64_t row, int64_t column) {
        std::array<float*, kOut * kOut> pixels;
        for (int64_t p = 0; p < kOut * kOut; ++p)
          pixels[p] = pixel(y, O, image, row + p / kOut, column + p % kOut);
        points_to_tile(product + t * O, kTiles * O, O, bias, pixels);
      });
    }
  });
  return y_BOHW;
}

}  // namespace varscale::nn
