#include "optim/adamw.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "base/error.hpp"
#include "nn/functional.hpp"

namespace varscale::optim {

namespace {
constexpr double kNormGuard = 1e-6;  // as torch's clip_grad_norm_
}

bool is_decayed(const nn::NamedTensor& parameter) {
  // The part of the public list that names parameters of this model.
  constexpr std::array kNeverDecayed{"pos_start", "pos_1LC", "lvl_embed", "scale_mul",
                                     "ada_gss",   "gamma",   "beta"};
  if (parameter.tensor.dim() == 1 || parameter.name.ends_with("bias")) return false;
  return std::none_of(kNeverDecayed.begin(), kNeverDecayed.end(), [&](const char* part) {
    return parameter.name.find(part) != std::string::npos;
  });
}

double gradient_norm(const std::vector<Tensor>& gradients) {
  double sum = 0;
  for (const Tensor& gradient : gradients) sum += nn::sum_of_squares(gradient).item<double>();
  return std::sqrt(sum);
}

double clip_factor(double norm, double bound) {
  return bound <= 0 ? 1.0 : std::min(1.0, bound / (norm + kNormGuard));
}

Guard guard(const Tensor& norm_squared, const Tensor& loss, double bound) {
  at::NoGradGuard no_grad;
  const Tensor finite = at::isfinite(norm_squared + loss);
  Tensor divisor = at::ones_like(norm_squared);
  if (bound > 0) divisor = (bound / (norm_squared.sqrt() + kNormGuard)).clamp_max(1).reciprocal();
  return {divisor.to(at::kFloat), 1 - finite.to(at::kFloat)};
}

AdamW::AdamW(nn::NamedTensors parameters, AdamWOptions options)
    : parameters_(std::move(parameters)), options_(options), groups_{{{}, false}, {{}, true}} {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const Tensor& tensor = parameters_[i].tensor;
    first_moments_.push_back(at::zeros_like(tensor));
    second_moments_.push_back(at::zeros_like(tensor));
    groups_[is_decayed(parameters_[i]) ? 1 : 0].indices.push_back(i);
  }
  steps_taken_ = at::zeros({}, scalar_options());
}

at::TensorOptions AdamW::scalar_options() const {
  return at::TensorOptions(at::kFloat).device(parameters_.at(0).tensor.device());
}

void AdamW::step(const std::vector<Tensor>& gradients, double lr, double weight_decay,
                 double gradient_factor) {
  step(gradients, lr, weight_decay,
       Guard{at::full({}, 1.0 / gradient_factor, scalar_options()),
             at::zeros({}, scalar_options())});
}

void AdamW::step(const std::vector<Tensor>& gradients, double lr, double weight_decay,
                 const Guard& guard) {
  update(gradients, lr, weight_decay, guard);
}

void AdamW::step(const std::vector<Tensor>& gradients, const Tensor& lr, double weight_decay,
                 const Guard& guard) {
  update(gradients, lr, weight_decay, guard);
}

template <class Rate>
void AdamW::update(const std::vector<Tensor>& gradients, const Rate& lr, double weight_decay, const Guard& guard) {
  VARSCALE_CHECK(gradients.size() == parameters_.size(), "{} gradients for {} parameters",
                 gradients.size(), parameters_.size());
  at::NoGradGuard no_grad;
  steps_taken_.add_(1 - guard.skip);
  // Where asking costs nothing, gradients that need no division are left unwritten.
  const bool divides = !guard.divisor.is_cpu() || guard.divisor.item<float>() != 1;
  const std::optional<Tensor> divisor =
      divides ? std::optional<Tensor>(guard.divisor) : std::nullopt;
  for (const Group& group : groups_) {
    std::vector<Tensor> weights, grads, first, second, counts;
    for (const size_t i : group.indices) {
      if (parameters_[i].tensor.numel() == 0) continue;  // a shard without rows
      weights.push_back(parameters_[i].tensor);
      grads.push_back(gradients[i]);
      first.push_back(first_moments_[i]);
      second.push_back(second_moments_[i]);
      counts.push_back(steps_taken_);
    }
    if (weights.empty()) continue;
    at::_fused_adamw_(weights, grads, first, second, /*max_exp_avg_sqs=*/{}, counts, lr,
                      options_.beta1, options_.beta2, group.decayed ? weight_decay : 0.0,
                      options_.eps, /*amsgrad=*/false,
                      /*maximize=*/false, divisor, guard.skip);
  }
}

nn::NamedTensors AdamW::state() const {
  nn::NamedTensors state;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    state.push_back({"exp_avg." + parameters_[i].name, first_moments_[i]});
    state.push_back({"exp_avg_sq." + parameters_[i].name, second_moments_[i]});
  }
  return state;
}

int64_t AdamW::steps_taken() const { return std::llround(steps_taken_.item<float>()); }

void AdamW::set_steps_taken(int64_t steps) { steps_taken_.fill_(static_cast<double>(steps)); }

}  // namespace varscale::optim
