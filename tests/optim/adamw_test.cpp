#include "optim/adamw.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/hash_weights.hpp"

namespace varscale::optim {
namespace {

nn::NamedTensors parameters() {
  return {{"fc.weight", test::hash_v("w", {7, 5}).to(at::kFloat)},
          {"fc.bias", test::hash_v("b", {7}).to(at::kFloat)}};
}

std::vector<Tensor> gradients(int64_t step) {
  const std::string name = "gradient " + std::to_string(step);
  return {test::hash_v(name + "w", {7, 5}).to(at::kFloat),
          test::hash_v(name + "b", {7}).to(at::kFloat)};
}

// AdamW as the paper writes it, in float64.
struct Reference {
  Tensor weight, first, second;
  bool decayed;
  void step(Tensor gradient, int64_t t, double lr, double decay, double factor) {
    gradient = gradient.to(at::kDouble) * factor;
    if (decayed) weight = weight * (1 - lr * decay);
    first = 0.9 * first + 0.1 * gradient;
    second = 0.95 * second + 0.05 * gradient.square();
    const Tensor first_hat = first / (1 - std::pow(0.9, t)),
                 second_hat = second / (1 - std::pow(0.95, t));
    weight = weight - lr * first_hat / (second_hat.sqrt() + 1e-8);
  }
};

TEST(AdamW, EqualsTheFormulaInFloat64OverTenSteps) {
  for (const double factor : {1.0, 0.37}) {
    nn::NamedTensors ours = parameters();
    AdamW optimizer(ours, {});
    std::vector<Reference> wanted;
    for (const auto& named : parameters()) {
      const Tensor zero = at::zeros(named.tensor.sizes(), at::kDouble);
      wanted.push_back({named.tensor.to(at::kDouble), zero, zero, named.name == "fc.weight"});
    }
    for (int64_t step = 0; step < 10; ++step) {
      const double lr = 0.01 / static_cast<double>(step + 1),
                   decay = 0.5 - 0.03 * static_cast<double>(step);
      optimizer.step(gradients(step), lr, decay, factor);
      for (size_t i = 0; i < wanted.size(); ++i)
        wanted[i].step(gradients(step)[i], step + 1, lr, decay, factor);
    }
    EXPECT_EQ(optimizer.steps_taken(), 10);
    for (size_t i = 0; i < wanted.size(); ++i) {
      const double error =
          (ours[i].tensor.to(at::kDouble) - wanted[i].weight).abs().max().item<double>();
      EXPECT_LE(error, 6e-7) << ours[i].name;  // ten float32 roundings of weights up to 1
    }
  }
}

TEST(AdamW, GoesOnBitForBitFromItsState) {
  nn::NamedTensors whole = parameters(), resumed = parameters();
  AdamW first(whole, {});
  for (int64_t step = 0; step < 4; ++step) first.step(gradients(step), 0.01, 0.1, 1);
  AdamW second(resumed, {});
  const nn::NamedTensors from = first.state(), to = second.state();
  ASSERT_EQ(from.size(), 4u);
  EXPECT_EQ(from[1].name, "exp_avg_sq.fc.weight");
  for (size_t i = 0; i < from.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  for (size_t i = 0; i < whole.size(); ++i) resumed[i].tensor.copy_(whole[i].tensor);
  second.set_steps_taken(first.steps_taken());
  for (int64_t step = 4; step < 8; ++step) {
    first.step(gradients(step), 0.01, 0.1, 0.5);
    second.step(gradients(step), 0.01, 0.1, 0.5);
  }
  for (size_t i = 0; i < whole.size(); ++i)
    EXPECT_TRUE(at::equal(whole[i].tensor, resumed[i].tensor));
}

TEST(AdamW, TakesItsRateFromTheDeviceWithTheSameBits) {
  nn::NamedTensors told = parameters(), read = parameters();
  AdamW by_host(told, {}), by_device(read, {});
  for (int64_t step = 0; step < 4; ++step) {
    const double lr = 0.01 / static_cast<double>(step + 1);
    const auto calm = [] { return guard(at::full({}, 0.5, at::kDouble), at::full({}, 1.0, at::kDouble), 0.1); };
    by_host.step(gradients(step), lr, 0.1, calm());
    by_device.step(gradients(step), at::full({}, lr, at::kDouble), 0.1, calm());
  }
  for (size_t i = 0; i < told.size(); ++i) EXPECT_TRUE(at::equal(told[i].tensor, read[i].tensor)) << told[i].name;
}

TEST(AdamW, LeavesTheScaledGradientsBehind) {
  AdamW optimizer(parameters(), {});
  const std::vector<Tensor> given = gradients(0), before = gradients(0);
  optimizer.step(given, 0.01, 0, 0.5);
  EXPECT_TRUE(at::equal(given[0], before[0] * 0.5));
  optimizer.step(given, 0.01, 0, 1);
  EXPECT_TRUE(at::equal(given[0], before[0] * 0.5));
}

TEST(IsDecayed, ExcludesVectorsAndNamedTables) {
  const Tensor matrix = at::zeros({2, 2}), vector = at::zeros({2});
  EXPECT_TRUE(is_decayed({"blocks.0.attn.mat_qkv.weight", matrix}));
  EXPECT_TRUE(is_decayed({"class_emb.weight", matrix}));
  EXPECT_FALSE(is_decayed({"norm.weight", vector}));
  EXPECT_FALSE(is_decayed({"head.bias", matrix}));
  for (const char* name : {"pos_start", "pos_1LC", "lvl_embed.weight",
                           "blocks.3.attn.scale_mul_1H11", "blocks.0.ada_gss"})
    EXPECT_FALSE(is_decayed({name, matrix})) << name;
}

TEST(GradientNorm, IsTheFloat64NormAtAnyNumberOfThreads) {
  // Sizes around the chunk of 2^14 and the 8 lanes, and one that several threads share.
  std::vector<Tensor> tensors;
  double squares = 0;
  for (const int64_t size : {0, 1, 7, 8, 9, 16383, 16384, 16385, 1 << 20}) {
    tensors.push_back((1e3 * test::hash_v("g" + std::to_string(size), {size})).to(at::kFloat));
    squares += tensors.back().to(at::kDouble).square().sum().item<double>();
  }
  const int before = at::get_num_threads();
  std::vector<double> norms;
  for (const int threads : {1, 2, 3, 4}) {
    at::set_num_threads(threads);
    norms.push_back(gradient_norm(tensors));
  }
  at::set_num_threads(before);
  EXPECT_NEAR(norms[0] / std::sqrt(squares), 1, 1e-13);
  for (const double norm : norms) EXPECT_EQ(norm, norms[0]);
}

TEST(ClipFactor, BringsTheNormToItsBoundAndNeverUp) {
  EXPECT_EQ(clip_factor(1, 2), 1);
  EXPECT_EQ(clip_factor(0, 2), 1);
  EXPECT_NEAR(clip_factor(8, 2) * 8, 2, 1e-6);
  EXPECT_EQ(clip_factor(8, 2), 2 / (8 + 1e-6));
  EXPECT_EQ(clip_factor(8, 0), 1);
}

TEST(Guard, DividesByWhatClipFactorMultipliesWith) {
  for (const double norm : {0.0, 1.0, 2.0, 8.0, 1e6}) {
    const Guard given = guard(at::scalar_tensor(norm * norm, at::kDouble),
                              at::scalar_tensor(1.0, at::kDouble), 2.0);
    EXPECT_EQ(given.divisor.item<float>(), static_cast<float>(1 / clip_factor(norm, 2.0))) << norm;
    EXPECT_EQ(given.skip.item<float>(), 0) << norm;
  }
}

TEST(Guard, SkipsAnUpdateWhoseLossOrNormIsNotFinite) {
  const double inf = std::numeric_limits<double>::infinity();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const auto& [norm, loss] : std::vector<std::pair<double, double>>{
           {inf, 1}, {nan, 1}, {1, inf}, {1, nan}, {inf, -inf}}) {
    Tensor weight = test::hash_v("w", {5, 3}).to(at::kFloat);
    AdamW optimizer({{"w.weight", weight}}, {});
    const Tensor gradient = at::full({5, 3}, norm);
    const Tensor good = at::ones({5, 3}, at::kFloat);
    optimizer.step({good.clone()}, 0.01, 0.1, 1.0);
    const Tensor before = weight.clone();
    const nn::NamedTensors moments = optimizer.state();
    const Tensor first = moments[0].tensor.clone(), second = moments[1].tensor.clone();
    optimizer.step({gradient.to(at::kFloat)}, 0.01, 0.1,
                   guard(at::scalar_tensor(norm, at::kDouble), at::scalar_tensor(loss, at::kDouble),
                         2.0));
    EXPECT_TRUE(at::equal(weight, before));
    EXPECT_TRUE(at::equal(optimizer.state()[0].tensor, first));
    EXPECT_TRUE(at::equal(optimizer.state()[1].tensor, second));
    EXPECT_EQ(optimizer.steps_taken(), 1);  // bias correction counts the updates that were made
  }
}

}  // namespace
}  // namespace varscale::optim
