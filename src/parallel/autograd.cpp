#include "parallel/autograd.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>

#include "base/error.hpp"

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

// Inputs that take part in autograd; those that are undefined have been left out.
class Recomputed : public torch::autograd::Function<Recomputed> {
 public:
  static Tensor forward(AutogradContext* ctx, at::ArrayRef<Tensor> inputs,
                        const c10::intrusive_ptr<BodyHolder>& holder) {
    ctx->save_for_backward(inputs.vec());
    ctx->saved_data["body"] = c10::IValue::make_capsule(holder);
    at::NoGradGuard no_grad;
    return holder->body(inputs.vec());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto capsule = ctx->saved_data["body"].toCapsule();
    variable_list inputs;
    for (const Tensor& tensor : ctx->get_saved_variables())
      inputs.push_back(tensor.detach().set_requires_grad(true));
    Tensor y;
    {
      at::AutoGradMode grad_mode(true);
      y = static_cast<BodyHolder*>(capsule.get())->body(inputs);
    }
    torch::autograd::backward({y}, {grads[0]});
    variable_list result;
    for (const Tensor& input : inputs) result.push_back(input.grad());
    result.emplace_back();  // the body
    return result;
  }
};

}  // namespace

Tensor before_backward(const Tensor& y, std::function<void()> before) {
  return BeforeBackward::apply(y, c10::make_intrusive<Callback>(std::move(before)));
}

Tensor recomputed(const std::vector<Tensor>& inputs, const UnitBody& body) {
  variable_list defined;
  std::vector<bool> is_defined;
  for (const Tensor& input : inputs) {
    is_defined.push_back(input.defined());
    if (input.defined()) defined.push_back(input);
  }
  // Without an input that requires a gradient the first unit would be left out of the backward.
  VARSCALE_CHECK(std::any_of(defined.begin(), defined.end(),
                             [](const Tensor& input) { return input.requires_grad(); }),
                 "recomputed() of inputs without gradient");
  auto with_holes = [body, is_defined](const std::vector<Tensor>& given) {
    std::vector<Tensor> all;
    size_t next = 0;
    for (const bool there : is_defined) all.push_back(there ? given[next++] : Tensor());
    return body(all);
  };
  return Recomputed::apply(at::ArrayRef<Tensor>(defined),
                           c10::make_intrusive<BodyHolder>(std::move(with_holes)));
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
