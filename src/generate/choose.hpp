// From logits to tokens: guidance, filters, and the draw.
//
//   Tensor logits = guide(cond_BNV, uncond_BNV, guidance_at(1.5, k, scales));
//   logits = filter_logits(logits, /*top_k=*/900, /*top_p=*/0.96);
//   Tensor tokens_BN = draw_tokens(logits, uniforms(seed, images, k, n));
//
// Every row is treated on its own: no result depends on the other rows of the batch.
//
// Legend   B images, N tokens of one map, V codes, E code width.
// Source   FoundationVision/VAR models/{var,helpers}.py for the ramp and the two filters.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace varscale::generate {

using at::Tensor;

// The public ramp: t = cfg k / (S - 1), so the first map is never guided and the last one has t =
// cfg. Another usual convention counts from 1: its weight is 1 + t.
double guidance_at(double cfg, int64_t k, int64_t scales);

// (1 + t) cond - t uncond, float32.
Tensor guide(const Tensor& cond_BNV, const Tensor& uncond_BNV, double t);

// Logits [..., V] float32 with the removed entries at -infinity.
// top_k > 0: entries below the k-th largest go; ties with it stay, so more than k may survive.
// top_p > 0: of what is left, sorted ascending, entries whose inclusive cumulated probability is at
// most 1 - top_p go, but never the largest. Sums are float64.
Tensor filter_logits(const Tensor& logits, int64_t top_k, double top_p);

// Inverse CDF: the first token whose cumulated probability exceeds u times the total, in float64.
// logits [B, N, V], u_BN float64 in [0, 1); returns [B, N] int64. A removed entry is never drawn.
Tensor draw_tokens(const Tensor& logits_BNV, const Tensor& u_BN);

// u for the `tokens` places of map `scale` of each image: functions of (seed, image, scale, place)
// alone. [images, tokens] float64 on the CPU.
Tensor uniforms(uint64_t seed, const std::vector<int64_t>& images, int64_t scale, int64_t tokens);

// Another way from logits to codes, smoother and for pictures alone: a weight for every code, the softmax of
// ((1 + r) logits + Gumbel noise) / tau with r = k / (S - 1) and tau = max(0.27 (1 - 0.95 r), 0.005). Its largest
// weight is a draw of softmax((1 + r) logits). One image: filtered logits_NV float32, where -infinity stays without
// weight. Returns [N, V] float32. The noise is a function of (seed, image, scale, place, code). Source: the public
// sampling code's more_smooth.
Tensor smooth_weights(const Tensor& logits_NV, uint64_t seed, int64_t image, int64_t k, int64_t scales);

}  // namespace varscale::generate
