#include "base/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.hpp"

namespace varscale::base {
namespace {

using Words = std::array<uint32_t, 4>;

TEST(Philox, GivesThePublishedKnownAnswers) {
  // Random123, kat_vectors, philox4x32 with 10 rounds.
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Fnv1a64, GivesThePublishedValues) {
  // Fowler, Noll and Vo's test vectors.
  EXPECT_EQ(fnv1a64(""), 0xcbf29ce484222325u);
  EXPECT_EQ(fnv1a64("a"), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(fnv1a64("foobar"), 0x85944171f73967e8u);
  EXPECT_EQ(fnv1a64("a.weight"), 0xde73ae9d17c13f4eu);  // tests/fixtures/README.md
}

TEST(RandomStream, IsPhiloxOfTheIndexTheHashedNameAndTheSeed) {
  // The layout is part of every result: another one would draw other weights for the same seed.
  using namespace std::string_view_literals;
  const uint64_t name_hash = fnv1a64("init\0sblocks.0"sv);
  const uint64_t number_hash = fnv1a64("epoch\0n\x02\x01\0\0\0\0\0\0"sv);  // 0x102, low byte first
  const RandomStream name(0x0123456789abcdefu, "init", "blocks.0");
  const RandomStream number(0x0123456789abcdefu, "epoch", 0x102);
  const uint64_t block = 0x300000005u;
  for (const auto& [stream, hash] : {std::pair(name, name_hash), std::pair(number, number_hash)}) {
    const Words words =
        philox4x32_10({5, 3, static_cast<uint32_t>(hash), static_cast<uint32_t>(hash >> 32)},
                      {0x89abcdefu, 0x01234567u});
    for (uint64_t lane = 0; lane < 4; ++lane) EXPECT_EQ(stream.bits(4 * block + lane), words[lane]);
  }
}

TEST(RandomStream, ChangesWithEveryPartOfItsName) {
  const uint32_t base = RandomStream(1, "init", "a").bits(0);
  EXPECT_EQ(RandomStream(1, "init", "a").bits(0), base);
  EXPECT_NE(RandomStream(2, "init", "a").bits(0), base);
  EXPECT_NE(RandomStream(1, "drop", "a").bits(0), base);
  EXPECT_NE(RandomStream(1, "init", "b").bits(0), base);
}

TEST(RandomStream, KeepsPurposeNameAndNumbersApart) {
  std::set<uint32_t> words = {RandomStream(1, "a", "bc").bits(0),
                              RandomStream(1, "ab", "c").bits(0),
                              RandomStream(1, "abc").bits(0),
                              RandomStream(1, "a", uint64_t{7}).bits(0),
                              RandomStream(1, "a", "7").bits(0),
                              RandomStream(1, "a", 7, 0).bits(0),
                              RandomStream(1, "a", 0, 7).bits(0),
                              RandomStream(1, "a", "").bits(0),
                              RandomStream(1, "a", uint64_t{0}).bits(0),
                              RandomStream(1, "a", 256, 0).bits(0),
                              RandomStream(1, "a", 0, 0).bits(0),
                              RandomStream(1, "a", 1, 0).bits(0)};
  EXPECT_EQ(words.size(), 12u);
}

TEST(RandomStream, FillsEqualSingleCallsBitForBit) {
  const RandomStream stream(42, "init", "blocks.0.attn.mat_qkv.weight");
  const float deviation = 0.02f;
  for (const uint64_t first : {0u, 1u, 2u, 3u, 4u, 1001u}) {
    for (const uint64_t count : {0u, 1u, 2u, 3u, 4u, 5u, 7u, 33u}) {
      std::vector<float> normals(count + 1, -9.0f), uniforms(count + 1, -9.0f);
      stream.fill_normal(normals.data(), first, count, deviation);
      stream.fill_uniform(uniforms.data(), first, count);
      for (uint64_t i = 0; i < count; ++i) {
        ASSERT_EQ(normals[i], deviation * stream.normal(first + i));
        ASSERT_EQ(uniforms[i], stream.uniform(first + i));
      }
      ASSERT_EQ(normals[count], -9.0f) << "wrote past the end";
      ASSERT_EQ(uniforms[count], -9.0f) << "wrote past the end";
    }
  }
}

TEST(RandomStream, UniformsAreTheTop24BitsOfTheWords) {
  const RandomStream stream(3, "u");
  double sum = 0;
  const int n = 100'000;
  for (int i = 0; i < n; ++i) {
    const float u = stream.uniform(i);
    ASSERT_EQ(u, std::ldexp(static_cast<float>(stream.bits(i) >> 8), -24));
    ASSERT_TRUE(u >= 0 && u < 1);
    sum += u;
  }
  // Five standard errors, sqrt(1 / 12 n) each.
  EXPECT_NEAR(sum / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
}

TEST(RandomStream, DoublesHave53BitsOfTwoWords) {
  const RandomStream stream(3, "u");
  for (uint64_t i = 0; i < 1000; ++i) {
    const uint64_t word = uint64_t{stream.bits(2 * i + 1)} << 32 | stream.bits(2 * i);
    ASSERT_EQ(stream.uniform_double(i), std::ldexp(static_cast<double>(word >> 11), -53));
    ASSERT_TRUE(stream.uniform_double(i) >= 0 && stream.uniform_double(i) < 1);
  }
}

TEST(RandomStream, NormalsAreBoxAndMullersOfTheSameWords) {
  const RandomStream stream(11, "n");
  for (uint64_t pair = 0; pair < 20'000; ++pair) {
    const double u = (stream.bits(2 * pair) + 0.5) / 4294967296.0;
    const double angle = 2 * std::numbers::pi * (stream.bits(2 * pair + 1) / 4294967296.0);
    const double radius = std::sqrt(-2 * std::log(u));
    // Rounding to float is 6e-8 of the value, the series 2e-10 of the radius.
    ASSERT_NEAR(stream.normal(2 * pair), radius * std::cos(angle), 7e-8 * radius);
    ASSERT_NEAR(stream.normal(2 * pair + 1), radius * std::sin(angle), 7e-8 * radius);
  }
}

TEST(RandomStream, NormalsHaveTheMomentsOfANormal) {
  const int n = 400'000;
  std::vector<float> x(n);
  RandomStream(5, "moments").fill_normal(x.data(), 0, n, 1.0f);
  double m1 = 0, m2 = 0, m3 = 0, m4 = 0, lag = 0;
  for (int i = 0; i < n; ++i) {
    const double v = x[i];
    m1 += v / n, m2 += v * v / n, m3 += v * v * v / n, m4 += v * v * v * v / n;
    lag += v * x[(i + 1) % n] / n;
  }
  // Five standard errors: the variances of x, x^2, x^3, x^4 and x y are 1, 2, 15, 96 and 1.
  const double error = 5 / std::sqrt(n);
  EXPECT_NEAR(m1, 0, error);
  EXPECT_NEAR(m2, 1, error * std::sqrt(2.0));
  EXPECT_NEAR(m3, 0, error * std::sqrt(15.0));
  EXPECT_NEAR(m4, 3, error * std::sqrt(96.0));
  EXPECT_NEAR(lag, 0, error);
}

TEST(RandomStream, BelowIsSpreadEvenlyOverItsRange) {
  const RandomStream stream(9, "below");
  const int n = 70'000, kinds = 7;
  std::vector<int> counts(kinds);
  for (int i = 0; i < n; ++i) ++counts.at(stream.below(i, kinds));
  for (const int count : counts) EXPECT_NEAR(count, n / kinds, 5 * std::sqrt(n / kinds));
  EXPECT_EQ(stream.below(4, 1), 0u);
  EXPECT_EQ(stream.below(4, uint64_t{1} << 32), stream.bits(4));
  EXPECT_THROW(stream.below(0, 0), InvariantError);
  EXPECT_THROW(stream.below(0, (uint64_t{1} << 32) + 1), InvariantError);
}

TEST(Permutation, IsABijection) {
  for (const uint64_t n : {1u, 2u, 3u, 4u, 5u, 7u, 16u, 17u, 64u, 1000u, 12345u}) {
    const Permutation order(n, 1, "epoch", 3);
    std::vector<bool> seen(n);
    for (uint64_t i = 0; i < n; ++i) {
      const uint64_t to = order(i);
      ASSERT_LT(to, n);
      ASSERT_FALSE(seen[to]) << "n = " << n << ": " << to << " comes twice";
      seen[to] = true;
    }
  }
}

TEST(Permutation, ReachesEveryOrderOfThreeAboutEquallyOften) {
  std::vector<int> counts(27);
  const int epochs = 6000;
  for (int epoch = 0; epoch < epochs; ++epoch) {
    const Permutation order(3, 1, "epoch", epoch);
    ++counts[9 * order(0) + 3 * order(1) + order(2)];
  }
  int orders = 0;
  for (const int count : counts) {
    if (count == 0) continue;
    ++orders;
    EXPECT_NEAR(count, epochs / 6, 5 * std::sqrt(epochs / 6));
  }
  EXPECT_EQ(orders, 6);
}

TEST(Permutation, DiffersBetweenEpochsAndSeeds) {
  const uint64_t n = 1000;
  const Permutation first(n, 1, "epoch", 0), second(n, 1, "epoch", 1), other(n, 2, "epoch", 0);
  int same_epoch = 0, same_seed = 0, fixed = 0;
  for (uint64_t i = 0; i < n; ++i) {
    same_epoch += first(i) == second(i);
    same_seed += first(i) == other(i);
    fixed += first(i) == i;
  }
  // Two random orders agree in Poisson(1) places; more than 8 has probability 1e-6.
  EXPECT_LE(same_epoch, 8);
  EXPECT_LE(same_seed, 8);
  EXPECT_LE(fixed, 8);
}

TEST(Permutation, WorksForSixteenEpochsOfImageNet) {
  const uint64_t n = 1'281'167 * uint64_t{16};
  const Permutation order(n, 1, "epoch");
  EXPECT_EQ(order.size(), n);
  std::set<uint64_t> seen;
  double sum = 0;
  const int samples = 20'000;
  for (int i = 0; i < samples; ++i) {
    const uint64_t to = order(n - 1 - i);
    ASSERT_LT(to, n);
    seen.insert(to);
    sum += static_cast<double>(to) / n / samples;
  }
  EXPECT_EQ(seen.size(), static_cast<size_t>(samples));
  EXPECT_NEAR(sum, 0.5, 5 * std::sqrt(1.0 / 12 / samples));
}

TEST(Permutation, RefusesAnIndexOutsideIt) {
  EXPECT_THROW(Permutation(10, 1, "epoch")(10), InvariantError);
  EXPECT_THROW(Permutation(0, 1, "epoch")(0), InvariantError);
}

}  // namespace
}  // namespace varscale::base
