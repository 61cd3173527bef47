#include "tokenizer_training/adversary.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

#include "losses/diff_augment.hpp"
#include "losses/dino_discriminator.hpp"
#include "losses/patch_gan.hpp"
#include "tokenizer_training/set_up.hpp"

namespace varscale::tokenizer_training {

namespace {

enum Sum { kGenerator, kDiscriminator, kReal, kFake, kSums };

losses::DinoVit read_vit(const AdversarialConfig& config, uint64_t seed, const losses::NetworkOptions& options) {
  if (config.dino_weights.empty())
    throw base::UserError(
        "adversarial.discriminator is dino, which needs adversarial.dino_weights, a file of the weights of DINO "
        "ViT-S/16; patch_gan needs none");
  if (config.dino_weights == "made") return losses::DinoVit::hash_made(seed, {}, options);
  return losses::DinoVit(losses::read_weights({config.dino_weights}), {}, options);
}

losses::DiffAugmentConfig augmentation(const AdversarialConfig& config) {
  return {.color = config.augment_colour, .translation = config.augment_translation, .cutout = config.augment_cutout};
}

}  // namespace

Adversary::Adversary(const TokenizerConfig& config, comm::Communicator& world, at::Device device)
    : config_(config.adversarial),
      seed_(config.train.seed),
      batch_(config.train.batch),
      world_(world),
      kind_(config_.loss == "hinge" ? losses::AdversarialKind::kHinge : losses::AdversarialKind::kNonSaturating),
      lecam_(0.99, device) {
  const losses::NetworkOptions options{.device = device,
                                       .compute = compute_dtype(config)};
  augmentation(config_).check();
  if (config_.discriminator == "dino") {
    losses::DinoVit vit = read_vit(config_, seed_, options);
    identity_ = vit.identity();
    discriminator_ = std::make_unique<losses::DinoDiscriminator>(
        std::move(vit),
        losses::DinoDiscriminatorConfig{.image_side = config.model.image_side, .crop_probability = config_.dino_crop},
        options);
  } else {
    discriminator_ = std::make_unique<losses::PatchGan>(
        losses::PatchGanConfig{.image_side = config.model.image_side,
                               .channels = config_.channels,
                               .layers = config_.layers,
                               .groups = config_.groups},
        options);
  }
  parallel_ = parallel::make_parallel({{"discriminator", discriminator_->parameters()}}, world,
                                      {.overlap = config.parallel.overlap});
  discriminator_->initialise(seed_);
  optimizer_.emplace(parallel::owned_weights(*parallel_), optim::AdamWOptions{config_.beta1, config_.beta2, 1e-8});
  const at::TensorOptions on_device = at::TensorOptions(device);
  lecam_sums_2_ = at::zeros({2}, on_device.dtype(at::kFloat));
  sums_4_ = at::zeros({kSums}, on_device.dtype(at::kDouble));
  saved_2_ = at::zeros({2}, at::kDouble);
}

void Adversary::begin_step(int64_t step) {
  step_ = step;
  sums_4_.zero_();
  lecam_sums_2_.zero_();
  last_layers_2_ = Tensor();
  if (!active()) return;
  at::NoGradGuard no_grad;
  discriminator_->advance();
  parallel_->begin_step();
}

double Adversary::weight() const {
  const double ramp = losses::ramp(step_, config_.start_step, config_.warmup_steps);
  return config_.weight * ramp * (config_.adaptive ? ratio_ : 1);
}

Tensor Adversary::seen(const Tensor& image_B3XX, const std::vector<int64_t>& samples, const char* purpose) const {
  const losses::SampleKeys augment{seed_, step_, fmt::format("augment.{}", purpose), samples};
  const losses::SampleKeys view{seed_, step_, fmt::format("view.{}", purpose), samples};
  return discriminator_->view(losses::diff_augment(augmentation(config_), image_B3XX, augment), view);
}

Tensor Adversary::generator_term(const Tensor& image_B3XX, const std::vector<int64_t>& samples, bool counted) const {
  const Tensor logits = discriminator_->logits(seen(image_B3XX, samples, "fake"));
  return losses::generator_loss(kind_, logits, batch_) * (counted ? 1.0 : 0.0);
}

void Adversary::add_last_layer(const Tensor& reconstruction, const Tensor& adversarial) {
  const Tensor both = at::stack({reconstruction, adversarial}).to(at::kFloat);
  last_layers_2_ = last_layers_2_.defined() ? last_layers_2_ + both : both;
}

void Adversary::judge(const Tensor& real_B3XX, const Tensor& fake_B3XX, const std::vector<int64_t>& samples,
                      bool counted, bool last) {
  parallel_->begin_micro(last);
  const double share = counted ? 1 : 0;
  const Tensor real_seen = seen(real_B3XX, samples, "real");
  const Tensor real = discriminator_->logits(real_seen);
  const Tensor fake = discriminator_->logits(seen(fake_B3XX, samples, "fake"));
  Tensor loss = losses::discriminator_loss(kind_, real, fake, batch_);
  if (config_.lecam > 0) loss = loss + lecam_.loss(real, fake, batch_) * config_.lecam;
  if (config_.r1 > 0) {
    auto logits = [this](const Tensor& image) { return discriminator_->logits(image); };
    loss = loss + losses::r1_penalty(logits, real_seen, batch_) * (config_.r1 / 2);
  }
  loss = loss * share;
  loss.backward();
  parallel_->finish_backward();
  at::NoGradGuard no_grad;
  const Tensor logits_2 = losses::LecamMeans::sums(real, fake) * share;
  lecam_sums_2_ += logits_2;
  sums_4_[kDiscriminator] += loss.detach();
  sums_4_.slice(0, kReal, kSums) += logits_2.to(at::kDouble) / static_cast<double>(batch_);
}

void Adversary::update(double lr_factor, bool skip) {
  if (last_layers_2_.defined())
    world_.all_reduce(last_layers_2_, comm::Reduce::kSum, "gradients at the last layer").wait();
  if (active()) {
    const Tensor norm_squared = parallel_->gradient_norm_squared();
    world_.all_reduce(lecam_sums_2_, comm::Reduce::kSum, "logits").wait();
    optim::Guard guard = optim::guard(norm_squared, lecam_sums_2_.sum().to(at::kDouble), config_.clip);
    if (skip) guard.skip.fill_(1);
    gradient_norm_ = std::sqrt(norm_squared.item<double>());
    optimizer_->step(parallel::owned_gradients(*parallel_), config_.lr * lr_factor, config_.weight_decay, guard);
    parallel_->weights_changed();
    if (!skip && std::isfinite(gradient_norm_)) lecam_.update(lecam_sums_2_, batch_);
  }
  if (!last_layers_2_.defined() || skip) return;
  const Tensor norms_2 = last_layers_2_.flatten(1).to(at::kDouble).norm(2, 1).to(at::kCPU);
  const double ratio = losses::adaptive_weight(norms_2[0].item<double>(), norms_2[1].item<double>(),
                                               {.least = 0, .most = config_.adaptive_most});
  if (std::isfinite(ratio)) ratio_ = ratio;
}

nn::NamedTensors Adversary::state() const {
  nn::NamedTensors state;
  auto add = [&](const std::string& prefix, const nn::NamedTensors& tensors) {
    for (const nn::NamedTensor& named : tensors) state.push_back({prefix + named.name, named.tensor.detach()});
  };
  add("discriminator.", discriminator_->parameters());
  add("discriminator.buffer.", discriminator_->buffers());
  add("discriminator.", optimizer_->state());
  add("discriminator.", lecam_.buffers());
  state.push_back({"discriminator.figures", saved_2_});
  return state;
}

void Adversary::note_state() {
  saved_2_[0] = ratio_;
  saved_2_[1] = static_cast<double>(optimizer_->steps_taken());
}

void Adversary::take_state() {
  ratio_ = saved_2_[0].item<double>();
  optimizer_->set_steps_taken(static_cast<int64_t>(saved_2_[1].item<double>()));
  parallel_->weights_changed();
}

}  // namespace varscale::tokenizer_training
