// Vectors of float32 for loops that the compiler does not vectorise by itself.
//
//   VARSCALE_SIMD void twice(const float* x, float* out, int64_t n) {
//     for (int64_t i = 0; i + kLanes <= n; i += kLanes) store_lanes(load_lanes(x + i) * 2.0F, out + i);
//   }
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "nn/simd.hpp"

namespace varscale::nn {

constexpr int64_t kLanes = 16;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

// kLanes elements of a row of float32 or bf16 (as its bits). Narrowed to the nearest, ties to even; NaN stays NaN.
using Halves = uint16_t __attribute__((vector_size(2 * kLanes)));
inline __attribute__((always_inline)) Floats load_lanes(const float* x) {
  Floats lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}
inline __attribute__((always_inline)) Floats load_lanes(const uint16_t* x) {
  Halves lanes;
  std::memcpy(&lanes, x, sizeof(lanes));
  return std::bit_cast<Floats>(__builtin_convertvector(lanes, Ints) << 16);
}
inline __attribute__((always_inline)) void store_lanes(const Floats& lanes, float* out) {
  std::memcpy(out, &lanes, sizeof(lanes));
}
inline __attribute__((always_inline)) void store_lanes(const Floats& lanes, uint16_t* out) {
  const Ints bits = std::bit_cast<Ints>(lanes);
  const Ints rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const Halves narrow = __builtin_convertvector((bits & 0x7FFFFFFF) > 0x7F800000 ? Ints{} + 0x7FC0 : rounded, Halves);
  std::memcpy(out, &narrow, sizeof(narrow));
}

// The first n <= kLanes elements; the lanes after them are zero.
template <class T>
inline __attribute__((always_inline)) Floats load_first(const T* x, int64_t n) {
  std::array<T, kLanes> first{};
  std::memcpy(first.data(), x, static_cast<size_t>(n) * sizeof(T));
  return load_lanes(first.data());
}
template <class T>
inline __attribute__((always_inline)) void store_first(const Floats& lanes, T* out, int64_t n) {
  std::array<T, kLanes> all;
  store_lanes(lanes, all.data());
  std::memcpy(out, all.data(), static_cast<size_t>(n) * sizeof(T));
}

// out = f(in...), element by element, for n of them. out may be one of in.
template <class F, class T, class... In>
inline __attribute__((always_inline)) void map_lanes(const F& f, int64_t n, T* out, const In*... in) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_lanes(f(load_lanes(in + i)...), out + i);
  if (i < n) store_first(f(load_first(in + i, n - i)...), out + i, n - i);
}

inline __attribute__((always_inline)) float sum_of(const Floats& lanes) {  // in halves
  using Eight = float __attribute__((vector_size(32)));
  using Four = float __attribute__((vector_size(16)));
  const auto halves = std::bit_cast<std::array<Eight, 2>>(lanes);
  const auto quarters = std::bit_cast<std::array<Four, 2>>(halves[0] + halves[1]);
  const Four sums = quarters[0] + quarters[1];
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

// exp(x) to 2 units in the last place for x <= 88; below -87 it is 0 to within 2e-38.
inline __attribute__((always_inline)) Floats exp_lanes(const Floats x) {
  constexpr float kRounder = 12582912.0F;  // 1.5 x 2^23: adding it leaves the nearest integer
  const Floats bounded = x > -87.0F ? x : Floats{} - 87.0F;
  const Floats n = (bounded * 1.44269504F + kRounder) - kRounder;
  const Floats r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
  Floats p = r * 1.9875691500e-4F + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const Ints exponent = (__builtin_convertvector(n, Ints) + 127) << 23;
  return p * std::bit_cast<Floats>(exponent);
}

}  // namespace varscale::nn
