// What the parity tests of the model share: fixtures, hash-made models, teacher input, losses.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "models/var/model.hpp"
#include "nn/functional.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/parity.hpp"
#include "tokenizer/quantizer.hpp"

namespace varscale::models {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / name;
}

inline scaling::VarShape test_shape(int64_t depth, std::vector<int64_t> sides, int64_t classes,
                                    bool l2_norm = true, bool shared_adaln = false) {
  const scaling::TokenSpace tokens{4096, 32, scaling::ScaleList(std::move(sides))};
  scaling::VarShape shape = scaling::VarShape::from_depth(depth, tokens, classes, shared_adaln);
  shape.attn_l2_norm = l2_norm;
  shape.drop_path = 0;
  return shape;
}

inline Var hash_model(const scaling::VarShape& shape) {
  Var model(shape);
  test::fill_hash_weights(model.parameters());
  return model;
}

inline std::vector<Tensor> tensors_of(const Var& model) {
  std::vector<Tensor> tensors;
  for (const nn::NamedTensor& parameter : model.parameters()) tensors.push_back(parameter.tensor);
  return tensors;
}

// The input of the maps 1, 2, ... by our quantiser with the hash-made codebook and phi.
inline Tensor hash_teacher(const scaling::ScaleList& scales, const Tensor& tokens_BL) {
  tokenizer::QuantizerConfig config;
  config.scales = scales;
  tokenizer::Quantizer quantizer(config);
  test::fill_hash_weights(quantizer.parameters());
  return quantizer.teacher_input(tokens_BL);
}

// The public code's figures of logits against targets, in its units.
struct Figures {
  double loss, loss_tail, correct, correct_tail;  // nats, per cent
  Tensor loss_S, correct_S;
};

inline Figures figures_of(const Tensor& logits_BLV, const Tensor& targets_BL,
                          const scaling::ScaleList& scales) {
  const at::NoGradGuard no_grad;
  const nn::TokenScores scores = nn::score_tokens(logits_BLV.flatten(0, 1), targets_BL.flatten());
  const Tensor loss_BL = scores.loss_N.view(targets_BL.sizes()).to(at::kDouble);
  const Tensor correct_BL = scores.correct_N.view(targets_BL.sizes()).to(at::kDouble) * 100;
  std::vector<Tensor> loss, correct;
  for (int64_t k = 0; k < scales.count(); ++k) {
    loss.push_back(loss_BL.slice(1, scales.begin(k), scales.end(k)).mean());
    correct.push_back(correct_BL.slice(1, scales.begin(k), scales.end(k)).mean());
  }
  return {loss_BL.mean().item<double>(),
          loss.back().item<double>(),
          correct_BL.mean().item<double>(),
          correct.back().item<double>(),
          at::stack(loss),
          at::stack(correct)};
}

// Losses 2e-6 relative; accuracies are counts, stored in float32.
inline void check_figures(test::Parity& parity, const base::SafetensorsFile& file,
                          const std::string& prefix, const Figures& got) {
  const Tensor want = nn::load_tensor(file, prefix + "metrics")[1];
  parity.check_scalar(prefix + "loss", got.loss, want[0].item<double>(), 2e-6);
  parity.check_scalar(prefix + "loss_tail", got.loss_tail, want[1].item<double>(), 2e-6);
  parity.check_scalar(prefix + "accuracy", got.correct, want[2].item<double>(), 2e-7);
  parity.check_scalar(prefix + "accuracy_tail", got.correct_tail, want[3].item<double>(), 2e-7);
  parity.check_tensor(prefix + "ce_per_scale", got.loss_S,
                      nn::load_tensor(file, prefix + "ce_per_scale")[1], 2e-6);
  parity.check_tensor(prefix + "acc_per_scale", got.correct_S,
                      nn::load_tensor(file, prefix + "acc_per_scale")[1], 2e-7);
}

}  // namespace varscale::models
