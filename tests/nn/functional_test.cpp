#include "nn/functional.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cmath>
#include <limits>
#include <set>
#include <vector>

#include "tests/support/hash_weights.hpp"

namespace varscale::nn {
namespace {

double worst(const Tensor& got, const Tensor& want) {
  return (got.to(at::kDouble) - want.to(at::kDouble)).abs().max().item<double>();
}

TEST(ScoreTokens, EqualsCrossEntropyInFloat64WithItsGradient) {
  const Tensor logits_NV = (8 * test::hash_v("logits", {50, 97})).set_requires_grad(true);
  const Tensor targets_N = test::hash_int_tensor("targets", {50}, 97),
               weight_N = test::hash_v("weight", {50});
  const Tensor got = score_tokens(logits_NV, targets_N).loss_N;
  const Tensor want = at::cross_entropy_loss(logits_NV, targets_N, {}, at::Reduction::None);
  EXPECT_LE(worst(got, want), 1e-13);
  const Tensor got_grad = torch::autograd::grad({got}, {logits_NV}, {weight_N})[0];
  const Tensor want_grad = torch::autograd::grad({want}, {logits_NV}, {weight_N})[0];
  EXPECT_LE(worst(got_grad, want_grad), 1e-14);
}

// log-sum-exp and the difference are rounded once each at a magnitude of 30: about 4e-6.
TEST(ScoreTokens, IsFloat32OnBfloat16Logits) {
  const Tensor logits_NV =
      (20 * test::hash_v("logits", {40, 33})).to(at::kBFloat16).set_requires_grad(true);
  const Tensor targets_N = test::hash_int_tensor("targets", {40}, 33);
  const Tensor got = score_tokens(logits_NV, targets_N).loss_N;
  EXPECT_EQ(got.scalar_type(), at::kFloat);
  const Tensor want =
      at::cross_entropy_loss(logits_NV.to(at::kDouble), targets_N, {}, at::Reduction::None);
  EXPECT_LE(worst(got, want), 1e-5);
  const Tensor grad = torch::autograd::grad({got.sum()}, {logits_NV})[0];
  EXPECT_EQ(grad.scalar_type(), at::kBFloat16);
  const Tensor want_grad = torch::autograd::grad({want.sum()}, {logits_NV})[0];
  EXPECT_LE(worst(grad, want_grad), 1.0 / 256);  // one bf16 rounding of values up to 1
}

TEST(ScoreTokens, CountsATargetAsCorrectWhereItIsTheLargest) {
  const Tensor logits_NV = at::zeros({3, 4});
  logits_NV[0][2] = 1;
  logits_NV[1][0] = 1;
  logits_NV[2][3] = 1;
  const TokenScores scores = score_tokens(logits_NV, at::tensor({2, 1, 3}, at::kLong));
  EXPECT_TRUE(at::equal(scores.correct_N, at::tensor({1.0F, 0.0F, 1.0F})));
}

TEST(ScoreTokens, SurvivesHugeLogits) {
  const Tensor logits_NV = at::tensor({1e4F, -1e4F, 0.0F}).view({1, 3});
  EXPECT_EQ(score_tokens(logits_NV, at::zeros({1}, at::kLong)).loss_N.item<float>(), 0);
  EXPECT_EQ(score_tokens(logits_NV, at::ones({1}, at::kLong)).loss_N.item<float>(), 2e4F);
}

TEST(ModulatedNorm, IsTheFormula) {
  const Tensor x = 3 * test::hash_v("x", {2, 5, 16}) + 1;
  const Tensor scale = test::hash_v("scale", {2, 1, 16}), shift = test::hash_v("shift", {2, 1, 16});
  const Tensor centred = x - x.mean({-1}, true);
  const Tensor want =
      centred / (centred.square().mean({-1}, true) + 1e-3).sqrt() * (1 + scale) + shift;
  const Tensor got = modulated_norm(x.to(at::kFloat), scale.to(at::kFloat), shift.to(at::kFloat),
                                    1e-3, at::kFloat);
  EXPECT_LE(worst(got, want), 2e-6);  // values up to 4, a few float32 roundings
  const Tensor half = modulated_norm(x.to(at::kFloat), scale.to(at::kFloat), shift.to(at::kFloat),
                                     1e-3, at::kBFloat16);
  EXPECT_TRUE(at::equal(half, got.to(at::kBFloat16)));  // rounded only at the end
}

TEST(UnitNorm, GivesLengthOneAndLeavesZeroAtZero) {
  Tensor x = test::hash_v("x", {2, 3, 8}).to(at::kFloat);
  x[1][2].zero_();
  const Tensor unit = unit_norm(x);
  const Tensor length = unit.norm(2, {-1}).reshape(-1);
  for (int64_t i = 0; i < 5; ++i) EXPECT_NEAR(length[i].item<float>(), 1, 3e-7);
  EXPECT_EQ(length[5].item<float>(), 0);
  EXPECT_LE(worst(unit[0] * x[0].norm(2, {-1}, true), x[0]), 3e-7);
}

TEST(UnitNorm, ComputesHalfPrecisionInFloat32) {
  const Tensor x = test::hash_v("x", {4, 64}).to(at::kBFloat16);
  const Tensor unit = unit_norm(x);
  EXPECT_EQ(unit.scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(unit, unit_norm(x.to(at::kFloat))));
}

TEST(Linear, KeepsTheGradientsOfFloat32WeightsInFloat32) {
  const Tensor x = test::hash_v("x", {6, 4}).to(at::kFloat);
  const Tensor weight = test::hash_v("w", {3, 4}).to(at::kFloat).set_requires_grad(true);
  const Tensor bias = test::hash_v("b", {3}).to(at::kFloat).set_requires_grad(true);
  EXPECT_LE(worst(linear(x, weight, bias, at::kFloat), x.matmul(weight.t()) + bias), 1e-6);
  const Tensor half = linear(x, weight, bias, at::kBFloat16);
  EXPECT_EQ(half.scalar_type(), at::kBFloat16);
  EXPECT_LE(worst(half, x.matmul(weight.t()) + bias),
            4 * 2.0 / 256);  // values up to 4, inputs and output rounded
  const auto grads = torch::autograd::grad({half.sum()}, {weight, bias});
  EXPECT_EQ(grads[0].scalar_type(), at::kFloat);
  EXPECT_EQ(grads[1].scalar_type(), at::kFloat);
  EXPECT_LE(worst(linear(x, weight, {}, at::kFloat), x.matmul(weight.t())), 1e-6);
}

// Enough rows for oneDNN's product, and one fewer; a view that no reshape is needed for, and one that is not
// contiguous. Sums of 24 products and of 65 rows of values up to 1, in float32.
TEST(Linear, IsTheProductWithItsGradientsAtAnyNumberOfRows) {
  for (const int64_t rows : {63, 65, 2 * 65}) {
    for (const bool with_bias : {true, false}) {
      const Tensor x = test::hash_v("x", {2, rows, 24}).to(at::kFloat).set_requires_grad(true);
      const Tensor weight = test::hash_v("w", {10, 24}).to(at::kFloat).set_requires_grad(true);
      const Tensor bias = test::hash_v("b", {10}).to(at::kFloat).set_requires_grad(true);
      const Tensor dy = test::hash_v("dy", {rows, 2, 10}).to(at::kFloat);
      const Tensor x64 = x.detach().to(at::kDouble), weight64 = weight.detach().to(at::kDouble),
                   dy64 = dy.to(at::kDouble);
      std::vector<Tensor> inputs{x, weight};
      if (with_bias) inputs.push_back(bias);
      const Tensor y = linear(x.slice(0, 0, 1), weight, with_bias ? bias : Tensor(), at::kFloat);
      EXPECT_LE(worst(y, x64.slice(0, 0, 1).matmul(weight64.t()) +
                             (with_bias ? bias.detach() : at::zeros({10}))),
                2e-6);
      const Tensor turned =
          linear(x.transpose(0, 1), weight, with_bias ? bias : Tensor(), at::kFloat);
      const auto grads = torch::autograd::grad({turned}, inputs, {dy});
      EXPECT_LE(worst(grads[0], dy64.matmul(weight64).transpose(0, 1)), 2e-6);
      const Tensor dweight = dy64.view({-1, 10}).t().mm(x64.transpose(0, 1).reshape({-1, 24}));
      EXPECT_LE(worst(grads[1], dweight), 2e-5);
      if (with_bias) {
        EXPECT_LE(worst(grads[2], dy64.view({-1, 10}).sum(0)), 2e-5);
      }
    }
  }
}

// One rounding of a value up to 6, or 2^-9 of it; tails and a length that is no multiple of the lanes.
TEST(Gelu, IsTheTanhFormWithItsGradient) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor x = (6 * test::hash_v("x", {37, 83})).to(type).set_requires_grad(true);
    const Tensor dy = test::hash_v("dy", {37, 83}).to(type);
    const Tensor wide = x.detach().to(at::kDouble).set_requires_grad(true);
    const Tensor want = at::gelu(wide, "tanh");
    const Tensor got = gelu_tanh(x);
    EXPECT_EQ(got.scalar_type(), type);
    EXPECT_LE(worst(got, want), type == at::kFloat ? 1e-6 : 2e-2);
    const Tensor want_grad = torch::autograd::grad({want}, {wide}, {dy.to(at::kDouble)})[0];
    EXPECT_LE(worst(torch::autograd::grad({got}, {x}, {dy})[0], want_grad),
              type == at::kFloat ? 1e-6 : 5e-3);
  }
}

TEST(Gelu, PassesWhatIsNotANumberOn) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              inf = std::numeric_limits<float>::infinity();
  const Tensor got = gelu_tanh(at::tensor({nan, inf, -100.0F, 100.0F}));
  EXPECT_TRUE(std::isnan(got[0].item<float>()));
  EXPECT_EQ(got[1].item<float>(), inf);
  EXPECT_LE(std::abs(got[2].item<float>()), 1e-30F);
  EXPECT_EQ(got[3].item<float>(), 100.0F);
}

// at::parallel_for is a template of our own files: compiled without OpenMP it is silently serial.
TEST(ParallelFor, RunsOnTwoThreads) {
  const int before = at::get_num_threads();
  at::set_num_threads(2);
  std::array<int, 2> thread_of{-1, -1};
  at::parallel_for(0, 2, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) thread_of[i] = at::get_thread_num();
  });
  at::set_num_threads(before);
  EXPECT_EQ((std::set<int>{thread_of[0], thread_of[1]}), (std::set<int>{0, 1}));
}

// Against the chain of elementary operations in float64.
TEST(ScaledUnitNorm, EqualsItsFormulaWithBothGradients) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    // As the projection lays it out: [B, L, 3, H, D] seen as [B, H, L, D].
    const Tensor qkv = (3 * test::hash_v("qkv", {2, 5, 3, 3, 21})).to(type).set_requires_grad(true);
    const Tensor x_BHLD = qkv.permute({2, 0, 3, 1, 4})[1];
    const Tensor scale =
        test::hash_v("scale", {1, 3, 1, 1}).abs().add(0.5).to(at::kFloat).set_requires_grad(true);
    const Tensor weight = test::hash_v("weight", {2, 3, 5, 21});
    const Tensor y = scaled_unit_norm(x_BHLD, scale, type);
    EXPECT_EQ(y.scalar_type(), type);
    const Tensor wide = qkv.detach().to(at::kDouble).set_requires_grad(true);
    const Tensor wide_scale = scale.detach().to(at::kDouble).set_requires_grad(true);
    const Tensor wide_x = wide.permute({2, 0, 3, 1, 4})[1];
    const Tensor want = wide_x / wide_x.norm(2, {-1}, true) * wide_scale;
    // One rounding of values up to 1.5: 2^-24 or 2^-9 of it, some of them in float32.
    const double tolerance = type == at::kFloat ? 4e-7 : 4e-3;
    EXPECT_LE(worst(y, want), tolerance);
    const auto got_grad = torch::autograd::grad({y}, {qkv, scale}, {weight.to(type)});
    const auto want_grad =
        torch::autograd::grad({want}, {wide, wide_scale}, {weight.to(type).to(at::kDouble)});
    EXPECT_LE(worst(got_grad[0], want_grad[0]), tolerance);
    EXPECT_LE(worst(got_grad[1], want_grad[1]),
              10 * 4e-7);  // a sum of 210 terms, in float32 products
  }
}

TEST(ScaledUnitNorm, WithoutAScaleIsTheUnitVector) {
  const Tensor x = test::hash_v("x", {1, 2, 3, 16}).to(at::kFloat);
  EXPECT_LE(worst(scaled_unit_norm(x, {}, at::kFloat), unit_norm(x)), 2e-7);
  EXPECT_TRUE(at::equal(scaled_unit_norm(at::zeros({1, 1, 1, 16}), {}, at::kFloat),
                        at::zeros({1, 1, 1, 16})));
}

TEST(RowKernels, GiveTheSameBitsWithOneAndTwoThreads) {
  const Tensor logits =
      (5 * test::hash_v("logits", {700, 411})).to(at::kFloat).set_requires_grad(true);
  const Tensor targets = test::hash_int_tensor("targets", {700}, 411);
  const Tensor x = test::hash_v("x", {4, 3, 170, 64}).to(at::kFloat).set_requires_grad(true);
  const Tensor scale = test::hash_v("scale", {1, 3, 1, 1}).to(at::kFloat).set_requires_grad(true);
  auto all = [&](int threads) {
    at::set_num_threads(threads);
    const TokenScores scores = score_tokens(logits, targets);
    const Tensor y = scaled_unit_norm(x, scale, at::kFloat);
    const Tensor hidden = gelu_tanh(x);
    auto grads = torch::autograd::grad({scores.loss_N.sum(), y.square().sum(), hidden.sum()},
                                       {logits, x, scale});
    grads.push_back(hidden);
    grads.push_back(scores.loss_N);
    grads.push_back(scores.correct_N);
    grads.push_back(y);
    return grads;
  };
  const int before = at::get_num_threads();
  const auto one = all(1), two = all(2);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
}

// The first of equal largest logits is the answer, as argmax has it.
TEST(ScoreTokens, TakesTheFirstOfEqualLogits) {
  const Tensor logits = at::zeros({2, 40});
  const Tensor correct = score_tokens(logits, at::tensor({0, 7}, at::kLong)).correct_N;
  EXPECT_TRUE(at::equal(correct, at::tensor({1.0F, 0.0F})));
}

}  // namespace
}  // namespace varscale::nn
