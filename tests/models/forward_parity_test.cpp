// Logits, activations, losses and gradients against the public code's, on hash-made weights.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "optim/adamw.hpp"
#include "tests/models/var_fixture.hpp"

namespace varscale::models {
namespace {

constexpr double kActivation = 1e-5, kLoss = 2e-6,
                 kGradient = 5e-5;  // the fixtures' own tolerances

struct Sample {
  base::SafetensorsFile file;
  Tensor labels_B, tokens_BL, teacher_BLE;
  scaling::ScaleList scales;
};

Sample load_sample(const std::string& name, scaling::ScaleList scales) {
  base::SafetensorsFile file(fixture(name));
  Tensor labels_B = nn::load_tensor(file, "label"), tokens_BL = nn::load_tensor(file, "tokens");
  Tensor teacher_BLE = hash_teacher(scales, tokens_BL);
  return {std::move(file), labels_B, tokens_BL, teacher_BLE, std::move(scales)};
}

// The forward pass piece by piece, each activation compared; the logits.
Tensor check_activations(test::Parity& parity, const Sample& sample, const Var& model,
                         const std::string& variant) {
  const auto check = [&](const std::string& module, const Tensor& got) {
    const std::string key = variant + "act." + module;
    if (sample.file.contains(key))
      parity.check_stat(key, got, nn::load_tensor(sample.file, key), kActivation);
  };
  const Var::Condition condition = model.condition(sample.labels_B);
  check("word_embed", model.embed_words(sample.teacher_BLE));
  Tensor x_BLC = model.embed(condition, sample.teacher_BLE);
  const auto spans = model.spans(sample.scales.tokens());
  for (int64_t i = 0; i < model.shape().depth; ++i) {
    const std::string name = fmt::format("blocks.{}", i);
    const Var::Modulation mod = model.modulation(i, condition, at::kFloat);
    const Tensor attn = model.attention_branch(i, x_BLC, mod, spans, {at::kFloat});
    check(name + ".attn", attn);
    const Tensor ffn = model.feed_forward_branch(i, x_BLC + mod.gamma1 * attn, mod, {at::kFloat});
    check(name + ".ffn", ffn);
    x_BLC = model.block(i, x_BLC, condition, spans, {});
    check(name, x_BLC);
  }
  check("head_nm", model.head_norm(x_BLC, condition, at::kFloat));
  return model.head(x_BLC, condition, at::kFloat);
}

void check_gradients(test::Parity& parity, const Sample& sample, const Var& model,
                     const std::string& variant, const Tensor& logits_BLV) {
  const Tensor loss =
      nn::score_tokens(logits_BLV.flatten(0, 1), sample.tokens_BL.flatten()).loss_N.mean();
  std::vector<Tensor> grads = torch::autograd::grad({loss}, tensors_of(model));
  for (size_t i = 0; i < grads.size(); ++i) {
    const std::string& name = model.parameters()[i].name;
    parity.check_grad(name, grads[i], nn::load_tensor(sample.file, variant + "grad." + name),
                      kGradient);
    grads[i] = grads[i].contiguous();
  }
  const double want = nn::load_tensor(sample.file, variant + "grad_total_norm")[1].item<double>();
  parity.check_scalar(variant + "grad_total_norm", optim::gradient_norm(grads), want, kGradient);
}

// Everything stored under `variant` but the full logits, which the caller compares.
Tensor check_all(test::Parity& parity, const Sample& sample, const Var& model,
                 const std::string& variant) {
  const Tensor pieces_BLV = check_activations(parity, sample, model, variant);
  const Tensor logits_BLV = model.forward(sample.labels_B, sample.teacher_BLE);
  parity.check_equal(variant + "pieces", pieces_BLV, logits_BLV);
  parity.check_stat(variant + "logits.stat", logits_BLV,
                    nn::load_tensor(sample.file, variant + "logits.stat"), kActivation);
  check_figures(parity, sample.file, variant,
                figures_of(logits_BLV, sample.tokens_BL, sample.scales));
  check_figures(
      parity, sample.file, variant + "acc.",
      figures_of(logits_BLV, nn::load_tensor(sample.file, variant + "acc.tokens"), sample.scales));
  check_gradients(parity, sample, model, variant, logits_BLV);
  return logits_BLV;
}

TEST(VarParity, EqualsThePublicCodeInAllFourVariantsAtDepth2) {
  test::Parity parity("var_d2");
  const Sample sample = load_sample("var_d2.safetensors", scaling::ScaleList({1, 2, 3, 4}));
  parity.check_equal("tokens", test::hash_int_tensor("input.tokens.d2", {3, 30}, 4096),
                     sample.tokens_BL);
  parity.check_tensor("x", sample.teacher_BLE, nn::load_tensor(sample.file, "x_BLCv_wo_first_l"),
                      kActivation);
  for (const bool l2_norm : {true, false}) {
    for (const bool shared : {false, true}) {
      const std::string variant = fmt::format("l2{}_saln{}.", int{l2_norm}, int{shared});
      const Var model = hash_model(test_shape(2, {1, 2, 3, 4}, 10, l2_norm, shared));
      const Tensor logits_BLV = check_all(parity, sample, model, variant);
      const std::string key = variant + (l2_norm && !shared ? "logits" : "logits_v256");
      const Tensor want = nn::load_tensor(sample.file, key);
      parity.check_tensor(key, logits_BLV.slice(2, 0, want.size(2)), want, kActivation);
    }
  }
}

TEST(VarParity, EqualsThePublicCodeOnTheFirstMapsAlone) {
  test::Parity parity("var_d2.progressive");
  const Sample sample = load_sample("var_d2.safetensors", scaling::ScaleList({1, 2, 3, 4}));
  const Var model = hash_model(test_shape(2, {1, 2, 3, 4}, 10));
  for (const int64_t last : {1, 2}) {
    const std::string prefix = fmt::format("prog{}.", last);
    const int64_t L = sample.scales.end(last);
    const Tensor teacher_BLE = sample.teacher_BLE.slice(1, 0, L - 1);
    parity.check_tensor(prefix + "x", teacher_BLE, nn::load_tensor(sample.file, prefix + "x"),
                        kActivation);
    const Tensor logits_BLV = model.forward(sample.labels_B, teacher_BLE);
    parity.check_tensor(prefix + "logits_v64", logits_BLV.slice(2, 0, 64),
                        nn::load_tensor(sample.file, prefix + "logits_v64"), kActivation);
    const Tensor loss_BL =
        nn::score_tokens(logits_BLV.flatten(0, 1), sample.tokens_BL.slice(1, 0, L).flatten())
            .loss_N.view({3, L});
    for (const double weight :
         {1.0, 0.5}) {  // of the newest map; the divisor stays the whole pyramid's 30
      Tensor weight_L = at::full({L}, 1.0 / 30);
      weight_L.slice(0, sample.scales.begin(last), L).mul_(weight);
      const Tensor loss = (loss_BL * weight_L).sum(-1).mean();
      std::vector<Tensor> grads;
      for (const Tensor& grad :
           torch::autograd::grad({loss}, tensors_of(model), {}, /*retain_graph=*/true)) {
        grads.push_back(grad.contiguous());
      }
      const std::string key = fmt::format("{}wp{}.loss_gradnorm", prefix, weight);
      const Tensor want = nn::load_tensor(sample.file, key)[1];
      parity.check_scalar(key + " loss", loss.item<double>(), want[0].item<double>(), kLoss);
      parity.check_scalar(key + " norm", optim::gradient_norm(grads), want[1].item<double>(),
                          kGradient);
    }
  }
}

TEST(VarParity, EqualsThePublicCodeAtDepth4With680Tokens) {
  test::Parity parity("var_d4_256");
  const std::vector<int64_t> sides{1, 2, 3, 4, 5, 6, 8, 10, 13, 16};
  const Sample sample = load_sample("var_d4_256.safetensors", scaling::ScaleList(sides));
  parity.check_equal("tokens", test::hash_int_tensor("input.tokens.d4", {2, 680}, 4096),
                     sample.tokens_BL);
  parity.check_tensor("x", sample.teacher_BLE, nn::load_tensor(sample.file, "x_BLCv_wo_first_l"),
                      kActivation);
  parity.check_stat("x.stat", sample.teacher_BLE, nn::load_tensor(sample.file, "x.stat"),
                    kActivation);
  const Var model = hash_model(test_shape(4, sides, 1000));
  const Tensor logits_BLV = check_all(parity, sample, model, "");
  const Tensor rows =
      logits_BLV.index_select(1, nn::load_tensor(sample.file, "logits.pos")).slice(2, 0, 1024);
  parity.check_tensor("logits.rows", rows, nn::load_tensor(sample.file, "logits.rows"),
                      kActivation);
  parity.check_equal("argmax", logits_BLV.argmax(-1), nn::load_tensor(sample.file, "argmax"));
}

}  // namespace
}  // namespace varscale::models
