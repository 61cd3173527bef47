// AdamW with the public code's two groups, and the gradient norm that clips it.
//
//   AdamW optimizer(model.parameters(), {.beta1 = 0.9, .beta2 = 0.95});
//   double norm = gradient_norm(gradients);
//   optimizer.step(gradients, lr, weight_decay, clip_factor(norm, 2.0));
//
// or without the host knowing the norm:
//
//   optimizer.step(gradients, lr, weight_decay, guard(norm_squared, loss, 2.0));
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

// What an update does to its gradients first, decided on their device. float32 scalars.
struct Guard {
  Tensor divisor;  // gradients are divided by it: 1 / clip_factor
  Tensor skip;     // 1 where the norm or the loss is not finite: weights and moments stay; else 0
};

// norm_squared and loss: float64 scalars on the gradients' device. No host sync.
Guard guard(const Tensor& norm_squared, const Tensor& loss, double bound);

class AdamW {
 public:
  AdamW(nn::NamedTensors parameters, AdamWOptions options);

  // One update in place. gradients[i] belongs to parameter i and is divided by `guard.divisor` first,
  // in place.
  void step(const std::vector<Tensor>& gradients, double lr, double weight_decay,
            const Guard& guard);
  // The same with a learning rate on the weights' device: a scalar, float32 there if that is a GPU. No host sync.
  void step(const std::vector<Tensor>& gradients, const Tensor& lr, double weight_decay,
            const Guard& guard);
  // The same with a factor that the host knows.
  void step(const std::vector<Tensor>& gradients, double lr, double weight_decay,
            double gradient_factor);

  // The moments as "exp_avg.<name>" and "exp_avg_sq.<name>", for checkpoints.
  nn::NamedTensors state() const;
  // Updates that were not skipped; what bias correction counts. Waits for the device.
  int64_t steps_taken() const;
  void set_steps_taken(int64_t steps);

 private:
  struct Group {
    std::vector<size_t> indices;
    bool decayed;
  };
  at::TensorOptions scalar_options() const;
  template <class Rate>
  void update(const std::vector<Tensor>& gradients, const Rate& lr, double weight_decay, const Guard& guard);
  nn::NamedTensors parameters_;
  AdamWOptions options_;
  std::vector<Tensor> first_moments_, second_moments_;
  Tensor steps_taken_;  // float32 scalar, as the fused kernel wants it
  std::vector<Group> groups_;
};

}  // namespace varscale::optim
