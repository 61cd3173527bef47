#include "nn/attention_rows.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "nn/attention_chunks.hpp"
#include "nn/lanes.hpp"
#include "nn/row_access.hpp"

namespace varscale::nn {

namespace {

// A matrix whose rows or columns may lie apart.
struct Rows {
  const float* data;
  int64_t row, column = 1;  // elements from one to the next
};

// out[r][n] = or += the sum over k of a[r][k] b[k][n]; R rows and V vectors of lanes stay in registers.
template <int R, int V>
inline __attribute__((always_inline)) void tile(const Rows a, const float* b, int64_t b_row, int64_t inner, float* out,
                                                int64_t out_row, bool add) {
  Floats sum[R][V];
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) sum[r][v] = add ? load_lanes(out + r * out_row + v * kLanes) : Floats{};
  for (int64_t k = 0; k < inner; ++k) {
    Floats lanes[V];
    for (int v = 0; v < V; ++v) lanes[v] = load_lanes(b + k * b_row + v * kLanes);
    for (int r = 0; r < R; ++r) {
      const float factor = a.data[r * a.row + k * a.column];
      for (int v = 0; v < V; ++v) sum[r][v] += factor * lanes[v];
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store_lanes(sum[r][v], out + r * out_row + v * kLanes);
}

template <int R, int V>
inline __attribute__((always_inline)) int64_t row_tiles(int64_t from, int64_t rows, const Rows a, const float* b, int64_t b_row,
                                                        int64_t inner, float* out, int64_t out_row, bool add) {
  for (; from + R <= rows; from += R)
    tile<R, V>({a.data + from * a.row, a.row, a.column}, b, b_row, inner, out + from * out_row, out_row, add);
  return from;
}

template <int V>
inline __attribute__((always_inline)) void columns(int64_t rows, const Rows a, const float* b, int64_t b_row, int64_t inner,
                                                   float* out, int64_t out_row, bool add) {
  int64_t r = row_tiles<8, V>(0, rows, a, b, b_row, inner, out, out_row, add);
  r = row_tiles<4, V>(r, rows, a, b, b_row, inner, out, out_row, add);
  row_tiles<1, V>(r, rows, a, b, b_row, inner, out, out_row, add);
}

// out [rows, width] = or += a [rows, inner] b [inner, width]; width a multiple of kLanes.
VARSCALE_SIMD void multiply(int64_t rows, int64_t width, int64_t inner, const Rows a, const float* b, int64_t b_row, float* out,
                            int64_t out_row, bool add) {
  int64_t n = 0;
  for (; n + 2 * kLanes <= width; n += 2 * kLanes) columns<2>(rows, a, b + n, b_row, inner, out + n, out_row, add);
  for (; n < width; n += kLanes) columns<1>(rows, a, b + n, b_row, inner, out + n, out_row, add);
}

// scores [keys, 32] to their exponentials, with the log-sum-exp and the reciprocal of the sum of each query.
VARSCALE_SIMD void exponentials(float* scores, int64_t keys, float* lse, float* reciprocal) {
  for (int64_t half = 0; half < kQueries; half += kLanes) {
    float* s = scores + half;
    Floats largest = load_lanes(s);
    for (int64_t k = 1; k < keys; ++k) {
      const Floats x = load_lanes(s + k * kQueries);
      largest = x > largest ? x : largest;
    }
    Floats sum{};
    for (int64_t k = 0; k < keys; ++k) {
      const Floats e = exp_lanes(load_lanes(s + k * kQueries) - largest);
      sum += e;
      store_lanes(e, s + k * kQueries);
    }
    for (int64_t l = 0; l < kLanes; ++l) {
      lse[half + l] = largest[l] + std::log(sum[l]);
      reciprocal[half + l] = 1 / sum[l];
    }
  }
}

// scores and the gradients of the shares, both [keys, 32], to the shares and the gradients of the scores.
VARSCALE_SIMD void softmax_backward(float* scores, float* grads, int64_t keys, const float* lse, const float* along, float scale) {
  for (int64_t half = 0; half < kQueries; half += kLanes) {
    const Floats shift = load_lanes(lse + half), mean = load_lanes(along + half);
    for (int64_t k = 0; k < keys; ++k) {
      float *s = scores + k * kQueries + half, *g = grads + k * kQueries + half;
      const Floats share = exp_lanes(load_lanes(s) - shift);
      store_lanes(share, s);
      store_lanes(share * (load_lanes(g) - mean) * scale, g);
    }
  }
}

VARSCALE_SIMD float dot(const float* a, const float* b, int64_t n) {  // n a multiple of kLanes
  Floats lanes{};
  for (int64_t i = 0; i < n; i += kLanes) lanes += load_lanes(a + i) * load_lanes(b + i);
  return sum_of(lanes);
}

Rows head_of(const Tensor& x_BHLD, int64_t b, int64_t h) {
  const auto head = head_rows<const float>(x_BHLD, b, h);
  return {head.data, head.row};
}

// The rows of a chunk times a factor as [D, 32], a query a lane; lanes without a query are zero.
void transpose_chunk(const Rows x, const Chunk& chunk, int64_t D, float factor, float* out) {
  std::fill_n(out, D * kQueries, 0.0F);
  for (int64_t i = 0; i < chunk.count; ++i) {
    const float* row = x.data + (chunk.begin + i) * x.row;
    for (int64_t d = 0; d < D; ++d) out[d * kQueries + i] = row[d] * factor;
  }
}

// What one thread works in.
struct Scratch {
  Scratch(int64_t L, int64_t D, bool backward)
      : queries(static_cast<size_t>(D * kQueries)),
        scores(static_cast<size_t>(L * kQueries)),
        grads(backward ? static_cast<size_t>(L * kQueries) : 0) {}
  std::vector<float> queries, scores, grads;
};

void scores_of(const Rows q, const Rows k, const Chunk& chunk, int64_t D, float scale, Scratch& scratch) {
  transpose_chunk(q, chunk, D, scale, scratch.queries.data());
  multiply(chunk.keys, kQueries, D, k, scratch.queries.data(), kQueries, scratch.scores.data(), kQueries, false);
  add_mask(chunk, scratch.scores.data());
}

}  // namespace

bool has_attention_rows(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD) {
  const auto fits = [](const Tensor& x) { return x.is_cpu() && x.scalar_type() == at::kFloat && x.stride(3) == 1; };
  return fits(q_BHLD) && fits(k_BHLD) && fits(v_BHLD) && q_BHLD.size(3) % kLanes == 0;
}

Attended attention_rows(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD, const std::vector<PrefixSpan>& spans,
                        double scale) {
  const int64_t B = q_BHLD.size(0), H = q_BHLD.size(1), L = q_BHLD.size(2), D = q_BHLD.size(3);
  Attended attended{at::empty({B, L, H, D}, q_BHLD.options()), at::empty({B, H, L}, q_BHLD.options())};
  auto* out = attended.out_BLHD.data_ptr<float>();
  auto* lse = attended.lse_BHL.data_ptr<float>();
  const std::vector<Chunk> chunks = chunks_of(spans);
  const auto C = static_cast<int64_t>(chunks.size());
  at::parallel_for(0, B * H * C, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(L, D, false);
    std::array<float, kQueries> lse_of{}, reciprocal{};
    for (int64_t i = begin; i < end; ++i) {
      const Chunk& chunk = chunks[static_cast<size_t>(i % C)];
      const int64_t head = i / C, b = head / H, h = head % H;
      const Rows v = head_of(v_BHLD, b, h);
      scores_of(head_of(q_BHLD, b, h), head_of(k_BHLD, b, h), chunk, D, static_cast<float>(scale), scratch);
      exponentials(scratch.scores.data(), chunk.keys, lse_of.data(), reciprocal.data());
      std::copy_n(lse_of.begin(), chunk.count, lse + head * L + chunk.begin);
      float* rows = out + ((b * L + chunk.begin) * H + h) * D;
      multiply(chunk.count, D, chunk.keys, {scratch.scores.data(), 1, kQueries}, v.data, v.row, rows, H * D, false);
      for (int64_t q = 0; q < chunk.count; ++q) scale_row(rows + q * H * D, reciprocal[static_cast<size_t>(q)], rows + q * H * D, D);
    }
  });
  return attended;
}

AttentionGrads attention_rows_backward(const Tensor& grad_BLHD, const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                                       const Attended& attended, const std::vector<PrefixSpan>& spans, double scale) {
  const int64_t B = q_BHLD.size(0), H = q_BHLD.size(1), L = q_BHLD.size(2), D = q_BHLD.size(3), row = H * D;
  AttentionGrads grads{at::empty({B, L, H, D}, q_BHLD.options()), at::empty({B, L, H, D}, q_BHLD.options()),
                       at::empty({B, L, H, D}, q_BHLD.options())};
  const auto* grad = grad_BLHD.const_data_ptr<float>();
  const auto* out = attended.out_BLHD.const_data_ptr<float>();
  const auto* lse = attended.lse_BHL.const_data_ptr<float>();
  float *dq = grads.dq_BLHD.data_ptr<float>(), *dk = grads.dk_BLHD.data_ptr<float>(), *dv = grads.dv_BLHD.data_ptr<float>();
  const std::vector<Chunk> chunks = chunks_of(spans);
  at::parallel_for(0, B * H, 1, [&](int64_t begin, int64_t end) {
    Scratch scratch(L, D, true);
    float *shares = scratch.scores.data(), *dscores = scratch.grads.data();
    std::array<float, kQueries> lse_of{}, along{};
    for (int64_t head = begin; head < end; ++head) {
      const int64_t b = head / H, h = head % H, first = (b * L * H + h) * D;
      const Rows q = head_of(q_BHLD, b, h), k = head_of(k_BHLD, b, h), v = head_of(v_BHLD, b, h), dout{grad + first, row};
      // The last chunk sees every key and comes first: what the others add to is then written.
      for (auto chunk = chunks.rbegin(); chunk != chunks.rend(); ++chunk) {
        const bool add = chunk != chunks.rbegin();
        const int64_t at = first + chunk->begin * row;
        for (int64_t i = 0; i < chunk->count; ++i) {
          lse_of[static_cast<size_t>(i)] = lse[head * L + chunk->begin + i];
          along[static_cast<size_t>(i)] = dot(grad + at + i * row, out + at + i * row, D);
        }
        scores_of(q, k, *chunk, D, static_cast<float>(scale), scratch);
        transpose_chunk(dout, *chunk, D, 1, scratch.queries.data());
        multiply(chunk->keys, kQueries, D, v, scratch.queries.data(), kQueries, dscores, kQueries, false);
        softmax_backward(shares, dscores, chunk->keys, lse_of.data(), along.data(), static_cast<float>(scale));
        multiply(chunk->count, D, chunk->keys, {dscores, 1, kQueries}, k.data, k.row, dq + at, row, false);
        multiply(chunk->keys, D, chunk->count, {dscores, kQueries}, q.data + chunk->begin * q.row, q.row, dk + first, row, add);
        multiply(chunk->keys, D, chunk->count, {shares, kQueries}, grad + at, row, dv + first, row, add);
      }
    }
  });
  return grads;
}

}  // namespace varscale::nn
