#include "nn/rows.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/support/hash_weights.hpp"

namespace varscale::nn {
namespace {

constexpr double kEps = 1e-6;
constexpr auto kLast = at::MemoryFormat::ChannelsLast;

Tensor exact(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias) {
  return at::silu(
      at::group_norm(x.to(at::kDouble).contiguous(), groups, weight.to(at::kDouble), bias.to(at::kDouble), kEps));
}

double worst(const Tensor& got, const Tensor& want) {
  return (got.to(at::kDouble) - want).abs().max().item<double>();
}

// Channels that are no whole vector, groups of one channel, and more pixels than one chunk of moments.
TEST(GroupNormSilu, EqualsItsPartsInFloat64) {
  struct Shape {
    int64_t images, channels, groups, height, width;
  };
  for (const auto& [images, channels, groups, height, width] :
       {Shape{2, 24, 4, 20, 33}, Shape{1, 32, 32, 8, 8}, Shape{3, 160, 32, 5, 1}, Shape{1, 6, 1, 1, 1}}) {
    const Tensor x = test::hash_v("x", {images, channels, height, width}).to(at::kFloat).contiguous(kLast);
    const Tensor weight = test::hash_v("weight", {channels}).to(at::kFloat),
                 bias = test::hash_v("bias", {channels}).to(at::kFloat);
    const Tensor got = group_norm_silu(x, groups, weight, bias, kEps);
    EXPECT_TRUE(got.is_contiguous(kLast));
    EXPECT_LE(worst(got, exact(x, groups, weight, bias)), 3e-6) << channels << " channels";
    const Tensor half = x.to(at::kBFloat16);
    const Tensor rounded = group_norm_silu(half, groups, weight, bias, kEps);
    EXPECT_EQ(rounded.scalar_type(), at::kBFloat16);
    // Half a unit in the last of eight digits of values below 4.
    EXPECT_LE(worst(rounded, exact(half, groups, weight, bias)), 0.5 / 64) << channels << " channels";
  }
}

// A mean a thousand deviations from zero takes three digits from float32's values themselves, and no more from here.
TEST(GroupNormSilu, KeepsTheVarianceOfValuesFarFromZero) {
  const Tensor x = (test::hash_v("x", {1, 16, 40, 40}) + 1000).to(at::kFloat).contiguous(kLast);
  const Tensor weight = at::ones({16}), bias = at::zeros({16});
  EXPECT_LE(worst(group_norm_silu(x, 2, weight, bias, kEps), exact(x, 2, weight, bias)), 2e-4);
}

TEST(GroupNormSilu, HasTheLimitsOfSilu) {
  const Tensor x = at::tensor({-1.0F, 1.0F}).view({1, 2, 1, 1}).contiguous(kLast);
  const Tensor got = group_norm_silu(x, 1, at::full({2}, 200.0F), at::zeros({2}), kEps).flatten();
  EXPECT_NEAR(got[0].item<double>(), 0, 1e-30);
  EXPECT_NEAR(got[1].item<double>(), 200, 1e-3);
}

TEST(GroupNormSilu, GivesTheSameBitsAtAnyNumberOfThreads) {
  const Tensor x = test::hash_v("x", {2, 32, 50, 30}).to(at::kFloat).contiguous(kLast);
  const Tensor weight = test::hash_v("weight", {32}).to(at::kFloat), bias = at::zeros({32});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Tensor one = group_norm_silu(x, 4, weight, bias, kEps);
  at::set_num_threads(3);
  const Tensor three = group_norm_silu(x, 4, weight, bias, kEps);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

// Fewer columns than lanes, whole vectors and a tail; less than a chunk of rows, chunks with a rest. Sums of 300 values up to 1.
TEST(ColumnSums, AreThoseOfFloat64) {
  for (const auto type : {at::kFloat, at::kBFloat16})
    for (const int64_t N : {1, 7, 130, 300})
      for (const int64_t M : {5, 32, 83}) {
        const Tensor x = test::hash_v("x", {N, M}).to(type);
        const Tensor got = column_sums(x);
        EXPECT_EQ(got.scalar_type(), at::kFloat);
        EXPECT_EQ(got.sizes(), at::IntArrayRef({M}));
        EXPECT_LE(worst(got, x.to(at::kDouble).sum(0)), 1e-5) << N << " rows of " << M;
      }
}

}  // namespace
}  // namespace varscale::nn
