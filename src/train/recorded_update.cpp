#include "train/recorded_update.hpp"

#include <ATen/ATen.h>

#include <utility>

#include "base/error.hpp"

namespace varscale::train {

RecordedUpdate::RecordedUpdate(std::unique_ptr<nn::Graph> graph, Update update)
    : graph_(std::move(graph)), update_(std::move(update)) {}

void RecordedUpdate::put(const std::vector<at::Tensor>& inputs, double lr) {
  if (inputs_.empty()) {
    for (const at::Tensor& input : inputs) inputs_.push_back(input.defined() ? at::empty_like(input) : input);
    const at::Device device = inputs.at(0).device();
    lr_ = at::empty({}, at::TensorOptions(device.is_cpu() ? at::kDouble : at::kFloat).device(device));
  }
  VARSCALE_CHECK(inputs.size() == inputs_.size(), "{} inputs of an update recorded with {}", inputs.size(), inputs_.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    VARSCALE_CHECK(inputs[i].defined() == inputs_[i].defined() &&
                       (!inputs[i].defined() || inputs[i].sizes() == inputs_[i].sizes()),
                   "input {} has other sizes than the recorded update", i);
    if (inputs[i].defined()) inputs_[i].copy_(inputs[i], /*non_blocking=*/true);
  }
  lr_.fill_(lr);
}

at::Tensor RecordedUpdate::operator()(const std::vector<at::Tensor>& inputs, double lr) {
  put(inputs, lr);
  ++calls_;
  if (calls_ <= kFirst) return update_(inputs_, lr_);
  if (calls_ == kFirst + 1) graph_->record([this] { result_ = update_(inputs_, lr_); });
  graph_->replay();
  return result_;
}

}  // namespace varscale::train
