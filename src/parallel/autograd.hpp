// The three hooks into autograd that the wrappers need.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <functional>
#include <memory>
#include <vector>

namespace varscale::parallel {

using at::Tensor;
using UnitBody = std::function<Tensor(const std::vector<Tensor>&)>;

// y itself; before its gradient flows on, `before` is called.
Tensor before_backward(const Tensor& y, std::function<void()> before);

// body(inputs), keeping the inputs alone; backward runs the body again. Parameters are captured by the
// body, never inputs. `inputs` may hold undefined tensors.
Tensor recomputed(const std::vector<Tensor>& inputs, const UnitBody& body);

// Calls on_gradient(i) each time a gradient was added to leaf i.
class LeafHooks {
 public:
  LeafHooks(const std::vector<Tensor>& leaves, const std::function<void(size_t)>& on_gradient);

 private:
  // A leaf keeps only a weak pointer to its accumulator: without these the hooks would be lost.
  std::vector<std::shared_ptr<torch::autograd::Node>> accumulators_;
};

// Gradients of `leaf` are added up in float32, whatever its dtype, into `gradient`.
void set_gradient(const Tensor& leaf, const Tensor& gradient);

}  // namespace varscale::parallel
