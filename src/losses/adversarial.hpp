// The losses between a generator (the tokenizer's decoder) and a discriminator, and what keeps them in balance.
//
//   Tensor d = discriminator_loss(kind, D.logits(real), D.logits(fake.detach()), global_batch);
//   Tensor g = generator_loss(kind, D.logits(fake), global_batch);
//   double w = ramp(step, start, warmup) * adaptive_weight(reconstruction_norm, generator_norm, {0, 1e4});
//
// Layout   An image's logits are averaged first, then summed over the images here and divided by `count`, the
//          images of the whole step: the values of ranks and micro-batches add up to the step's, whatever the
//          division. Give the sum over ranks, not the mean.
// Legend   B batch here; logits [B, ...].
// Source   hinge: arXiv 1705.02894; non-saturating: arXiv 1406.2661; adaptive weight: arXiv 2012.09841.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "nn/tensor.hpp"

namespace varscale::losses {

using at::Tensor;

enum class AdversarialKind {
  kHinge,          // discriminator relu(1 - real) + relu(1 + fake), generator -fake
  kNonSaturating,  // discriminator softplus(-real) + softplus(fake), generator softplus(-fake)
};

// Mean of each image's logits: [B], float32 at least.
Tensor per_image(const Tensor& logits);

// Scalars; real and fake may be of different numbers of images.
Tensor discriminator_loss(AdversarialKind kind, const Tensor& real_logits, const Tensor& fake_logits, int64_t count);
Tensor generator_loss(AdversarialKind kind, const Tensor& fake_logits, int64_t count);

// LeCAM: keeps the logits of real images near the running mean of the fakes' and the other way round, which
// helps where images are few.
//
//   Tensor sums_2 = LecamMeans::sums(real_logits, fake_logits);   // add up over micro-batches and ranks
//   loss = loss + weight * means.loss(real_logits, fake_logits, count);
//   means.update(sums_2, count);                                  // once a step
//
// Source   arXiv 2104.03310; one-sided as in the public code (google/lecam-gan): a logit that has
//          already crossed the other side's mean is left alone.
class LecamMeans {
 public:
  explicit LecamMeans(double decay = 0.99, at::Device device = at::kCPU);

  // Sums over the images here of their mean logits: [2] float32, real and fake; no gradient.
  static Tensor sums(const Tensor& real_logits, const Tensor& fake_logits);
  // mean relu(real - mean_fake)^2 + mean relu(mean_real - fake)^2 as the losses above; 0 before update().
  Tensor loss(const Tensor& real_logits, const Tensor& fake_logits, int64_t count) const;
  void update(const Tensor& sums_2, int64_t count);
  // [2] float32, real and fake; the mean is over the steps so far, without a pull towards zero at the start.
  Tensor means() const;
  // The state, to be saved: lecam.state [3].
  nn::NamedTensors buffers() const { return {{"lecam.state", state_3_}}; }

 private:
  double decay_;
  Tensor state_3_;  // decayed sums of real and fake means and of their weights
};

// R1 penalty: sum over the images of |d (mean logit) / d image|^2, over count. Differentiable in the
// discriminator's parameters; no gradient reaches `real`. The usual factor gamma / 2 is the caller's.
// `logits` is the discriminator alone. Source: arXiv 1801.04406.
Tensor r1_penalty(const std::function<Tensor(const Tensor& image_B3XX)>& logits, const Tensor& real_B3XX,
                  int64_t count);

struct WeightBounds {
  double least = 0, most = 1e4;
};
// What makes the generator's term pull as hard as the reconstruction terms at the decoder's last layer:
// reconstruction / (generator + 1e-4), within the bounds. The norms are of the gradients of the whole step.
// Not a number where a norm is not.
double adaptive_weight(double reconstruction_norm, double generator_norm, WeightBounds bounds = {});

// Share of a term's weight at a step: 0 before `start`, then 1/warmup, 2/warmup, ... 1; without warm-up 1 at once.
double ramp(int64_t step, int64_t start, int64_t warmup);

}  // namespace varscale::losses
