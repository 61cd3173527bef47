// An update of the weights that is recorded once and then launched as a whole (nn::Graph).
//
//   RecordedUpdate update(nn::make_graph(device), [&](const auto& inputs, const Tensor& lr) { ...; return figures; });
//   Tensor figures = update({tokens_BL, labels_B, drop_path_SB}, lr);
//
// Inputs   Of the same sizes in every call, on one device; entries may be undefined, always the same ones. They
//          are copied to where the recorded update reads them.
// Result   What the update returned; the next call writes it anew, after what the stream was given before.
// Calls    The first kFirst run as they are, which sets up libraries and memory; the next is recorded.
// Errors   InvariantError: inputs of other sizes.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "nn/graph.hpp"

namespace varscale::train {

class RecordedUpdate {
 public:
  static constexpr int64_t kFirst = 3;
  // Of the inputs and the learning rate, a scalar on their device: float32 on a GPU, else float64.
  using Update = std::function<at::Tensor(const std::vector<at::Tensor>& inputs, const at::Tensor& lr)>;

  RecordedUpdate(std::unique_ptr<nn::Graph> graph, Update update);
  at::Tensor operator()(const std::vector<at::Tensor>& inputs, double lr);

 private:
  void put(const std::vector<at::Tensor>& inputs, double lr);

  std::unique_ptr<nn::Graph> graph_;
  Update update_;
  std::vector<at::Tensor> inputs_;
  at::Tensor lr_, result_;
  int64_t calls_ = 0;
};

}  // namespace varscale::train
