#include "base/random.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "base/error.hpp"

namespace varscale::base {
namespace {

constexpr uint64_t kFnvBasis = 0xcbf29ce484222325u, kFnvPrime = 0x100000001b3u;
constexpr int kFeistelRounds = 8;

constexpr uint64_t fnv1a64_step(uint64_t hash, unsigned char byte) {
  return (hash ^ byte) * kFnvPrime;
}

uint64_t fnv1a64_continue(uint64_t hash, std::string_view text) {
  for (const char c : text) hash = fnv1a64_step(hash, static_cast<unsigned char>(c));
  return hash;
}

// Fields are introduced by a zero byte and their kind, which keeps ("a", "bc") and ("ab", "c")
// apart, and the name "7" and the number 7.
uint64_t add_name(uint64_t hash, std::string_view name) {
  hash = fnv1a64_step(fnv1a64_step(hash, 0), 's');
  return fnv1a64_continue(hash, name);
}

uint64_t add_number(uint64_t hash, uint64_t number) {
  hash = fnv1a64_step(fnv1a64_step(hash, 0), 'n');
  for (int shift = 0; shift < 64; shift += 8)
    hash = fnv1a64_step(hash, static_cast<unsigned char>(number >> shift));
  return hash;
}

std::array<uint32_t, 2> split_key(uint64_t seed) {
  return {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
}

inline std::array<uint32_t, 4> rounds(std::array<uint32_t, 4> c, std::array<uint32_t, 2> k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(product1 >> 32) ^ c[1] ^ k[0], static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ c[3] ^ k[1], static_cast<uint32_t>(product0)};
    k[0] += 0x9E3779B9u;
    k[1] += 0xBB67AE85u;
  }
  return c;
}

inline std::array<uint32_t, 4> words_of_block(uint64_t block, uint64_t stream,
                                              std::array<uint32_t, 2> key) {
  return rounds({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                 static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)},
                key);
}

inline float to_uniform(uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

// The logarithm and the sine below use only operations that IEEE 754 rounds exactly, in a fixed
// order: ranks on machines with different maths libraries still draw the same weights. Both are
// good to 2e-10, far below the rounding to float.

// ln(x) for normal x > 0: x = m 2^e with m in [sqrt(1/2), sqrt(2)), and
// ln m = 2 artanh((m - 1) / (m + 1)).
inline double natural_log(double x) {
  constexpr uint64_t kSqrtHalf = 0x3fe6a09e667f3bcdu;
  const uint64_t bits = std::bit_cast<uint64_t>(x) - kSqrtHalf;
  const auto exponent = static_cast<double>(static_cast<int64_t>(bits) >> 52);
  const double m = std::bit_cast<double>((bits & 0xfffffffffffffu) + kSqrtHalf);
  const double s = (m - 1.0) / (m + 1.0), q = s * s;
  const double series =
      1.0 + q * (1.0 / 3 + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11)))));
  return exponent * std::numbers::ln2 + 2.0 * s * series;
}

// A normal pair from two words (Box and Muller 1958): radius from the first, angle from the second.
inline void normal_pair(uint32_t radius_word, uint32_t angle_word, float& first, float& second) {
  const double u = (static_cast<double>(radius_word) + 0.5) * 0x1p-32;  // in (0, 1)
  const double radius = std::sqrt(-2.0 * natural_log(u));
  // The angle is 2 pi word / 2^32: whole quarter turns exactly, the rest in [-pi/4, pi/4) by
  // Taylor.
  const uint32_t quarter = (angle_word + 0x20000000u) >> 30;
  const auto rest = static_cast<int32_t>(angle_word - (quarter << 30));
  const double x = rest * (2.0 * std::numbers::pi * 0x1p-32), q = x * x;
  const double sine =
      x * (1.0 +
           q * (-1.0 / 6 +
                q * (1.0 / 120 + q * (-1.0 / 5040 + q * (1.0 / 362880 + q * (-1.0 / 39916800))))));
  const double cosine =
      1.0 +
      q * (-1.0 / 2 + q * (1.0 / 24 + q * (-1.0 / 720 + q * (1.0 / 40320 + q * (-1.0 / 3628800)))));
  const double c = (quarter & 1) ? sine : cosine, s = (quarter & 1) ? cosine : sine;
  const double turned_c = (quarter == 1 || quarter == 2) ? -c : c;
  const double turned_s = (quarter & 2) ? -s : s;
  first = static_cast<float>(radius * turned_c);
  second = static_cast<float>(radius * turned_s);
}

inline std::array<float, 4> normals_of_words(const std::array<uint32_t, 4>& words) {
  std::array<float, 4> out;
  normal_pair(words[0], words[1], out[0], out[1]);
  normal_pair(words[2], words[3], out[2], out[3]);
  return out;
}

// Calls emit(position, words, first lane, lanes) for each block that [first, first + count) meets.
template <class Emit>
void for_each_block(uint64_t first, uint64_t count, uint64_t stream, std::array<uint32_t, 2> key,
                    Emit emit) {
  for (uint64_t done = 0; done < count;) {
    const uint64_t index = first + done, lane = index % 4;
    const uint64_t lanes = std::min<uint64_t>(4 - lane, count - done);
    emit(done, words_of_block(index / 4, stream, key), lane, lanes);
    done += lanes;
  }
}

}  // namespace

std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter,
                                      std::array<uint32_t, 2> key) {
  return rounds(counter, key);
}

uint64_t fnv1a64(std::string_view text) noexcept { return fnv1a64_continue(kFnvBasis, text); }

RandomStream::RandomStream(uint64_t seed, std::string_view purpose, std::string_view name)
    : key_(split_key(seed)), stream_(add_name(fnv1a64(purpose), name)) {}

RandomStream::RandomStream(uint64_t seed, std::string_view purpose, uint64_t number)
    : key_(split_key(seed)), stream_(add_number(fnv1a64(purpose), number)) {}

RandomStream::RandomStream(uint64_t seed, std::string_view purpose, uint64_t number,
                           uint64_t second_number)
    : key_(split_key(seed)),
      stream_(add_number(add_number(fnv1a64(purpose), number), second_number)) {}

uint32_t RandomStream::bits(uint64_t index) const {
  return words_of_block(index / 4, stream_, key_)[index % 4];
}

float RandomStream::uniform(uint64_t index) const { return to_uniform(bits(index)); }

double RandomStream::uniform_double(uint64_t index) const {
  const auto words = words_of_block(index / 2, stream_, key_);
  const uint64_t low = words[2 * (index % 2)], high = words[2 * (index % 2) + 1];
  return static_cast<double>((high << 32 | low) >> 11) * 0x1p-53;
}

float RandomStream::normal(uint64_t index) const {
  return normals_of_words(words_of_block(index / 4, stream_, key_))[index % 4];
}

uint64_t RandomStream::below(uint64_t index, uint64_t n) const {
  VARSCALE_CHECK(n > 0 && n <= uint64_t{1} << 32, "a random number below {} was asked for", n);
  return (uint64_t{bits(index)} * n) >> 32;
}

void RandomStream::fill_normal(float* out, uint64_t first, uint64_t count, float deviation) const {
  for_each_block(first, count, stream_, key_,
                 [&](uint64_t at, const auto& words, uint64_t lane, uint64_t lanes) {
                   const auto normals = normals_of_words(words);
                   for (uint64_t i = 0; i < lanes; ++i) out[at + i] = deviation * normals[lane + i];
                 });
}

void RandomStream::fill_uniform(float* out, uint64_t first, uint64_t count) const {
  for_each_block(first, count, stream_, key_,
                 [&](uint64_t at, const auto& words, uint64_t lane, uint64_t lanes) {
                   for (uint64_t i = 0; i < lanes; ++i) out[at + i] = to_uniform(words[lane + i]);
                 });
}

Permutation::Permutation(uint64_t n, uint64_t seed, std::string_view purpose, uint64_t number)
    : n_(n),
      half_bits_(n < 2 ? 0 : (std::bit_width(n - 1) + 1) / 2),
      stream_(seed, purpose, number) {
  VARSCALE_CHECK(half_bits_ <= 28, "a permutation of {} elements is too large", n);
}

uint64_t Permutation::operator()(uint64_t index) const {
  VARSCALE_CHECK(index < n_, "index {} is outside a permutation of {} elements", index, n_);
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  // The network permutes [0, 4^half_bits): walk its cycle until it comes back below n, at most four
  // steps on average. The walk ends because it starts below n.
  do {
    uint64_t left = index >> half_bits_, right = index & mask;
    for (uint64_t round = 0; round < kFeistelRounds; ++round) {
      const uint64_t mixed = left ^ (stream_.bits(4 * (round << half_bits_ | right)) & mask);
      left = right;
      right = mixed;
    }
    index = left << half_bits_ | right;
  } while (index >= n_);
  return index;
}

}  // namespace varscale::base
