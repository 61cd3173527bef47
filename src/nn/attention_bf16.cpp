// Block-causal attention in bf16 by the processor's dot products of bf16 pairs (AVX512-BF16: AMD since family 25 model 16, Intel
// since Cooper Lake). The way is that of attention_rows.cpp; the factors of every product are pairs of neighbours along the
// summed axis, in 32 bits. Scores, their softmax and all sums are float32; shares and gradients of scores are rounded to bf16
// where they enter a product.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <immintrin.h>

#include <array>
#include <cmath>
#include <cstring>

#include "nn/attention_chunks.hpp"
#include "nn/attention_rows.hpp"
#include "nn/lanes.hpp"

namespace varscale::nn {

namespace {

#define VARSCALE_BF16 __attribute__((target("arch=x86-64-v4,avx512bf16"), optimize("O3")))

// Rows of pairs: 32 bits for elements 2 k and 2 k + 1 of the summed axis. Distances in bf16 elements.
struct PairRows {
  const uint16_t* data;
  int64_t row, pair;
};

// out[r][n] = or += the sum over pairs of a[r] b[n]; b [pairs, width] of 32 bits.
template <int R, int V>
VARSCALE_BF16 inline __attribute__((always_inline)) void pair_tile(const PairRows a, const uint32_t* b, int64_t b_row,
                                                                   int64_t pairs, float* out, int64_t out_row, bool add) {
  __m512 sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = add ? _mm512_loadu_ps(out + r * out_row + v * kLanes) : _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; ++k) {
    __m512i lanes[V];
    for (int v = 0; v < V; ++v) lanes[v] = _mm512_loadu_si512(b + k * b_row + v * kLanes);
    for (int r = 0; r < R; ++r) {
      int32_t pair;
      std::memcpy(&pair, a.data + r * a.row + k * a.pair, sizeof(pair));
      const auto factor = (__m512bh)_mm512_set1_epi32(pair);
      for (int v = 0; v < V; ++v) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], factor, (__m512bh)lanes[v]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(out + r * out_row + v * kLanes, sum[r][v]);
}

template <int V>
VARSCALE_BF16 inline __attribute__((always_inline)) void pair_columns(int64_t rows, const PairRows a, const uint32_t* b,
                                                                      int64_t b_row, int64_t pairs, float* out,
                                                                      int64_t out_row, bool add) {
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8)
    pair_tile<8, V>({a.data + r * a.row, a.row, a.pair}, b, b_row, pairs, out + r * out_row, out_row, add);
  for (; r < rows; ++r)
    pair_tile<1, V>({a.data + r * a.row, a.row, a.pair}, b, b_row, pairs, out + r * out_row, out_row, add);
}

// out [rows, width] = or += a [rows, 2 pairs] b [2 pairs, width]; width a multiple of kLanes.
VARSCALE_BF16 void multiply_pairs(int64_t rows, int64_t width, int64_t pairs, const PairRows a, const uint32_t* b, float* out,
                                  int64_t out_row, bool add) {
  int64_t n = 0;
  for (; n + 2 * kLanes <= width; n += 2 * kLanes) pair_columns<2>(rows, a, b + n, width, pairs, out + n, out_row, add);
  for (; n < width; n += kLanes) pair_columns<1>(rows, a, b + n, width, pairs, out + n, out_row, add);
}

VARSCALE_BF16 inline __attribute__((always_inline)) Ints rounded(const Floats x) {  // to bf16, in the low halves
  Halves narrow;
  store_lanes(x, reinterpret_cast<uint16_t*>(&narrow));
  return __builtin_convertvector(narrow, Ints);
}

VARSCALE_BF16 inline __attribute__((always_inline)) void store_pairs(const Floats low, const Floats high, uint32_t* out) {
  const Ints pairs = rounded(low) | (rounded(high) << 16);
  std::memcpy(out, &pairs, sizeof(pairs));
}

// scores [keys, 32] times scale to the pairs along keys of their exponentials, with log-sum-exp and reciprocal of each query.
VARSCALE_BF16 void pair_exponentials(const float* scores, int64_t keys, float scale, uint32_t* pairs, float* lse,
                                     float* reciprocal) {
  for (int64_t half = 0; half < kQueries; half += kLanes) {
    const float* s = scores + half;
    Floats largest = load_lanes(s);
    for (int64_t k = 1; k < keys; ++k) {
      const Floats x = load_lanes(s + k * kQueries);
      largest = x > largest ? x : largest;
    }
    largest *= scale;
    Floats sum{};
    for (int64_t k = 0; k < keys; k += 2) {
      const Floats low = exp_lanes(load_lanes(s + k * kQueries) * scale - largest);
      const Floats high = k + 1 < keys ? exp_lanes(load_lanes(s + (k + 1) * kQueries) * scale - largest) : Floats{};
      sum += low;
      sum += high;
      store_pairs(low, high, pairs + k / 2 * kQueries + half);
    }
    for (int64_t l = 0; l < kLanes; ++l) {
      lse[half + l] = largest[l] + std::log(sum[l]);
      reciprocal[half + l] = 1 / sum[l];
    }
  }
}

// scores and the gradients of the shares, both [keys, 32], to the shares and the gradients of the scores as bf16 [keys, 32], and
// the latter's pairs along keys.
VARSCALE_BF16 void pair_softmax_backward(const float* scores, const float* grads, int64_t keys, const float* lse,
                                         const float* along, float scale, uint16_t* shares, uint16_t* dscores, uint32_t* pairs) {
  for (int64_t half = 0; half < kQueries; half += kLanes) {
    const Floats shift = load_lanes(lse + half), mean = load_lanes(along + half);
    for (int64_t k = 0; k < keys; k += 2) {
      Floats d[2]{};
      for (int64_t i = 0; i < std::min<int64_t>(2, keys - k); ++i) {
        const int64_t at = (k + i) * kQueries + half;
        const Floats share = exp_lanes(load_lanes(scores + at) * scale - shift);
        d[i] = share * (load_lanes(grads + at) - mean) * scale;
        store_lanes(share, shares + at);
        store_lanes(d[i], dscores + at);
      }
      store_pairs(d[0], d[1], pairs + k / 2 * kQueries + half);
    }
  }
}

// Rows [0, count) of x, D wide, to pairs of rows [ceil(count / 2), D]; what is missing is zero.
VARSCALE_BF16 void pair_rows(HeadRows<const uint16_t> x, int64_t count, int64_t D, uint32_t* out) {
  for (int64_t i = 0; i < count; i += 2) {
    const uint16_t *low = x.at(i), *high = i + 1 < count ? x.at(i + 1) : nullptr;
    for (int64_t d = 0; d < D; ++d)
      out[i / 2 * D + d] = low[d] | (high != nullptr ? static_cast<uint32_t>(high[d]) << 16 : 0);
  }
}

// Rows [0, count) of x to pairs along D, a row a lane: [D / 2, 32].
VARSCALE_BF16 void transpose_pairs(HeadRows<const uint16_t> x, int64_t count, int64_t D, uint32_t* out) {
  std::fill_n(out, D / 2 * kQueries, 0U);
  for (int64_t i = 0; i < count; ++i)
    for (int64_t d = 0; d < D / 2; ++d) std::memcpy(out + d * kQueries + i, x.at(i) + 2 * d, sizeof(uint32_t));
}

VARSCALE_BF16 void narrow_scaled(const float* x, float factor, uint16_t* out, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) store_lanes(load_lanes(x + i) * factor, out + i);
}

VARSCALE_BF16 float dot_rows(const uint16_t* a, const uint16_t* b, int64_t n) {
  Floats lanes{};
  for (int64_t i = 0; i < n; i += kLanes) lanes += load_lanes(a + i) * load_lanes(b + i);
  return sum_of(lanes);
}

template <class T>
std::vector<T> sized(int64_t count) {
  return std::vector<T>(static_cast<size_t>(count));
}

PairRows rows_of(HeadRows<const uint16_t> x) { return {x.data, x.row, 2}; }
PairRows columns_of(const std::vector<uint32_t>& pairs) {  // of [pairs, 32], a column a row
  return {reinterpret_cast<const uint16_t*>(pairs.data()), 2, 2 * kQueries};
}
PairRows lanes_of(const std::vector<uint16_t>& x) { return {x.data(), kQueries, 2}; }  // of [keys, 32]

}  // namespace

bool has_bf16_dot_products() {
  static const bool has = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                          !__builtin_cpu_supports("amx-bf16");
  return has;
}

bool has_attention_bf16(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD) {
  const auto fits = [](const Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kBFloat16 && x.stride(3) == 1; };
  return has_bf16_dot_products() && fits(q_BHLD) && fits(k_BHLD) && fits(v_BHLD) && q_BHLD.size(3) % kLanes == 0;
}

Attended attention_bf16(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD, const std::vector<PrefixSpan>& spans,
                        double scale) {
  const int64_t B = q_BHLD.size(0), H = q_BHLD.size(1), L = q_BHLD.size(2), D = q_BHLD.size(3);
  Attended attended{at::empty({B, L, H, D}, q_BHLD.options()), at::empty({B, H, L}, at::TensorOptions(at::kFloat))};
  auto* lse = attended.lse_BHL.data_ptr<float>();
  const Tensor out_BHLD = attended.out_BLHD.transpose(1, 2);
  const std::vector<Chunk> chunks = chunks_of(spans);
  at::parallel_for(0, B * H, 1, [&](int64_t begin, int64_t end) {
    auto v_pairs = sized<uint32_t>((L + 1) / 2 * D), queries = sized<uint32_t>(D / 2 * kQueries),
         shares = sized<uint32_t>((L + 1) / 2 * kQueries);
    auto scores = sized<float>(L * kQueries), sums = sized<float>(kQueries * D);
    std::array<float, kQueries> lse_of{}, reciprocal{};
    for (int64_t head = begin; head < end; ++head) {
      const int64_t b = head / H, h = head % H;
      const auto q = head_rows<const uint16_t>(q_BHLD, b, h), k = head_rows<const uint16_t>(k_BHLD, b, h);
      const auto out = head_rows<uint16_t>(out_BHLD, b, h);
      pair_rows(head_rows<const uint16_t>(v_BHLD, b, h), L, D, v_pairs.data());
      for (const Chunk& chunk : chunks) {
        transpose_pairs({q.at(chunk.begin), q.row}, chunk.count, D, queries.data());
        multiply_pairs(chunk.keys, kQueries, D / 2, rows_of(k), queries.data(), scores.data(), kQueries, false);
        add_mask(chunk, scores.data());
        pair_exponentials(scores.data(), chunk.keys, static_cast<float>(scale), shares.data(), lse_of.data(), reciprocal.data());
        std::copy_n(lse_of.begin(), chunk.count, lse + head * L + chunk.begin);
        multiply_pairs(chunk.count, D, (chunk.keys + 1) / 2, columns_of(shares), v_pairs.data(), sums.data(), D, false);
        for (int64_t i = 0; i < chunk.count; ++i)
          narrow_scaled(sums.data() + i * D, reciprocal[static_cast<size_t>(i)], out.at(chunk.begin + i), D);
      }
    }
  });
  return attended;
}

AttentionGrads attention_bf16_backward(const Tensor& grad_BLHD, const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                                       const Attended& attended, const std::vector<PrefixSpan>& spans, double scale) {
  const int64_t B = q_BHLD.size(0), H = q_BHLD.size(1), L = q_BHLD.size(2), D = q_BHLD.size(3);
  AttentionGrads grads{at::empty({B, L, H, D}, q_BHLD.options()), at::empty({B, L, H, D}, q_BHLD.options()),
                       at::empty({B, L, H, D}, q_BHLD.options())};
  const Tensor grad_BHLD = grad_BLHD.transpose(1, 2), out_BHLD = attended.out_BLHD.transpose(1, 2),
               dq_BHLD = grads.dq_BLHD.transpose(1, 2), dk_BHLD = grads.dk_BLHD.transpose(1, 2),
               dv_BHLD = grads.dv_BLHD.transpose(1, 2);
  const auto* lse = attended.lse_BHL.const_data_ptr<float>();
  const std::vector<Chunk> chunks = chunks_of(spans);
  constexpr float kNoQuery = 1e30F;  // as log-sum-exp of a lane without a query: its shares vanish
  at::parallel_for(0, B * H, 1, [&](int64_t begin, int64_t end) {
    auto k_pairs = sized<uint32_t>((L + 1) / 2 * D), lanes = sized<uint32_t>(D / 2 * kQueries),
         of_queries = sized<uint32_t>(kQueries / 2 * D), of_grads = sized<uint32_t>(kQueries / 2 * D),
         dscore_pairs = sized<uint32_t>((L + 1) / 2 * kQueries);
    auto scores = sized<float>(L * kQueries), dshares = sized<float>(L * kQueries), dk = sized<float>(L * D),
         dv = sized<float>(L * D), sums = sized<float>(kQueries * D);
    auto shares = sized<uint16_t>(L * kQueries), dscores = sized<uint16_t>(L * kQueries);
    std::array<float, kQueries> lse_of{}, along{};
    for (int64_t head = begin; head < end; ++head) {
      const int64_t b = head / H, h = head % H;
      const auto of = [&](const Tensor& x_BHLD) { return head_rows<const uint16_t>(x_BHLD, b, h); };
      const auto q = of(q_BHLD), k = of(k_BHLD), v = of(v_BHLD), grad = of(grad_BHLD), out = of(out_BHLD);
      const auto dq = head_rows<uint16_t>(dq_BHLD, b, h);
      pair_rows(k, L, D, k_pairs.data());
      // The last chunk sees every key and comes first: what the others add to is then written.
      for (auto chunk = chunks.rbegin(); chunk != chunks.rend(); ++chunk) {
        const bool add = chunk != chunks.rbegin();
        const int64_t first = chunk->begin, count = chunk->count, keys = chunk->keys, pairs = (count + 1) / 2;
        lse_of.fill(kNoQuery);
        along.fill(0);
        for (int64_t i = 0; i < count; ++i) {
          lse_of[static_cast<size_t>(i)] = lse[head * L + first + i];
          along[static_cast<size_t>(i)] = dot_rows(grad.at(first + i), out.at(first + i), D);
        }
        transpose_pairs({q.at(first), q.row}, count, D, lanes.data());
        multiply_pairs(keys, kQueries, D / 2, rows_of(k), lanes.data(), scores.data(), kQueries, false);
        add_mask(*chunk, scores.data());
        transpose_pairs({grad.at(first), grad.row}, count, D, lanes.data());
        multiply_pairs(keys, kQueries, D / 2, rows_of(v), lanes.data(), dshares.data(), kQueries, false);
        pair_softmax_backward(scores.data(), dshares.data(), keys, lse_of.data(), along.data(), static_cast<float>(scale),
                              shares.data(), dscores.data(), dscore_pairs.data());
        multiply_pairs(count, D, (keys + 1) / 2, columns_of(dscore_pairs), k_pairs.data(), sums.data(), D, false);
        for (int64_t i = 0; i < count; ++i) narrow_scaled(sums.data() + i * D, 1, dq.at(first + i), D);
        pair_rows({q.at(first), q.row}, count, D, of_queries.data());
        pair_rows({grad.at(first), grad.row}, count, D, of_grads.data());
        multiply_pairs(keys, D, pairs, lanes_of(dscores), of_queries.data(), dk.data(), D, add);
        multiply_pairs(keys, D, pairs, lanes_of(shares), of_grads.data(), dv.data(), D, add);
      }
      for (int64_t l = 0; l < L; ++l) {
        narrow_scaled(dk.data() + l * D, 1, head_rows<uint16_t>(dk_BHLD, b, h).at(l), D);
        narrow_scaled(dv.data() + l * D, 1, head_rows<uint16_t>(dv_BHLD, b, h).at(l), D);
      }
    }
  });
  return grads;
}

}  // namespace varscale::nn
