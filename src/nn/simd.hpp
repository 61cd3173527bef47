// How the CPU kernels of this folder are compiled.
//
//   VARSCALE_SIMD void twice(const float* x, float* out, int64_t n) {
//     for (int64_t i = 0; i < n; ++i) out[i] = 2 * x[i];
//   }
#pragma once

// One function, compiled for three levels of instruction sets (AVX-512, AVX2 with FMA, plain), of which the
// processor takes the highest that it has, whoever made it; loops over kLanes independent lanes
// vectorise without reordering any sum. Templates get no such copies: an overload for each dtype calls one inline.
// The loader asks an instrumented function which of them to take before the thread sanitizer can answer: there one
// must do.
#ifdef __SANITIZE_THREAD__
#define VARSCALE_SIMD
#else
#define VARSCALE_SIMD \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default"), optimize("O3")))
#endif
