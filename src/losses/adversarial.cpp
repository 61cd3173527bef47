#include "losses/adversarial.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/error.hpp"

namespace varscale::losses {

namespace {

// Sum over the images here of the mean over an image's logits, over the images of the step.
Tensor shared_mean(const Tensor& x, int64_t count) {
  VARSCALE_CHECK(count > 0, "a mean over {} images", count);
  return per_image(x).sum() / static_cast<double>(count);
}

}  // namespace

Tensor per_image(const Tensor& logits) {
  const bool wide = logits.scalar_type() == at::kDouble;
  return logits.to(wide ? at::kDouble : at::kFloat).reshape({logits.size(0), -1}).mean(1);
}

Tensor discriminator_loss(AdversarialKind kind, const Tensor& real_logits, const Tensor& fake_logits, int64_t count) {
  if (kind == AdversarialKind::kHinge)
    return shared_mean(at::relu(1 - real_logits), count) + shared_mean(at::relu(1 + fake_logits), count);
  return shared_mean(at::softplus(-real_logits), count) + shared_mean(at::softplus(fake_logits), count);
}

Tensor generator_loss(AdversarialKind kind, const Tensor& fake_logits, int64_t count) {
  return shared_mean(kind == AdversarialKind::kHinge ? -fake_logits : at::softplus(-fake_logits), count);
}

LecamMeans::LecamMeans(double decay, at::Device device)
    : decay_(decay), state_3_(at::zeros({3}, at::TensorOptions(device).dtype(at::kFloat))) {
  VARSCALE_CHECK(decay >= 0 && decay < 1, "a decay of {}", decay);
}

Tensor LecamMeans::sums(const Tensor& real_logits, const Tensor& fake_logits) {
  const at::NoGradGuard no_grad;
  return at::stack({per_image(real_logits).sum(), per_image(fake_logits).sum()}).to(at::kFloat);
}

Tensor LecamMeans::means() const { return state_3_.slice(0, 0, 2) / state_3_[2].clamp_min(1e-30); }

Tensor LecamMeans::loss(const Tensor& real_logits, const Tensor& fake_logits, int64_t count) const {
  const Tensor means_2 = means();
  const Tensor loss = shared_mean(at::relu(real_logits - means_2[1]).square(), count) +
                      shared_mean(at::relu(means_2[0] - fake_logits).square(), count);
  return loss * state_3_[2].gt(0);  // no wait for the device
}

void LecamMeans::update(const Tensor& sums_2, int64_t count) {
  const at::NoGradGuard no_grad;
  VARSCALE_CHECK(sums_2.dim() == 1 && sums_2.size(0) == 2 && count > 0, "sums of {} numbers over {} images",
                 sums_2.numel(), count);
  state_3_.mul_(decay_);
  state_3_.slice(0, 0, 2).add_(sums_2.to(state_3_.options()), (1 - decay_) / static_cast<double>(count));
  state_3_.slice(0, 2).add_(1 - decay_);
}

Tensor r1_penalty(const std::function<Tensor(const Tensor&)>& logits, const Tensor& real_B3XX, int64_t count) {
  VARSCALE_CHECK(count > 0, "a mean over {} images", count);
  const at::AutoGradMode with_graph(true);
  const Tensor leaf_B3XX = real_B3XX.detach().set_requires_grad(true);
  // An image's logits depend on that image alone, so the gradient of the sum holds each image's own.
  const Tensor gradient = torch::autograd::grad({per_image(logits(leaf_B3XX)).sum()}, {leaf_B3XX}, {},
                                                /*retain_graph=*/true, /*create_graph=*/true)[0];
  return gradient.square().sum() / static_cast<double>(count);
}

double adaptive_weight(double reconstruction_norm, double generator_norm, WeightBounds bounds) {
  VARSCALE_CHECK(bounds.least >= 0 && bounds.least <= bounds.most, "bounds {} and {}", bounds.least, bounds.most);
  return std::clamp(reconstruction_norm / (generator_norm + 1e-4), bounds.least, bounds.most);
}

double ramp(int64_t step, int64_t start, int64_t warmup) {
  if (step < start) return 0;
  if (warmup <= 0) return 1;
  return std::min(1.0, static_cast<double>(step - start + 1) / static_cast<double>(warmup));
}

}  // namespace varscale::losses
