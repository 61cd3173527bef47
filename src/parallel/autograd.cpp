#include "parallel/autograd.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace varscale::parallel {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Functions are kept in the context as custom classes.
struct Callback : torch::CustomClassHolder {
  explicit Callback(std::function<void()> f) : call(std::move(f)) {}
  std::function<void()> call;
};
struct BodyHolder : torch::CustomClassHolder {
  explicit BodyHolder(UnitBody f) : body(std::move(f)) {}
  UnitBody body;
};

class BeforeBackward : public torch::autograd::Function<BeforeBackward> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& y,
                        const c10::intrusive_ptr<Callback>& callback) {
    ctx->saved_data["callback"] = c10::IValue::make_capsule(callback);
    return y.view_as(y);
  }
  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    static_cast<Callback*>(ctx->saved_data["callback"].toCapsule().get())->call();
    return {grads[0], Tensor()};
  }
};

class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  static Tensor forward(AutogradContext* ctx, variable_list inputs,
                        const c10::intrusive_ptr<BodyHolder>& holder) {
    ctx->save_for_backward(inputs);
    ctx->saved_data["body"] = c10::IValue::make_capsule(holder);
    at::NoGradGuard no_grad;
    return holder->body(inputs);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto capsule = ctx->saved_data["body"].toCapsule();
    variable_list inputs;
    for (const Tensor& tensor : saved) {
      const bool differentiable = tensor.defined() && at::isFloatingType(tensor.scalar_type());
      inputs.push_back(!tensor.defined() ? Tensor()
                       : differentiable  ? tensor.detach().set_requires_grad(true)
                                         : tensor.detach());
    }
    Tensor y;
    {
      at::AutoGradMode grad_mode(true);
      y = static_cast<BodyHolder*>(capsule.get())->body(inputs);
    }
    torch::autograd::backward({y}, {grads[0]});
    variable_list result;
    for (const Tensor& input : inputs) result.push_back(input.defined() ? input.grad() : Tensor());
    result.emplace_back();  // the body
    return result;
  }
};

}  // namespace

Tensor before_backward(const Tensor& y, std::function<void()> before) {
  return BeforeBackward::apply(y, c10::make_intrusive<Callback>(std::move(before)));
}

Tensor recomputed(const std::vector<Tensor>& inputs, const UnitBody& body) {
  return Recomputed::apply(inputs, c10::make_intrusive<BodyHolder>(body));
}

LeafHooks::LeafHooks(const std::vector<Tensor>& leaves,
                     const std::function<void(size_t)>& on_gradient) {
  for (size_t i = 0; i < leaves.size(); ++i) {
    auto accumulator = torch::autograd::impl::grad_accumulator(leaves[i]);
    accumulator->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(
        [on_gradient, i](const variable_list& outputs, const variable_list&) {
          on_gradient(i);
          return outputs;
        }));
    accumulators_.push_back(std::move(accumulator));
  }
}

void set_gradient(const Tensor& leaf, const Tensor& gradient) {
  if (leaf.scalar_type() != at::kFloat)
    torch::autograd::impl::materialize_autograd_meta(leaf)->set_grad_dtype(at::kFloat, leaf);
  Tensor(leaf).mutable_grad() = gradient;
}

}  // namespace varscale::parallel
