// The pieces of a block: kernels of our own on the CPU, ATen's on the GPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "nn/async.hpp"
#include "nn/attention.hpp"
#include "nn/functional.hpp"
#include "tests/gpu/both_devices.hpp"

namespace varscale::nn {
namespace {

using test::expect_same_on_both;
using test::kBfloat16;
using test::kFloat32;
using Inputs = std::vector<Tensor>;

Tensor input(const std::string& name, at::IntArrayRef shape, at::ScalarType type = at::kFloat) {
  return test::hash_v(name, shape).to(type);
}

double tolerance_of(at::ScalarType type) { return type == at::kFloat ? kFloat32 : kBfloat16; }

// TF32 keeps 11 bits: its products are off by 3e-4, those of float32 by 1e-6.
TEST(RepeatableCuda, ProductsAndConvolutionsAreFloat32) {
  const Tensor a = input("a", {256, 512}), b = input("b", {512, 256});
  const at::Device device = comm::cuda_device();
  EXPECT_LE(test::relative_difference(at::mm(a.to(device), b.to(device)),
                                      at::mm(a.to(at::kDouble), b.to(at::kDouble))),
            kFloat32);
  const Tensor x = input("x", {2, 32, 16, 16}), weight = input("weight", {32, 32, 3, 3});
  EXPECT_LE(test::relative_difference(at::conv2d(x.to(device), weight.to(device)),
                                      at::conv2d(x.to(at::kDouble), weight.to(at::kDouble))),
            kFloat32);
}

TEST(ToDevice, CopiesValuesOfEveryDtype) {
  for (const auto type : {at::kFloat, at::kLong, at::kBFloat16}) {
    const Tensor x = (100 * test::hash_v("x", {3, 1000})).to(type);
    const Tensor there = to_device(x, comm::cuda_device());
    EXPECT_EQ(there.device(), comm::cuda_device());
    EXPECT_TRUE(at::equal(there.cpu(), x));
  }
}

// The pinned copy must outlive the transfer though nobody keeps it, and the host goes on.
TEST(ToDevice, ManyCopiesInFlightArriveWhole) {
  std::vector<Tensor> there;
  for (int i = 0; i < 50; ++i)
    there.push_back(to_device(at::full({1 << 20}, i, at::kLong), comm::cuda_device()));
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(there[i].eq(i).all().item<bool>()) << i;
}

TEST(ScoreTokens, IsTheSameOnBothDevices) {
  const Tensor targets = test::hash_int_tensor("targets", {90}, 4096);
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    expect_same_on_both(
        "loss", {(8 * input("logits", {90, 4096})).to(type), targets},
        [](const Inputs& in) { return score_tokens(in[0], in[1]).loss_N; }, tolerance_of(type));
  }
}

TEST(ScoreTokens, TakesTheFirstOfEqualLogitsOnBothDevices) {
  const at::Device device = comm::cuda_device();
  const Tensor logits = at::zeros({2, 4096}, at::TensorOptions(at::kFloat).device(device));
  const Tensor correct =
      score_tokens(logits, at::tensor({0, 7}, at::kLong).to(device)).correct_N.cpu();
  EXPECT_TRUE(at::equal(correct, at::tensor({1.0F, 0.0F})));
}

TEST(ModulatedNorm, IsTheSameOnBothDevices) {
  const Inputs inputs{3 * input("x", {2, 30, 128}) + 1, input("scale", {2, 1, 128}),
                      input("shift", {2, 1, 128})};
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    expect_same_on_both(
        "norm", inputs,
        [&](const Inputs& in) { return modulated_norm(in[0], in[1], in[2], 1e-6, type); },
        tolerance_of(type));
  }
}

TEST(GatedResidual, IsTheSameOnBothDevices) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    expect_same_on_both(
        "gate", {input("x", {2, 30, 128}), input("branch", {2, 30, 128}, type), input("gate", {2, 1, 128})},
        [&](const Inputs& in) { return gated_residual(in[0], in[1], in[2]); }, tolerance_of(type));
  }
}

TEST(UnitHeads, AreTheSameOnBothDevices) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    expect_same_on_both(
        "heads", {input("qkv", {2, 30, 3 * 3 * 64}, type), input("scale", {1, 3, 1, 1}) + 2},
        [&](const Inputs& in) {
          const Heads heads = unit_heads(in[0], in[1]);
          return at::cat({heads.q_BHLD, heads.k_BHLD, heads.v_BHLD});
        },
        tolerance_of(type));
  }
}

TEST(Linear, IsTheSameOnBothDevices) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    expect_same_on_both(
        "linear", {input("x", {40, 128}), input("weight", {96, 128}), input("bias", {96})},
        [&](const Inputs& in) { return linear(in[0], in[1], in[2], type); }, tolerance_of(type));
  }
}

Tensor attend(const Inputs& in, const scaling::ScaleList& scales) {
  const PrefixPlan plan(scales, PrefixPlan::kMergeBelow, in[0].device());
  return prefix_attention(in[0], in[1], in[2], plan.spans(scales.tokens()), 0.2);
}

// Maps that are merged under a mask and maps that are not; widths with and without a fused kernel.
TEST(PrefixAttention, IsTheSameOnBothDevices) {
  const scaling::ScaleList scales({1, 2, 3, 4, 5, 6});
  for (const int64_t width : {64, 5}) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      Inputs inputs;
      for (const char* name : {"q", "k", "v"})
        inputs.push_back((2 * input(name, {2, 3, scales.tokens(), width})).to(type));
      expect_same_on_both(
          fmt::format("attention {} {}", at::toString(type), width), inputs,
          [&](const Inputs& in) { return attend(in, scales); }, tolerance_of(type));
    }
  }
}

TEST(PrefixAttention, GivesTheSameBitsWithAndWithoutGradientsAndEachTime) {
  const scaling::ScaleList scales({1, 2, 3, 4, 5, 6});
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    Inputs inputs;
    for (const char* name : {"q", "k", "v"})
      inputs.push_back(input(name, {2, 3, scales.tokens(), 64}, type));
    const auto body = [&](const Inputs& in) { return attend(in, scales); };
    const std::vector<Tensor> once = test::run_on(comm::cuda_device(), inputs, body);
    const std::vector<Tensor> again = test::run_on(comm::cuda_device(), inputs, body);
    for (size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(at::equal(once[i], again[i])) << i;
    const at::NoGradGuard no_grad;
    for (Tensor& x : inputs) x = x.to(comm::cuda_device());
    EXPECT_TRUE(at::equal(attend(inputs, scales).cpu(), once[0]));
  }
}

}  // namespace
}  // namespace varscale::nn
