#include "losses/spectral_norm.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/losses/support.hpp"

namespace varscale::losses {
namespace {

Tensor leaf() { return test::hash_param("w", {6, 5, 3}).set_requires_grad(true); }

TEST(SpectralNorm, DividesByTheLargestSingularValue) {
  const Tensor weight = leaf();
  nn::NamedTensors buffers;
  SpectralNorm norm(weight, "conv", buffers);
  norm.start(0);
  for (int i = 0; i < 200; ++i) norm.advance();
  const Tensor unit = norm.weight(at::kDouble).flatten(1);
  const Tensor values = std::get<1>(at::linalg_svd(unit, false));
  EXPECT_NEAR(values[0].item<double>(), 1, 1e-6);
  const Tensor ratio = norm.weight(at::kDouble) / weight.to(at::kDouble);
  EXPECT_LE((ratio.max() - ratio.min()).item<double>(), 1e-12);
  ASSERT_EQ(buffers.size(), 2U);
  EXPECT_EQ(buffers[0].name, "conv.u");
  EXPECT_EQ(buffers[1].name, "conv.v");
  EXPECT_EQ(buffers[1].tensor.sizes(), at::IntArrayRef({15}));
}

TEST(SpectralNorm, AdvanceIsOneStepOfThePublishedIteration) {
  const Tensor weight = leaf();
  nn::NamedTensors buffers;
  SpectralNorm norm(weight, "conv", buffers);
  norm.start(1);
  const Tensor matrix = weight.detach().flatten(1), u = buffers[0].tensor.clone();
  norm.advance();
  const Tensor wu = at::matmul(matrix.t(), u), v = wu / wu.norm();
  const Tensor wv = at::matmul(matrix, v);
  EXPECT_LE(worst(buffers[1].tensor, v), 1e-6);
  EXPECT_LE(worst(buffers[0].tensor, wv / wv.norm()), 1e-6);
}

TEST(SpectralNorm, StartIsAFunctionOfSeedAndName) {
  nn::NamedTensors buffers;
  SpectralNorm a(leaf(), "a", buffers), again(leaf(), "a", buffers), b(leaf(), "b", buffers);
  a.start(1), again.start(1), b.start(1);
  EXPECT_TRUE(at::equal(buffers[0].tensor, buffers[2].tensor));
  EXPECT_TRUE(at::equal(buffers[1].tensor, buffers[3].tensor));
  EXPECT_FALSE(at::equal(buffers[0].tensor, buffers[4].tensor));
}

TEST(SpectralNorm, UsingTheWeightMovesNothingAndBuffersAreTheWholeState) {
  nn::NamedTensors buffers;
  SpectralNorm norm(leaf(), "conv", buffers), copy(leaf(), "conv", buffers);
  norm.start(1);
  const Tensor before = norm.weight(at::kFloat), after = norm.weight(at::kFloat);
  EXPECT_TRUE(at::equal(before, after));
  buffers[2].tensor.copy_(buffers[0].tensor);
  buffers[3].tensor.copy_(buffers[1].tensor);
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(at::equal(norm.weight(at::kFloat), copy.weight(at::kFloat)));
    norm.advance(), copy.advance();
  }
}

TEST(SpectralNorm, GradientTakesTheSingularVectorsAsConstants) {
  const Tensor weight = leaf();
  nn::NamedTensors buffers;
  SpectralNorm norm(weight, "conv", buffers);
  norm.start(2);
  auto loss = [&] { return (norm.weight(at::kDouble) * test::hash_v("g", {6, 5, 3})).sum(); };
  EXPECT_LE(difference_error(loss, weight, 1e-4), 1e-5);
  // A backward pass after the next step's advance() still belongs to its own forward pass.
  const Tensor value = loss(), want = torch::autograd::grad({loss()}, {weight})[0];
  norm.advance();
  EXPECT_TRUE(at::equal(torch::autograd::grad({value}, {weight})[0], want));
}

}  // namespace
}  // namespace varscale::losses
