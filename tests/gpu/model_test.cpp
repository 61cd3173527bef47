// VAR of depth 2 on the GPU against the CPU.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/gpu/both_devices.hpp"
#include "tests/models/var_fixture.hpp"

namespace varscale::models {
namespace {

struct Pass {
  Tensor logits_BLV, loss_N;
  std::map<std::string, Tensor> gradients;
};

Pass run_on(at::Device device, const scaling::VarShape& shape, at::ScalarType compute) {
  Var model(shape, {.device = device});
  test::fill_hash_weights(model.parameters());
  const int64_t L = shape.tokens.scales.tokens();
  const Tensor labels_B = test::hash_int_tensor("labels", {3}, shape.classes + 1);
  const Tensor tokens_BL = test::hash_int_tensor("tokens", {3, L}, shape.tokens.vocabulary);
  const Tensor teacher_BLE = hash_teacher(shape.tokens.scales, tokens_BL);
  Pass pass;
  pass.logits_BLV = model.forward(
      labels_B.to(device), teacher_BLE.to(device),
      {.compute = compute, .drop_path_SB = drop_path_factors(shape, 1, 0, {0, 1, 2}).to(device)});
  pass.loss_N =
      nn::score_tokens(pass.logits_BLV.flatten(0, 1), tokens_BL.flatten().to(device)).loss_N;
  pass.loss_N.mean().backward();
  for (const nn::NamedTensor& parameter : model.parameters())
    pass.gradients[parameter.name] = parameter.tensor.grad();
  return pass;
}

scaling::VarShape shape_of(bool shared_adaln) {
  scaling::VarShape shape = test_shape(2, {1, 2, 3, 4, 5}, 10, true, shared_adaln);
  shape.drop_path = 0.2;
  return shape;
}

// A dozen float32 products one after the other, each good to about 1e-6; gradients that are sums over all
// tokens with signs of both kinds lose another digit.
TEST(Var, LogitsLossesAndAllGradientsAreThoseOfTheCpu) {
  for (const bool shared_adaln : {false, true}) {
    const Pass cpu = run_on(at::kCPU, shape_of(shared_adaln), at::kFloat);
    const Pass gpu = run_on(comm::cuda_device(), shape_of(shared_adaln), at::kFloat);
    EXPECT_LE(test::relative_difference(gpu.logits_BLV, cpu.logits_BLV), 1e-5);
    EXPECT_LE(test::relative_difference(gpu.loss_N, cpu.loss_N), 1e-5);
    double worst = 0;
    for (const auto& [name, gradient] : cpu.gradients) {
      const double difference = test::relative_difference(gpu.gradients.at(name), gradient);
      EXPECT_LE(difference, 1e-4) << name;
      worst = std::max(worst, difference);
    }
    fmt::print("d2, shared AdaLN {}: worst gradient {:.1e} (relative)\n", shared_adaln, worst);
  }
}

// The band of bf16 products about float32 ones: 4e-3 a rounding, through two blocks and back.
TEST(Var, Bfloat16IsInABandAboutTheCpusFloat32) {
  const Pass cpu = run_on(at::kCPU, shape_of(false), at::kFloat);
  const Pass gpu = run_on(comm::cuda_device(), shape_of(false), at::kBFloat16);
  EXPECT_LE(test::relative_difference(gpu.logits_BLV, cpu.logits_BLV), 3e-2);
  EXPECT_NEAR(gpu.loss_N.mean().item<double>() / cpu.loss_N.mean().item<double>(), 1, 5e-3);
  for (const auto& [name, gradient] : cpu.gradients)
    EXPECT_LE(test::relative_difference(gpu.gradients.at(name), gradient), 0.1) << name;
}

TEST(Var, GivesTheSameBitsEachTime) {
  for (const auto compute : {at::kFloat, at::kBFloat16}) {
    const Pass once = run_on(comm::cuda_device(), shape_of(false), compute);
    const Pass again = run_on(comm::cuda_device(), shape_of(false), compute);
    EXPECT_TRUE(at::equal(once.logits_BLV, again.logits_BLV));
    for (const auto& [name, gradient] : once.gradients)
      EXPECT_TRUE(at::equal(gradient, again.gradients.at(name))) << name;
  }
}

TEST(FillInitial, GivesTheBitsOfTheCpu) {
  for (const bool shared_adaln : {false, true}) {
    const scaling::VarShape shape = shape_of(shared_adaln);
    const Var model(shape);
    for (const nn::NamedTensor& parameter : model.parameters()) {
      const Tensor cpu = at::empty(parameter.tensor.sizes(), at::kFloat);
      const Tensor gpu = at::empty_like(cpu, cpu.options().device(comm::cuda_device()));
      fill_initial(parameter.name, shape, {.seed = 3}, 0, cpu);
      fill_initial(parameter.name, shape, {.seed = 3}, 0, gpu);
      EXPECT_TRUE(at::equal(gpu.cpu(), cpu)) << parameter.name;
    }
  }
}

// Bicubic resampling, means and a convolution over 32 channels, added up over the maps.
TEST(Quantizer, TeacherInputIsThatOfTheCpu) {
  tokenizer::QuantizerConfig config;
  config.scales = scaling::ScaleList({1, 2, 3, 4, 5});
  tokenizer::Quantizer quantizer(config);
  test::fill_hash_weights(quantizer.parameters());
  const Tensor tokens_BL = test::hash_int_tensor("tokens", {3, config.scales.tokens()}, 4096);
  const Tensor cpu = quantizer.teacher_input(tokens_BL);
  const Tensor gpu =
      quantizer.to(comm::cuda_device()).teacher_input(tokens_BL.to(comm::cuda_device()));
  EXPECT_TRUE(gpu.is_cuda());
  EXPECT_LE(test::relative_difference(gpu, cpu), 5e-6);
}

}  // namespace
}  // namespace varscale::models
