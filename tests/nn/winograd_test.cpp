#include "nn/winograd.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "tests/support/hash_weights.hpp"

namespace varscale::nn {
namespace {

constexpr auto kLast = at::MemoryFormat::ChannelsLast;

struct Case {
  Tensor x, weight, bias;
};

Case make_case(int64_t images, int64_t in, int64_t out, int64_t height, int64_t width) {
  return {test::hash_v("x", {images, in, height, width}).to(at::kFloat).contiguous(kLast),
          (test::hash_v("weight", {out, in, 3, 3}) / std::sqrt(9.0 * static_cast<double>(in))).to(at::kFloat).contiguous(kLast),
          test::hash_v("bias", {out}).to(at::kFloat)};
}

double worst(const Tensor& got, const Tensor& want) {
  return (got.to(at::kDouble) - want).abs().max().item<double>();
}

Tensor exact(const Case& c) {
  return at::conv2d(c.x.to(at::kDouble), c.weight.to(at::kDouble), c.bias.to(at::kDouble), 1, 1);
}

// Sums of values up to 2 by transforms whose largest factors are near 4: some ten roundings of 6e-8.
TEST(WinogradConvolution, EqualsTheDirectOneInFloat64) {
  const std::array<Case, 4> cases{make_case(1, 16, 32, 64, 64), make_case(2, 32, 64, 37, 50),
                                  make_case(1, 160, 160, 12, 20), make_case(3, 48, 96, 1, 3)};
  for (const Case& c : cases) {
    const Tensor got = winograd_convolution(c.x, c.weight, c.bias);
    EXPECT_TRUE(got.is_contiguous(kLast));
    EXPECT_LE(worst(got, exact(c)), 5e-6) << c.x.sizes();
  }
}

// The far side of every edge counts as zero: an image of ones alone shows how many weights each pixel saw.
TEST(WinogradConvolution, SeesZerosAroundTheImage) {
  Case c = make_case(1, 16, 32, 10, 7);
  c.x.fill_(1);
  c.weight.fill_(1.0 / 16);
  c.bias.zero_();
  const Tensor got = winograd_convolution(c.x, c.weight, c.bias)[0][31];
  EXPECT_NEAR(got[0][0].item<double>(), 4, 1e-4);
  EXPECT_NEAR(got[0][3].item<double>(), 6, 1e-4);
  EXPECT_NEAR(got[5][6].item<double>(), 6, 1e-4);
  EXPECT_NEAR(got[9][6].item<double>(), 4, 1e-4);
  EXPECT_NEAR(got[5][3].item<double>(), 9, 1e-4);
}

TEST(WinogradConvolution, GivesAnImageTheSameBitsBesideOthersAndAtAnyNumberOfThreads) {
  const Case c = make_case(3, 32, 64, 33, 30);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Tensor alone = winograd_convolution(c.x.slice(0, 1, 2), c.weight, c.bias);
  at::set_num_threads(3);
  const Tensor all = winograd_convolution(c.x, c.weight, c.bias);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(all.slice(0, 1, 2), alone));
}

TEST(WinogradConvolution, IsLeftToTheLibraryWhereItDoesNotPay) {
  const Case large = make_case(1, 16, 32, 64, 64);
  EXPECT_FALSE(winograd_pays(large.x.slice(2, 0, 63).contiguous(kLast), large.weight));  // too small
  EXPECT_FALSE(winograd_pays(large.x.contiguous(), large.weight));                       // another layout
  EXPECT_FALSE(winograd_pays(large.x, large.weight.contiguous()));
  EXPECT_FALSE(winograd_pays(large.x.to(at::kBFloat16), large.weight.to(at::kBFloat16)));
  EXPECT_FALSE(winograd_pays(large.x, large.weight.slice(0, 0, 3)));                    // three channels
  EXPECT_FALSE(winograd_pays(large.x, large.weight.slice(2, 0, 1).slice(3, 0, 1)));     // 1x1
}

}  // namespace
}  // namespace varscale::nn
