// Weights and inputs that any program can make from a name: the rule behind the parity fixtures.
//
//   at::Tensor w = hash_param("encoder.conv_in.weight", {32, 3, 3, 3});
//   at::Tensor tokens_BL = hash_int_tensor("input.tokens.d2", {3, 30}, 4096);
//   std::vector<int64_t> kept = sample_index("logits", numel, 64);   // what a fixture keeps of a large tensor
//
// Rule     h = FNV-1a(name) xor (seed * golden); z_i = splitmix64 finaliser of h + (i + 1) * golden;
//          k_i = z_i >> 40; u = k / 2^24; v = 2 u - 1; integers (k n) >> 24. hash_param() turns v into a
//          weight by the kind of the parameter, in float64, rounded once.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "nn/tensor.hpp"

namespace varscale::test {

inline constexpr uint64_t kGolden = 0x9E3779B97F4A7C15;

inline uint64_t hash_name(std::string_view name) {
  uint64_t h = 0xCBF29CE484222325;
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return h;
}

// k_0 ... k_{n-1}, 24 bits each.
inline std::vector<uint64_t> hash_k(std::string_view name, int64_t n, uint64_t seed = 1) {
  std::vector<uint64_t> k(n);
  const uint64_t h = hash_name(name) ^ (seed * kGolden);
  for (int64_t i = 0; i < n; ++i) {
    uint64_t z = h + static_cast<uint64_t>(i + 1) * kGolden;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    k[i] = (z ^ (z >> 31)) >> 40;
  }
  return k;
}

// v in [-1, 1), float64, for one name.
inline at::Tensor hash_v(std::string_view name, at::IntArrayRef shape, uint64_t seed = 1) {
  at::Tensor v = at::empty(shape, at::kDouble);
  const std::vector<uint64_t> k = hash_k(name, v.numel(), seed);
  double* out = v.mutable_data_ptr<double>();
  for (size_t i = 0; i < k.size(); ++i)
    out[i] = 2.0 * (static_cast<double>(k[i]) / 16777216.0) - 1.0;
  return v;
}

inline at::Tensor hash_int_tensor(std::string_view name, at::IntArrayRef shape, int64_t n,
                                  uint64_t seed = 1) {
  at::Tensor integers = at::empty(shape, at::kLong);
  const std::vector<uint64_t> k = hash_k(name, integers.numel(), seed);
  int64_t* out = integers.mutable_data_ptr<int64_t>();
  for (size_t i = 0; i < k.size(); ++i)
    out[i] = static_cast<int64_t>((k[i] * static_cast<uint64_t>(n)) >> 24);
  return integers;
}

// float32 value of the parameter or buffer `name`; `gain` scales matrices and convolutions only.
inline at::Tensor hash_param(std::string_view name, at::IntArrayRef shape, uint64_t seed = 1,
                             double gain = 1) {
  auto is = [&](std::string_view whole) { return name == whole; };
  auto ends = [&](std::string_view tail) { return name.ends_with(tail); };
  if (ends("zero_k_bias") || ends("ema_vocab_hit_SV") || ends("num_batches_tracked"))
    return at::zeros(shape);
  const at::Tensor v = hash_v(name, shape, seed);
  auto scaled = [&] {
    if (ends("scale_mul_1H11")) return 1.3862943611198906 + 0.1 * v;
    if (ends("running_mean")) return 0.1 * v;
    if (ends("running_var")) return 1.0 + 0.25 * v;
    if (is("quantize.embedding.weight") || is("class_emb.weight")) return v;
    if (is("pos_start") || is("pos_1LC") || is("lvl_embed.weight") || ends("ada_gss"))
      return 0.5 * v;
    if (shape.size() == 1) return ends(".weight") ? 1.0 + 0.1 * v : 0.05 * v;
    const double fan_in = static_cast<double>(v.numel() / shape[0]);
    return v * (gain * std::sqrt(3.0 / fan_in));
  };
  return scaled().to(at::kFloat);
}

// Fills every tensor from its name; the names are state-dict keys.
inline void fill_hash_weights(const nn::NamedTensors& tensors, uint64_t seed = 1, double gain = 1) {
  at::NoGradGuard no_grad;
  for (const nn::NamedTensor& named : tensors) {
    named.tensor.copy_(hash_param(named.name, named.tensor.sizes(), seed, gain));
  }
}

// Flat C-order places of the n entries that a fixture keeps of a tensor with `numel` elements.
inline std::vector<int64_t> sample_index(std::string_view key, int64_t numel, int64_t n) {
  std::vector<int64_t> places(n);
  const std::vector<uint64_t> k = hash_k("sample." + std::string(key), n, 0);
  for (int64_t i = 0; i < n; ++i)
    places[i] = static_cast<int64_t>((k[i] * static_cast<uint64_t>(numel)) >> 24);
  return places;
}

}  // namespace varscale::test
