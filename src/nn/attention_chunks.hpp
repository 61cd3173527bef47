// How the attention kernels of this folder cut their work: 32 queries at a time on all keys that they see, as [keys, 32]: a
// query a lane.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "nn/attention.hpp"
#include "nn/lanes.hpp"

namespace varscale::nn {

constexpr int64_t kQueries = 2 * kLanes;

// Queries [begin, begin + count) of a span, on its keys [0, keys).
struct Chunk {
  int64_t begin, count, keys;
  const float* mask;  // of the first query, or null; a row has as many keys
};

inline std::vector<Chunk> chunks_of(const std::vector<PrefixSpan>& spans) {
  std::vector<Chunk> chunks;
  for (const PrefixSpan& span : spans) {
    const float* mask = span.mask_QK.defined() ? span.mask_QK.const_data_ptr<float>() : nullptr;
    for (int64_t begin = span.begin; begin < span.end; begin += kQueries) {
      chunks.push_back({begin, std::min(kQueries, span.end - begin), span.end,
                        mask == nullptr ? nullptr : mask + (begin - span.begin) * span.end});
    }
  }
  return chunks;
}

inline void add_mask(const Chunk& chunk, float* scores) {
  if (chunk.mask == nullptr) return;
  for (int64_t i = 0; i < chunk.count; ++i)
    for (int64_t k = 0; k < chunk.keys; ++k) scores[k * kQueries + i] += chunk.mask[i * chunk.keys + k];
}

// A head of an image: its first element, and how far apart its tokens lie.
template <class T>
struct HeadRows {
  T* data;
  int64_t row;
  T* at(int64_t token) const { return data + token * row; }
};

template <class T>
HeadRows<T> head_rows(const at::Tensor& x_BHLD, int64_t b, int64_t h) {
  auto* data = static_cast<T*>(const_cast<void*>(x_BHLD.const_data_ptr()));
  return {data + b * x_BHLD.stride(0) + h * x_BHLD.stride(1), x_BHLD.stride(2)};
}

}  // namespace varscale::nn
