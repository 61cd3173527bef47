#include "nn/attention.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::nn {
namespace {

using scaling::ScaleList;
using Qkv = std::array<Tensor, 3>;

const std::vector<std::vector<int64_t>> kScaleLists{
    {1, 2, 3, 4}, {1, 2, 3, 4, 5, 6, 8, 10, 13, 16}, {3}, {2, 3, 7}, {1, 6}, {5, 6, 7}};

// Unit-length keys and queries of length 4, as in a model with the unit norm at its start.
Qkv inputs(const ScaleList& scales, at::ScalarType type, int64_t batch = 2, int64_t heads = 3,
           int64_t width = 16) {
  Qkv qkv;
  const std::array names{"q", "k", "v"};
  for (int i = 0; i < 3; ++i) {
    Tensor x = test::hash_v(names[i], {batch, heads, scales.tokens(), width});
    if (i < 2) x = x / x.norm(2, {-1}, true) * (i == 0 ? 4.0 : 1.0);
    qkv[i] = x.to(type).set_requires_grad(true);
  }
  return qkv;
}

Qkv exact_of(const Qkv& half) {
  Qkv exact;
  for (int i = 0; i < 3; ++i) exact[i] = half[i].detach().to(at::kDouble).set_requires_grad(true);
  return exact;
}

struct Result {
  Tensor out_BLC;
  std::vector<Tensor> grads;
};

// The output, and the gradients of a fixed random functional of it.
Result run(const Qkv& qkv, const std::function<Tensor(const Qkv&)>& attention) {
  Result result;
  result.out_BLC = attention(qkv);
  const Tensor direction =
      test::hash_v("direction", result.out_BLC.sizes()).to(result.out_BLC.options());
  result.grads = torch::autograd::grad({result.out_BLC}, {qkv[0], qkv[1], qkv[2]}, {direction});
  return result;
}

Result run_prefix(const Qkv& qkv, const ScaleList& scales, int64_t merge_below = 32,
                  double scale = 1) {
  const auto spans = PrefixPlan(scales, merge_below).spans(qkv[0].size(2));
  return run(qkv, [&](const Qkv& x) { return prefix_attention(x[0], x[1], x[2], spans, scale); });
}

Result run_masked(const Qkv& qkv, const ScaleList& scales, double scale = 1) {
  return run(qkv, [&](const Qkv& x) { return masked_attention(x[0], x[1], x[2], scales, scale); });
}

double relative_l2(const Tensor& got, const Tensor& want) {
  return ((got.to(at::kDouble) - want.to(at::kDouble)).norm() / want.to(at::kDouble).norm())
      .item<double>();
}

void expect_close(const Result& got, const Result& want, double tol, const std::string& what) {
  ASSERT_EQ(got.out_BLC.sizes(), want.out_BLC.sizes()) << what;
  EXPECT_LE(relative_l2(got.out_BLC, want.out_BLC), tol) << what << " output";
  for (int i = 0; i < 3; ++i)
    EXPECT_LE(relative_l2(got.grads[i], want.grads[i]), tol) << what << " gradient " << i;
}

// A single precision sum over at most 680 keys loses 1e-7 to 1e-6.
TEST(PrefixAttention, EqualsDenseMaskingInFloat32) {
  for (const auto& sides : kScaleLists) {
    const ScaleList scales(sides);
    expect_close(run_prefix(inputs(scales, at::kFloat), scales),
                 run_masked(inputs(scales, at::kDouble), scales), 3e-6, scales.words());
  }
}

TEST(PrefixAttention, EqualsDenseMaskingInFloat64) {
  for (const auto& sides : kScaleLists) {
    const ScaleList scales(sides);
    const Qkv qkv = inputs(scales, at::kDouble);
    expect_close(run_prefix(qkv, scales), run_masked(qkv, scales), 1e-13, scales.words());
  }
}

// Widths of several tiles, of one and a half, and of none: there ATen's operations serve.
TEST(PrefixAttention, EqualsDenseMaskingAtAnyHeadWidth) {
  const ScaleList scales({1, 2, 3, 4, 6});
  for (const int64_t width : {64, 48, 20})
    expect_close(run_prefix(inputs(scales, at::kFloat, 2, 3, width), scales),
                 run_masked(inputs(scales, at::kDouble, 2, 3, width), scales), 3e-6, fmt::format("width {}", width));
}

// bf16 keeps 8 bits (4e-3 a rounding); shares and products are rounded a few times. Widths of a processor's dot products of
// pairs, where it has them, and of none.
TEST(PrefixAttention, IsCloseInBfloat16) {
  for (const int64_t width : {16, 64, 20}) {
    for (const auto& sides : kScaleLists) {
      const ScaleList scales(sides);
      const Qkv half = inputs(scales, at::kBFloat16, 2, 3, width);
      const Result got = run_prefix(half, scales);
      EXPECT_EQ(got.out_BLC.scalar_type(), at::kBFloat16);
      EXPECT_EQ(got.grads[1].scalar_type(), at::kBFloat16);
      expect_close(got, run_masked(exact_of(half), scales), 2e-2, fmt::format("width {}, {}", width, scales.words()));
    }
  }
}

TEST(PrefixAttention, GivesTheSameBitsInBfloat16WithOneAndTwoThreads) {
  const ScaleList scales({1, 2, 3, 4, 6});
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const Result one = run_prefix(inputs(scales, at::kBFloat16, 2, 3, 64), scales);
  at::set_num_threads(2);
  const Result two = run_prefix(inputs(scales, at::kBFloat16, 2, 3, 64), scales);
  at::set_num_threads(before);
  EXPECT_TRUE(at::equal(one.out_BLC, two.out_BLC));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(one.grads[i], two.grads[i])) << i;
}

TEST(PrefixAttention, AppliesTheScale) {
  const ScaleList scales({1, 2, 3, 4});
  const double scale = 0.25 / 4;
  const Qkv half = inputs(scales, at::kBFloat16);
  expect_close(run_prefix(half, scales, 32, scale), run_masked(exact_of(half), scales, scale), 2e-2, "scale in bf16");
  expect_close(run_prefix(inputs(scales, at::kFloat), scales, 32, scale),
               run_masked(inputs(scales, at::kDouble), scales, scale), 3e-6, "scale");
}

TEST(PrefixAttention, DoesNotDependOnWhichMapsAreMerged) {
  const ScaleList scales({1, 2, 3, 4, 5, 6, 8});
  for (const auto type : {at::kFloat, at::kDouble}) {
    const Qkv qkv = inputs(scales, type);
    const Result want = run_prefix(qkv, scales, 0);
    for (const int64_t merge_below : {5, 14, 32, 100, 1000}) {
      expect_close(run_prefix(qkv, scales, merge_below), want, type == at::kFloat ? 1e-6 : 1e-14,
                   std::to_string(merge_below));
    }
  }
}

// A gradient that is one number seen everywhere (stride 0), as sum() sends it.
TEST(PrefixAttention, TakesAnExpandedGradient) {
  const ScaleList scales({1, 2, 3, 4});
  Qkv fast = inputs(scales, at::kFloat), slow = inputs(scales, at::kDouble);
  const auto spans = PrefixPlan(scales).spans(scales.tokens());
  const Tensor got = prefix_attention(fast[0], fast[1], fast[2], spans, 1.0).sum();
  const Tensor want = masked_attention(slow[0], slow[1], slow[2], scales, 1.0).sum();
  const auto got_grads = torch::autograd::grad({got}, {fast[1], fast[2]});
  const auto want_grads = torch::autograd::grad({want}, {slow[1], slow[2]});
  for (int i = 0; i < 2; ++i) EXPECT_LE(relative_l2(got_grads[i], want_grads[i]), 1e-5) << i;
}

// float32 and bfloat16 have kernels of their own on the CPU; float64 takes the way of a GPU.
TEST(PrefixAttention, GivesTheSameGradientsAgainWhereTheGraphIsRetained) {
  const ScaleList scales({1, 2, 3, 4});
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const Qkv qkv = inputs(scales, type);
    const auto spans = PrefixPlan(scales).spans(scales.tokens());
    const Tensor out = prefix_attention(qkv[0], qkv[1], qkv[2], spans, 1.0);
    const Tensor direction = test::hash_v("direction", out.sizes()).to(type);
    const auto once = torch::autograd::grad({out}, {qkv[0], qkv[1], qkv[2]}, {direction}, true);
    const auto again = torch::autograd::grad({out}, {qkv[0], qkv[1], qkv[2]}, {direction});
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(once[i], again[i])) << i;
  }
}

TEST(PrefixAttention, IsTheSameWhereNoGradientIsAskedFor) {
  const ScaleList scales({1, 2, 3, 4});
  for (const auto type : {at::kFloat, at::kBFloat16, at::kDouble}) {
    const Qkv qkv = inputs(scales, type);
    const auto spans = PrefixPlan(scales).spans(scales.tokens());
    const Tensor want = prefix_attention(qkv[0], qkv[1], qkv[2], spans, 1.0);
    const at::NoGradGuard no_grad;
    const Tensor got = prefix_attention(qkv[0], qkv[1], qkv[2], spans, 1.0);
    EXPECT_TRUE(at::equal(got, want));
    EXPECT_FALSE(got.requires_grad());
  }
}

TEST(PrefixAttention, GradientsEqualFiniteDifferences) {
  const ScaleList scales({1, 2});
  const Qkv qkv = inputs(scales, at::kDouble, 1, 2, 3);
  for (const int64_t merge_below : {0, 32}) {
    const auto spans = PrefixPlan(scales, merge_below).spans(5);
    const Tensor direction = test::hash_v("direction", {1, 5, 6});
    const auto value = [&](const Qkv& x) {
      return (prefix_attention(x[0], x[1], x[2], spans, 0.7) * direction).sum().item<double>();
    };
    const auto grads = torch::autograd::grad({prefix_attention(qkv[0], qkv[1], qkv[2], spans, 0.7)},
                                             {qkv[0], qkv[1], qkv[2]}, {direction});
    constexpr double kStep = 1e-5;  // error of the central difference: about step^2 = 1e-10
    for (int input = 0; input < 3; ++input) {
      for (int64_t i = 0; i < qkv[input].numel(); ++i) {
        double difference = 0;
        for (const double side : {kStep, -kStep}) {
          Qkv moved = qkv;
          moved[input] = qkv[input].detach().clone();
          moved[input].view(-1)[i] += side;
          difference += (side > 0 ? 1 : -1) * value(moved);
        }
        EXPECT_NEAR(grads[input].reshape(-1)[i].item<double>(), difference / (2 * kStep), 1e-8)
            << input << " " << i;
      }
    }
  }
}

// The projection of a model gives q, k, v as views of one [B, L, 3, H, D] tensor.
TEST(PrefixAttention, TakesTheViewsOfOneProjection) {
  const ScaleList scales({1, 2, 3, 4});
  const Tensor qkv = test::hash_v("qkv", {2, 30, 3, 2, 8}).to(at::kFloat).permute({2, 0, 3, 1, 4});
  const auto spans = PrefixPlan(scales).spans(30);
  const Tensor views = prefix_attention(qkv[0], qkv[1], qkv[2], spans, 1.0);
  const Tensor copies =
      prefix_attention(qkv[0].contiguous(), qkv[1].contiguous(), qkv[2].contiguous(), spans, 1.0);
  EXPECT_TRUE(at::equal(views, copies));
  EXPECT_TRUE(views.is_contiguous());
}

TEST(PrefixPlan, CoversTheFirstMapsOfAPyramid) {
  const ScaleList scales({1, 2, 3, 4}), shorter({1, 2, 3});
  const Qkv qkv = inputs(shorter, at::kDouble);
  const auto spans = PrefixPlan(scales).spans(14);
  EXPECT_EQ(spans.back().end, 14);
  const Result got =
      run(qkv, [&](const Qkv& x) { return prefix_attention(x[0], x[1], x[2], spans, 1.0); });
  expect_close(got, run_masked(qkv, shorter), 1e-13, "three of four maps");
}

TEST(PrefixPlan, MasksOnlyMergedMaps) {
  const auto spans = PrefixPlan(ScaleList({1, 2, 3, 4, 5, 6}), 32).spans(91);
  ASSERT_EQ(spans.size(), 3u);  // 1 + 4 + 9 + 16 tokens in one call, then 25, then 36
  EXPECT_EQ(spans[0].end, 30);
  EXPECT_EQ(spans[0].mask_QK.sizes(), (std::vector<int64_t>{30, 30}));
  EXPECT_FALSE(spans[1].mask_QK.defined());
  EXPECT_FALSE(spans[2].mask_QK.defined());
  EXPECT_EQ(spans[2].begin, 55);
}

// On a GPU a mask made for every call would be copied there for every call, and the host would wait.
TEST(PrefixPlan, MakesItsMaskOnce) {
  const PrefixPlan plan(ScaleList({1, 2, 3, 4, 5, 6}));
  const Tensor mask = plan.spans(91)[0].mask_QK;
  EXPECT_EQ(plan.spans(91)[0].mask_QK.data_ptr(), mask.data_ptr());
  EXPECT_EQ(plan.spans(30)[0].mask_QK.data_ptr(), mask.data_ptr());
  // Fewer maps have its first rows and columns.
  const Tensor shorter = plan.spans(14)[0].mask_QK;
  EXPECT_TRUE(at::equal(shorter, PrefixPlan(ScaleList({1, 2, 3})).spans(14)[0].mask_QK));
  EXPECT_EQ(shorter.sizes(), (std::vector<int64_t>{14, 14}));
}

TEST(PrefixPlan, RefusesTokensThatEndInsideAMap) {
  const PrefixPlan plan{ScaleList({1, 2, 3})};
  for (const int64_t tokens : {3, 13, 15}) {
    EXPECT_THROW(plan.spans(tokens), base::InvariantError) << tokens;
  }
}

}  // namespace
}  // namespace varscale::nn
