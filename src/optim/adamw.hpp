// AdamW with the public code's two groups, and the gradient norm that clips it.
//
//   AdamW optimizer(model.parameters(), {.beta1 = 0.9, .beta2 = 0.95});
//   double norm = gradient_norm(gradients);
//   optimizer.step(gradients, lr, weight_decay, clip_factor(norm, 2.0));
//
// The update is ATen's fused kernel (decoupled weight decay, bias correction).
// Source   Loshchilov & Hutter, arXiv 1711.05101; groups: FoundationVision/VAR utils/lr_control.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "nn/tensor.hpp"

namespace varscale::optim {

using at::Tensor;

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
};

// Whether a parameter is decayed: not vectors, biases, positions, level embeddings, q scales or
// AdaLN tables.
bool is_decayed(const nn::NamedTensor& parameter);

// sqrt of the sum of squares over all tensors, summed in double over fixed chunks: the same for any
// number of threads.
double gradient_norm(const std::vector<Tensor>& gradients);

// What gradients are multiplied by so that their norm is at most `bound` (0: no bound).
double clip_factor(double norm, double bound);

class AdamW {
 public:
  AdamW(nn::NamedTensors parameters, AdamWOptions options);

  // One update in place. gradients[i] belongs to parameter i and is scaled by `gradient_factor`
  // first, in place where the factor is not 1.
  void step(const std::vector<Tensor>& gradients, double lr, double weight_decay,
            double gradient_factor);

  // The moments as "exp_avg.<name>" and "exp_avg_sq.<name>", for checkpoints.
  nn::NamedTensors state() const;
  int64_t steps_taken() const noexcept { return steps_taken_; }
  void set_steps_taken(int64_t steps);

 private:
  struct Group {
    std::vector<size_t> indices;
    bool decayed;
  };
  nn::NamedTensors parameters_;
  AdamWOptions options_;
  std::vector<Tensor> first_moments_, second_moments_, step_counts_;
  std::vector<Group> groups_;
  int64_t steps_taken_ = 0;
};

}  // namespace varscale::optim
