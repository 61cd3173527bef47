// A model small enough to train hundreds of times in a test: VAR blocks whose sizes no number of ranks
// divides, with a loss that reaches every parameter. With a wrapper, and with nothing but autograd.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "models/var/model.hpp"
#include "nn/async.hpp"
#include "nn/functional.hpp"
#include "optim/adamw.hpp"
#include "parallel/parallel.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::test {

inline scaling::VarShape small_shape(bool shared_adaln = false) {
  scaling::TokenSpace tokens;
  tokens.scales = scaling::ScaleList({1, 2, 3});
  tokens.vocabulary = 19;
  tokens.code_width = 5;
  scaling::VarShape shape = scaling::VarShape::from_depth(3, tokens, 3);
  shape.width = 15;  // by 3 heads of width 5
  shape.heads = 3;
  shape.drop_path = 0.1;
  shape.shared_adaln = shared_adaln;
  return shape;
}

constexpr models::InitOptions kSmallInit{.seed = 5, .adaln_gamma = 0.1, .head = 1};

struct SmallBatch {
  at::Tensor labels_B, teacher_BLE, targets_BL, drop_path_SB;
};

inline SmallBatch small_batch(const scaling::VarShape& shape, int64_t step, int64_t begin,
                              int64_t end, at::Device device) {
  const int64_t L = shape.tokens.scales.tokens();
  std::vector<int64_t> ids;
  std::vector<at::Tensor> labels, teacher, targets;
  for (int64_t b = begin; b < end; ++b) {
    const std::string key = fmt::format("{}/{}", step, b);
    labels.push_back(hash_int_tensor("label" + key, {1}, shape.classes));
    teacher.push_back(hash_v("teacher" + key, {1, L - 1, shape.tokens.code_width}));
    targets.push_back(hash_int_tensor("target" + key, {1, L}, shape.tokens.vocabulary));
    ids.push_back(step * 1000 + b);
  }
  return {nn::to_device(at::cat(labels), device),
          nn::to_device(at::cat(teacher).to(at::kFloat), device),
          nn::to_device(at::cat(targets), device),
          nn::to_device(models::drop_path_factors(shape, 1, step, ids), device)};
}

struct SmallRun {
  parallel::Options options;
  int64_t accumulate = 1;  // micro-batches a step
  at::ScalarType compute = at::kFloat;
  int64_t batch = 12, steps = 20;
  bool shared_adaln = false;
  bool recompute_inputs = false;
  at::Device device = at::kCPU;
};

// Loss sums over the global batch, and this rank's rows of the last step's gradients and of the weights.
struct SmallResult {
  std::vector<double> losses, norms;
  std::vector<parallel::Owned> owned;
  parallel::Held held;
};

inline std::vector<parallel::Unit> units_of(const models::Var& model) {
  std::vector<parallel::Unit> units;
  for (nn::NamedTensors& leaves : model.units())
    units.push_back({fmt::format("unit {}", units.size()), std::move(leaves)});
  return units;
}

inline SmallResult train_small(const SmallRun& run, comm::Communicator& world) {
  const scaling::VarShape shape = small_shape(run.shared_adaln);
  models::Var model(shape, {.device = run.device, .weights = run.compute, .allocate = false});
  const auto parallel = parallel::make_parallel(units_of(model), world, run.options);
  for (const parallel::Owned& part : parallel->owned())
    models::fill_initial(part.name, shape, kSmallInit, part.first_element(), part.weight);
  parallel->weights_changed();
  optim::AdamW optimizer(parallel::owned_weights(*parallel), {});
  const models::BlockRunner run_block = parallel::block_runner(*parallel);
  const parallel::Share share = parallel::share_of(run.batch, world.rank(), world.size());
  const double count = static_cast<double>(run.batch * shape.tokens.scales.tokens());
  SmallResult result;
  for (int64_t step = 0; step < run.steps; ++step) {
    parallel->begin_step();
    at::Tensor loss = at::zeros({1}, at::kDouble);
    for (int64_t m = 0; m < run.accumulate; ++m) {
      const int64_t begin = share.begin + share.count() * m / run.accumulate;
      const int64_t end = share.begin + share.count() * (m + 1) / run.accumulate;
      const SmallBatch batch = small_batch(shape, step, begin, end, run.device);
      parallel->begin_micro(m + 1 == run.accumulate);
      const at::Tensor logits = model.forward(
          batch.labels_B, batch.teacher_BLE,
          {.compute = run.compute, .drop_path_SB = batch.drop_path_SB, .recompute_inputs = run.recompute_inputs, .run_block = run_block});
      const nn::TokenScores scores =
          nn::score_tokens(logits.flatten(0, 1), batch.targets_BL.flatten());
      (scores.loss_N.sum() / count).backward();
      parallel->finish_backward();
      loss += scores.loss_N.detach().sum(at::kDouble).cpu() / count;
    }
    world.all_reduce(loss, comm::Reduce::kSum, "loss").wait();
    result.losses.push_back(loss.item<double>());
    const at::Tensor norm_squared = parallel->gradient_norm_squared();
    result.norms.push_back(std::sqrt(norm_squared.item<double>()));
    const std::vector<at::Tensor> gradients = parallel::owned_gradients(*parallel);
    optimizer.step(gradients, 2e-3, 0.05, optim::guard(norm_squared, loss.squeeze(), 2.0));
    parallel->weights_changed();
  }
  for (parallel::Owned part : parallel->owned()) {
    part.weight = part.weight.detach().clone();
    part.gradient = part.gradient.clone();
    result.owned.push_back(std::move(part));
  }
  result.held = parallel->held();
  return result;
}

// The same loop with nothing but autograd: a float32 model, gradients where autograd puts them.
inline SmallResult train_plain(const SmallRun& run) {
  const scaling::VarShape shape = small_shape(run.shared_adaln);
  models::Var model(shape, {.device = run.device});
  model.initialise(kSmallInit);
  optim::AdamW optimizer(model.parameters(), {});
  const double count = static_cast<double>(run.batch * shape.tokens.scales.tokens());
  SmallResult result;
  std::vector<at::Tensor> gradients;
  for (int64_t step = 0; step < run.steps; ++step) {
    for (const nn::NamedTensor& parameter : model.parameters())
      parameter.tensor.mutable_grad() = at::zeros_like(parameter.tensor);
    double loss = 0;
    for (int64_t m = 0; m < run.accumulate; ++m) {
      const SmallBatch batch = small_batch(shape, step, run.batch * m / run.accumulate,
                                           run.batch * (m + 1) / run.accumulate, run.device);
      const at::Tensor logits =
          model.forward(batch.labels_B, batch.teacher_BLE, {.drop_path_SB = batch.drop_path_SB});
      const nn::TokenScores scores =
          nn::score_tokens(logits.flatten(0, 1), batch.targets_BL.flatten());
      (scores.loss_N.sum() / count).backward();
      loss += scores.loss_N.detach().sum(at::kDouble).item<double>() / count;
    }
    result.losses.push_back(loss);
    gradients.clear();
    for (const nn::NamedTensor& parameter : model.parameters())
      gradients.push_back(parameter.tensor.grad());
    result.norms.push_back(optim::gradient_norm(gradients));
    optimizer.step(gradients, 2e-3, 0.05, optim::clip_factor(result.norms.back(), 2.0));
  }
  for (size_t i = 0; i < gradients.size(); ++i) {
    const nn::NamedTensor& parameter = model.parameters()[i];
    result.owned.push_back({parameter.name, parameter.tensor.sizes().vec(), 0, 0, 0,
                            parameter.tensor.detach().clone(), gradients[i].clone()});
  }
  return result;
}

// Puts the ranks' rows together, on the CPU: name -> {weight, gradient}. Every row must be there.
using WholeTensors = std::map<std::string, std::pair<at::Tensor, at::Tensor>>;
inline WholeTensors whole(const std::vector<SmallResult>& results) {
  WholeTensors tensors;
  std::map<std::string, std::vector<bool>> seen;
  for (const SmallResult& result : results) {
    for (const parallel::Owned& part : result.owned) {
      auto [found, fresh] = tensors.try_emplace(part.name);
      if (fresh) {
        found->second = {at::zeros(part.shape), at::zeros(part.shape)};
        seen[part.name].resize(part.shape.at(part.axis));
      }
      found->second.first.slice(part.axis, part.begin, part.end).copy_(part.weight);
      found->second.second.slice(part.axis, part.begin, part.end).copy_(part.gradient);
      for (int64_t row = part.begin; row < part.end; ++row) seen[part.name][row] = true;
    }
  }
  for (const auto& [name, rows] : seen)
    EXPECT_EQ(std::count(rows.begin(), rows.end(), false), 0) << name << " has rows of no rank";
  return tensors;
}

inline double relative_l2(const at::Tensor& a, const at::Tensor& b, double floor) {
  const double difference = (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>();
  return difference / std::max(b.to(at::kDouble).norm().item<double>(), floor);
}

}  // namespace varscale::test
