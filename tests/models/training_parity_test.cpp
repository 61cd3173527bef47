// Twenty AdamW steps against the public code's float64 run.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "optim/adamw.hpp"
#include "tests/models/var_fixture.hpp"

namespace varscale::models {
namespace {

constexpr double kLoss = 2e-6;     // torch's own float32 run drifts by up to 3.9e-7
constexpr double kNorm = 5e-5;     // as all gradients
constexpr double kWeights = 1e-5;  // relative L2 per tensor; torch's float32 run drifts by 3.6e-6

// Compares parameters with rows [L2 norm, 16 samples], row by row the last (float64) one.
void check_weights(test::Parity& parity, const base::SafetensorsFile& file,
                   const std::string& prefix, const Var& model) {
  for (const nn::NamedTensor& parameter : model.parameters()) {
    parity.check_grad(parameter.name, parameter.tensor,
                      nn::load_tensor(file, prefix + parameter.name), kWeights, 1e-6, "param.");
  }
}

void train(test::Parity& parity, const base::SafetensorsFile& file, const std::string& prefix,
           bool shared_adaln, double clip, bool weights) {
  const Var model = hash_model(test_shape(2, {1, 2, 3, 4}, 10, true, shared_adaln));
  const Tensor tokens = nn::load_tensor(file, "tokens"), labels = nn::load_tensor(file, "labels");
  optim::AdamW optimizer(model.parameters(), {});
  std::vector<double> losses, norms;
  for (int64_t step = 0; step < 20; ++step) {
    const Tensor tokens_BL = tokens[step % 4];
    const Tensor logits_BLV =
        model.forward(labels[step % 4], hash_teacher(model.shape().tokens.scales, tokens_BL));
    const Tensor loss =
        nn::score_tokens(logits_BLV.flatten(0, 1), tokens_BL.flatten()).loss_N.mean();
    std::vector<Tensor> grads;
    for (const Tensor& grad : torch::autograd::grad({loss}, tensors_of(model)))
      grads.push_back(grad.contiguous());
    losses.push_back(loss.item<double>());
    norms.push_back(optim::gradient_norm(grads));
    optimizer.step(grads, 1e-3, 0.05, optim::clip_factor(norms.back(), clip));
    if (weights && step == 0) check_weights(parity, file, "step1.", model);
  }
  const Tensor want_loss = nn::load_tensor(file, prefix + "loss").select(0, -1);
  const Tensor want_norm = nn::load_tensor(file, prefix + "grad_norm").select(0, -1);
  for (int64_t step = 0; step < 20; ++step) {
    const std::string at = fmt::format("{}step {} ", prefix, step);
    parity.check_scalar(at + "loss", losses[step], want_loss[step].item<double>(), kLoss);
    parity.check_scalar(at + "grad_norm", norms[step], want_norm[step].item<double>(), kNorm);
  }
  if (weights) check_weights(parity, file, "final.", model);
}

TEST(TrainingParity, TwentyStepsEqualThePublicCode) {
  test::Parity parity("train_d2");
  const base::SafetensorsFile file(fixture("train_d2.safetensors"));
  parity.check_equal("tokens", test::hash_int_tensor("input.tokens.train", {4, 8, 30}, 4096),
                     nn::load_tensor(file, "tokens"));
  parity.check_equal("labels", test::hash_int_tensor("input.labels.train", {4, 8}, 10),
                     nn::load_tensor(file, "labels"));
  train(parity, file, "", false, 2.0, true);
  train(parity, file, "clip0.5.", false, 0.5, false);
  train(parity, file, "saln.", true, 2.0, false);
}

}  // namespace
}  // namespace varscale::models
