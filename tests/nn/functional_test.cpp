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

#include "nn/attention.hpp"
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

// One copy of the logits less, and the same bits.
TEST(ScoreAndConsume, GivesTheScoresOfLogitsThatItTakes) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Tensor leaf = (5 * test::hash_v("logits", {70, 83})).to(type).set_requires_grad(true);
    const Tensor targets = test::hash_int_tensor("targets", {70}, 83), weight = test::hash_v("w", {70}).to(at::kFloat);
    const Tensor taken = leaf * 1;
    const TokenScores kept = score_tokens(leaf, targets), scores = score_and_consume(taken, targets);
    EXPECT_TRUE(at::equal(scores.loss_N, kept.loss_N));
    EXPECT_TRUE(at::equal(scores.correct_N, kept.correct_N));
    torch::autograd::grad({kept.loss_N}, {leaf}, {weight}, /*retain_graph=*/true);
    const Tensor want = torch::autograd::grad({kept.loss_N}, {leaf}, {weight})[0];  // as often as one likes
    const Tensor got = torch::autograd::grad({scores.loss_N}, {leaf}, {weight}, /*retain_graph=*/true)[0];
    EXPECT_TRUE(at::equal(got, want));
    EXPECT_THROW(torch::autograd::grad({scores.loss_N}, {leaf}, {weight}), std::exception);
  }
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

// The kernel against ATen's operations in float64: rows that are no multiple of the lanes, samples of several chunks of rows,
// scale and shift as two of six rows of one tensor. Float32 of values up to 6; of the bf16 result half a last bit is 2^-6.
TEST(ModulatedNorm, EqualsItsFormulaInFloat64WithAllGradients) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t C : {5, 64, 83}) {
      const Tensor x64 = 3 * test::hash_v("x", {3, 75, C}) + 1, six64 = test::hash_v("six", {3, 1, 6, C});
      const Tensor dy = test::hash_v("dy", {3, 75, C}).to(type);
      auto all = [&](const Tensor& x, const Tensor& six, at::ScalarType out) {
        const Tensor leaf = x.detach().set_requires_grad(true), rows = six.detach().set_requires_grad(true);
        const std::vector<Tensor> parts = rows.unbind(2);
        const Tensor y = modulated_norm(leaf, parts[2], parts[4], 1e-6, out);
        EXPECT_EQ(y.scalar_type(), out);
        auto results = torch::autograd::grad({y}, {leaf, rows}, {dy.to(out)});
        results.push_back(y);
        return results;
      };
      const auto want = all(x64, six64, at::kDouble), got = all(x64.to(at::kFloat), six64.to(at::kFloat), type);
      const double rounding = type == at::kFloat ? 2e-6 : 1.001 / 64;
      EXPECT_LE(worst(got[0], want[0]), 4e-6) << C;
      EXPECT_LE(worst(got[1], want[1]), 2e-5) << C;
      EXPECT_LE(worst(got[2], want[2]), rounding) << C;
    }
  }
}

TEST(ModulatedNorm, KeepsTheVarianceOfValuesFarFromZero) {
  const Tensor x64 = test::hash_v("x", {1, 3, 64}) + 1000, none = at::zeros({1, 1, 64});
  const Tensor want = at::layer_norm(x64, {64}, {}, {}, 1e-6);
  // A value near 1000 has 6e-5 of itself in float32's last bit, which is 1e-4 of the deviation of 0.58.
  EXPECT_LE(worst(modulated_norm(x64.to(at::kFloat), none, none, 1e-6, at::kFloat), want), 2e-4);
}

TEST(GatedResidual, EqualsItsFormulaInFloat64WithAllGradients) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t C : {5, 64, 83}) {
      const Tensor x = test::hash_v("x", {3, 75, C}), six = test::hash_v("six", {3, 1, 6, C}),
                   branch = test::hash_v("branch", {3, 75, C}).to(type), dy = test::hash_v("dy", {3, 75, C});
      auto all = [&](at::ScalarType wide, at::ScalarType narrow) {
        const Tensor leaf = x.to(wide).detach().set_requires_grad(true), rows = six.to(wide).detach().set_requires_grad(true),
                     out_of_branch = branch.to(narrow).detach().set_requires_grad(true);
        const Tensor y = gated_residual(leaf, out_of_branch, rows.unbind(2)[1]);
        EXPECT_EQ(y.scalar_type(), wide);
        auto results = torch::autograd::grad({y}, {leaf, out_of_branch, rows}, {dy.to(wide)});
        EXPECT_EQ(results[1].scalar_type(), narrow);
        results.push_back(y);
        return results;
      };
      const auto want = all(at::kDouble, at::kDouble), got = all(at::kFloat, type);
      EXPECT_LE(worst(got[0], want[0]), 1e-7) << C;
      EXPECT_LE(worst(got[1], want[1]), type == at::kFloat ? 2e-7 : 4e-3) << C;  // half a last bit of values up to 1
      EXPECT_LE(worst(got[2], want[2]), 1e-5) << C;
      EXPECT_LE(worst(got[3], want[3]), 3e-7) << C;
    }
  }
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

// A bias is not rounded to bf16 before it reaches the optimiser: its gradient is a sum of 130 values of bf16, in float32.
TEST(Linear, SumsTheGradientOfABiasInFloat32) {
  const Tensor x = test::hash_v("x", {2, 65, 24}).to(at::kBFloat16).set_requires_grad(true);
  const Tensor weight = test::hash_v("w", {10, 24}).to(at::kFloat).set_requires_grad(true);
  const Tensor bias = test::hash_v("b", {10}).to(at::kFloat).set_requires_grad(true);
  const Tensor dy = test::hash_v("dy", {2, 65, 10}).to(at::kBFloat16);
  const auto wide = [](const Tensor& t) { return t.detach().to(at::kBFloat16).to(at::kDouble); };
  const Tensor x64 = wide(x), weight64 = wide(weight), dy64 = wide(dy);
  const auto same = [](const std::vector<Tensor>& in) { return in[0]; };
  for (const Tensor& y : {linear(x, weight, bias, at::kBFloat16), linear_of(same, {x}, weight, bias, at::kBFloat16)}) {
    EXPECT_LE(worst(y, x64.matmul(weight64.t()) + wide(bias)), 8 * 2.0 / 256);  // values up to 8, rounded twice
    const auto grads = torch::autograd::grad({y}, {x, weight, bias}, {dy});
    EXPECT_LE(worst(grads[0], dy64.matmul(weight64)), 4.0 / 256);
    EXPECT_LE(worst(grads[1], dy64.view({-1, 10}).t().mm(x64.view({-1, 24}))), 16.0 / 256);
    EXPECT_LE(worst(grads[2], dy64.view({-1, 10}).sum(0)), 1e-5);
  }
}

// Few rows go another way than many.
TEST(LinearOf, GivesTheBitsOfLinear) {
  const auto inner = [](const std::vector<Tensor>& in) { return gelu_tanh(in[0]); };
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t rows : {20, 65, 130}) {
      const Tensor x = test::hash_v("x", {rows, 24}).to(type).set_requires_grad(true);
      const Tensor weight = test::hash_v("w", {10, 24}).to(at::kFloat).set_requires_grad(true);
      const Tensor bias = test::hash_v("b", {10}).to(at::kFloat).set_requires_grad(true);
      const Tensor dy = test::hash_v("dy", {rows, 10}).to(type);
      const Tensor kept = linear(inner({x}), weight, bias, type), again = linear_of(inner, {x}, weight, bias, type);
      EXPECT_TRUE(at::equal(kept, again)) << rows;
      const auto want = torch::autograd::grad({kept}, {x, weight, bias}, {dy}),
                 got = torch::autograd::grad({again}, {x, weight, bias}, {dy});
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_EQ(got[i].scalar_type(), want[i].scalar_type());
        EXPECT_TRUE(at::equal(got[i], want[i])) << i << " of " << rows;
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
// D of the kernel and one that is no multiple of its lanes; samples of several chunks of tokens. One rounding of values up to
// 1.5, 2^-24 or 2^-9 of it; in bf16 backward starts from the rounded q and k. The scale's gradient: a sum of 140 D products.
TEST(UnitHeads, AreTheFormulaInFloat64WithBothGradients) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const int64_t D : {32, 21}) {
      const Tensor qkv = (3 * test::hash_v("qkv", {2, 70, 3 * 3 * D})).to(type).set_requires_grad(true);
      const Tensor scale = test::hash_v("scale", {1, 3, 1, 1}).abs().add(0.5).to(at::kFloat).set_requires_grad(true);
      std::vector<Tensor> weights;
      for (const char* name : {"q", "k", "v"})  // as attention gives them back: [B, L, H, D] in memory
        weights.push_back(test::hash_v(name, {2, 70, 3, D}).transpose(1, 2).to(type));
      const Heads got = unit_heads(qkv, scale);
      const Tensor wide = qkv.detach().to(at::kDouble).set_requires_grad(true);
      const Tensor wide_scale = scale.detach().to(at::kDouble).set_requires_grad(true);
      const auto x = wide.view({2, 70, 3, 3, D}).permute({2, 0, 3, 1, 4}).unbind(0);
      const std::vector<Tensor> want{x[0] / x[0].norm(2, {-1}, true) * wide_scale, x[1] / x[1].norm(2, {-1}, true), x[2]};
      const std::vector<Tensor> parts{got.q_BHLD, got.k_BHLD, got.v_BHLD};
      const double tolerance = type == at::kFloat ? 4e-7 : 4e-3;
      std::vector<Tensor> wide_weights;
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_EQ(parts[i].scalar_type(), type);
        EXPECT_LE(worst(parts[i], want[i]), tolerance);
        wide_weights.push_back(weights[i].to(at::kDouble));
      }
      const auto grads = torch::autograd::grad(parts, {qkv, scale}, weights);
      const auto want_grads = torch::autograd::grad(want, {wide, wide_scale}, wide_weights);
      EXPECT_LE(worst(grads[0], want_grads[0]), tolerance) << D;
      EXPECT_LE(worst(grads[1], want_grads[1]), type == at::kFloat ? 1e-5 : 4e-2) << D;
    }
  }
}

TEST(UnitHeads, LeaveZeroAtZero) {
  const Tensor qkv = at::zeros({1, 2, 3 * 16}).set_requires_grad(true);
  const Heads heads = unit_heads(qkv, at::ones({1, 1, 1, 1}));
  EXPECT_TRUE(at::equal(heads.q_BHLD, at::zeros({1, 1, 2, 16})));
  const Tensor grad = torch::autograd::grad({heads.q_BHLD.sum()}, {qkv})[0];
  EXPECT_TRUE(at::equal(grad.slice(2, 0, 16), at::full({1, 2, 16}, 1 / 1e-12F)));  // there the factor is constant
}

TEST(RowKernels, GiveTheSameBitsWithOneAndTwoThreads) {
  const Tensor logits =
      (5 * test::hash_v("logits", {700, 411})).to(at::kFloat).set_requires_grad(true);
  const Tensor targets = test::hash_int_tensor("targets", {700}, 411);
  const Tensor x = test::hash_v("x", {4, 170, 3 * 3 * 64}).to(at::kFloat).set_requires_grad(true);
  const Tensor scale = test::hash_v("scale", {1, 3, 1, 1}).abs().add(0.5).to(at::kFloat).set_requires_grad(true);
  const PrefixPlan plan(scaling::ScaleList({1, 3, 4, 12}));
  const Tensor stream = test::hash_v("stream", {3, 170, 83}).to(at::kFloat).set_requires_grad(true);
  const Tensor six = test::hash_v("six", {3, 1, 6, 83}).to(at::kFloat).set_requires_grad(true);
  auto all = [&](int threads) {
    at::set_num_threads(threads);
    const TokenScores scores = score_tokens(logits, targets);
    const Heads heads = unit_heads(x, scale);
    const Tensor y = prefix_attention(heads.q_BHLD, heads.k_BHLD, heads.v_BHLD, plan.spans(170), 1);
    const Tensor hidden = gelu_tanh(x);
    const Tensor normed = modulated_norm(stream, six.select(2, 0), six.select(2, 1), 1e-6, at::kFloat);
    const Tensor gated = gated_residual(stream, normed, six.select(2, 2));
    auto grads = torch::autograd::grad(
        {scores.loss_N.sum(), y.square().sum(), hidden.sum(), gated.square().sum()}, {logits, x, scale, stream, six});
    grads.push_back(hidden);
    grads.push_back(gated);
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
