#include "nn/row_access.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <bit>

#include "nn/simd.hpp"

namespace varscale::nn {

namespace {

inline __attribute__((always_inline)) uint16_t narrow(float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = bits + 0x7FFF + ((bits >> 16) & 1);
  return static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded >> 16);
}

}  // namespace

bool has_row_kernels(const at::Tensor& x) {
  return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

int64_t row_grain(int64_t row_elements) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, row_elements));
}

VARSCALE_SIMD void widen_row(const uint16_t* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = widen(in[i]);
}

VARSCALE_SIMD void narrow_row(const float* in, uint16_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = narrow(in[i]);
}

VARSCALE_SIMD void scale_row(const float* x, float factor, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor;
}

VARSCALE_SIMD void scale_row(const uint16_t* x, float factor, uint16_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = narrow(widen(x[i]) * factor);
}

at::Tensor sample_sums(int64_t B, int64_t L, int64_t width,
                       const std::function<void(int64_t begin, int64_t end, float* sums)>& rows, int64_t chunk_rows) {
  const int64_t chunks = (L + chunk_rows - 1) / chunk_rows;
  std::vector<float> partial(static_cast<size_t>(B * chunks * width));
  at::parallel_for(0, B * chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t b = chunk / chunks, first = chunk % chunks * chunk_rows;
      rows(b * L + first, b * L + std::min(L, first + chunk_rows), partial.data() + chunk * width);
    }
  });
  at::Tensor sums = at::empty({B, width}, at::TensorOptions(at::kFloat));
  auto* out = sums.data_ptr<float>();
  std::vector<double> sum(static_cast<size_t>(width));
  for (int64_t b = 0; b < B; ++b) {
    std::fill(sum.begin(), sum.end(), 0.0);
    for (int64_t chunk = b * chunks; chunk < (b + 1) * chunks; ++chunk)
      for (int64_t i = 0; i < width; ++i) sum[static_cast<size_t>(i)] += partial[static_cast<size_t>(chunk * width + i)];
    for (int64_t i = 0; i < width; ++i) out[b * width + i] = static_cast<float>(sum[static_cast<size_t>(i)]);
  }
  return sums;
}

}  // namespace varscale::nn
