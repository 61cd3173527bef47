// What the CPU kernels of this folder vectorise with.
//
//   VARSCALE_SIMD void twice(const float* x, float* out, int64_t n) {
//     for (int64_t i = 0; i + kLanes <= n; i += kLanes) store(load(x + i, kLanes) * 2.0F, out + i, kLanes);
//   }
#pragma once

#include <cstdint>
#include <cstring>

// One function, compiled for three levels of instruction sets (AVX-512, AVX2 with FMA, plain), of which the
// processor takes the highest that it has, whoever made it; loops over kLanes independent lanes
// vectorise without reordering any sum. The loader asks an instrumented function which of them to take
// before the thread sanitizer can answer: there one must do.
#ifdef __SANITIZE_THREAD__
#define VARSCALE_SIMD
#else
#define VARSCALE_SIMD \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#endif

namespace varscale::nn {

constexpr int64_t kLanes = 16;
using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = int32_t __attribute__((vector_size(4 * kLanes)));

// The first n <= kLanes lanes; the others are zero.
inline __attribute__((always_inline)) Floats load(const float* x, int64_t n) {
  Floats lanes{};
  std::memcpy(&lanes, x, static_cast<size_t>(n) * sizeof(float));
  return lanes;
}

inline __attribute__((always_inline)) void store(const Floats& lanes, float* out, int64_t n) {
  std::memcpy(out, &lanes, static_cast<size_t>(n) * sizeof(float));
}

}  // namespace varscale::nn
