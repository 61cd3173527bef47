// The discriminator of a tokenizer's training: its network, its optimiser, and how hard its term pulls.
//
//   Adversary adversary(config, world, device);
//   adversary.begin_step(step);
//   for each micro-batch, on a leaf that holds the reconstruction:
//     Tensor term = adversary.generator_term(leaf, samples, counted);       // backward to the leaf alone
//     adversary.add_last_layer(grad_reconstruction, grad_adversarial);
//     ... the tokenizer's backward, with adversary.weight() times the term's gradient ...
//     adversary.judge(image, leaf.detach(), samples, counted, last);
//   adversary.update(lr_factor, skip);
//
// Order    All calls on all ranks alike; judge() and update() communicate.
// Layout   Logits depend on one image each, losses are sums over the global count: any division of a batch gives the
//          same update up to the order of additions. The ratio of the gradients at the decoder's last layer is that
//          of the whole batch of the step before, so that no micro-batch needs to wait for the others.
// Source   arXiv 2012.09841 eq. 7 for the ratio, there within one batch.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "losses/adversarial.hpp"
#include "losses/discriminator.hpp"
#include "nn/tensor.hpp"
#include "optim/adamw.hpp"
#include "parallel/parallel.hpp"
#include "tokenizer_training/config.hpp"

namespace varscale::tokenizer_training {

using at::Tensor;

class Adversary {
 public:
  // UserError: settings that do not fit together, a weight file that is missing or of another network.
  Adversary(const TokenizerConfig& config, comm::Communicator& world, at::Device device);

  void begin_step(int64_t step);
  bool active() const noexcept { return step_ >= config_.start_step; }  // in this step
  // Whether this step's gradients at the last layer are wanted: one step before they are first used.
  bool measures() const noexcept { return config_.adaptive && step_ + 1 >= config_.start_step; }
  // What the generator's term is multiplied by in this step.
  double weight() const;

  // Scalar; samples: global sample numbers of the rows of image_B3XX.
  Tensor generator_term(const Tensor& image_B3XX, const std::vector<int64_t>& samples, bool counted) const;
  void note_term(const Tensor& term) { sums_4_.select(0, 0) += term; }
  // Gradients of the two sides with respect to the decoder's last weight, of one micro-batch.
  void add_last_layer(const Tensor& reconstruction, const Tensor& adversarial);
  // The discriminator's loss on one micro-batch, and its backward.
  void judge(const Tensor& real_B3XX, const Tensor& fake_B3XX, const std::vector<int64_t>& samples, bool counted,
             bool last);

  // Sums over this rank's images, to be added up over the ranks: generator's term, discriminator's loss, real and
  // fake logits (means over an image); float64 [4].
  const Tensor& sums() const noexcept { return sums_4_; }
  // One update of the discriminator, at `lr_factor` times its rate, and of the ratio. Nothing of either where `skip`.
  void update(double lr_factor, bool skip);
  double gradient_norm() const noexcept { return gradient_norm_; }  // of the last update, before clipping

  // "dino_vit:..." where a network was loaded, else empty; for records.
  const std::string& identity() const noexcept { return identity_; }
  // Everything that later steps depend on, replicated on all ranks. Call note_state() before saving and
  // take_state() after loading.
  nn::NamedTensors state() const;
  void note_state();
  void take_state();

 private:
  Tensor seen(const Tensor& image_B3XX, const std::vector<int64_t>& samples, const char* purpose) const;

  AdversarialConfig config_;
  uint64_t seed_;
  int64_t batch_;
  comm::Communicator& world_;
  losses::AdversarialKind kind_;
  std::unique_ptr<losses::Discriminator> discriminator_;
  std::string identity_;
  std::unique_ptr<parallel::Parallel> parallel_;
  std::optional<optim::AdamW> optimizer_;
  losses::LecamMeans lecam_;
  Tensor lecam_sums_2_, last_layers_2_, sums_4_;
  Tensor saved_2_;  // ratio, updates taken: float64
  double ratio_ = 0, gradient_norm_ = 0;
  int64_t step_ = -1;
};

}  // namespace varscale::tokenizer_training
