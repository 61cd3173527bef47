// Counter-based random numbers: every number is a function of (seed, purpose, index), never of the
// rank, the thread or the order of calls.
//
//   RandomStream init(seed, "init", "blocks.0.attn.mat_qkv.weight");
//   float v = init.normal(i);                       // element i, whoever owns it
//   RandomStream labels(seed, "label_drop", step);
//   bool dropped = labels.uniform(global_sample) < 0.1;
//   Permutation order(n, seed, "epoch", epoch);     // order(i): a bijection of [0, n), O(1) memory
//
// Generator: Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; the
// Random123 known-answer vectors are in the tests). The 128-bit counter is index / 4 (64 bits, low
// word first), then the FNV-1a hash of the purpose and the names and numbers; the key is the seed.
// Uniforms have 24 bits and lie in [0, 1). Normals are Box-Muller, without the C library's
// logarithm and sine: equal bits on every machine.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace varscale::base {

// One block of the published generator: 4 words from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// FNV-1a, 64 bit, of the UTF-8 bytes.
uint64_t fnv1a64(std::string_view text) noexcept;

class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view purpose, std::string_view name = {});
  RandomStream(uint64_t seed, std::string_view purpose, uint64_t number);
  RandomStream(uint64_t seed, std::string_view purpose, uint64_t number, uint64_t second_number);

  uint32_t bits(uint64_t index) const;          // word `index` of the stream
  float uniform(uint64_t index) const;          // [0, 1), 24 bits
  double uniform_double(uint64_t index) const;  // [0, 1), 53 bits, from words 2 index, 2 index + 1
  float normal(uint64_t index) const;           // mean 0, deviation 1
  uint64_t below(uint64_t index, uint64_t n) const;  // [0, n), n < 2^32 exact to 2^-32

  // out[i] = deviation * normal(first + i); the same values as single calls, four at a time.
  void fill_normal(float* out, uint64_t first, uint64_t count, float deviation) const;
  void fill_uniform(float* out, uint64_t first, uint64_t count) const;

 private:
  std::array<uint32_t, 2> key_;
  uint64_t stream_;
};

// A keyed bijection of [0, n) (a balanced Feistel network with cycle walking).
class Permutation {
 public:
  Permutation(uint64_t n, uint64_t seed, std::string_view purpose, uint64_t number = 0);
  uint64_t operator()(uint64_t index) const;  // index < n
  uint64_t size() const noexcept { return n_; }

 private:
  uint64_t n_;
  int half_bits_;
  RandomStream stream_;
};

}  // namespace varscale::base
