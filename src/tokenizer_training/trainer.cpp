#include "tokenizer/train.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::tokenizer {

using base::UserError;

namespace {

constexpr const char* kStateFormat = "varscale.tokenizer_training.1";

nn::NamedTensors trained_parameters(const Vqvae& vqvae, const CodebookConfig& codebook) {
  nn::NamedTensors trained;
  for (const nn::NamedTensor& named : vqvae.parameters()) {
    if (codebook.update == "ema" && named.name == "quantize.embedding.weight") continue;
    trained.push_back({named.name, named.tensor.requires_grad_()});
  }
  return trained;
}

Vqvae initialised(const TokenizerConfig& config) {
  Vqvae vqvae(config.model);
  vqvae.initialise(config.train.init == "public" ? Init::kPublic : Init::kZeroResidual,
                   config.train.seed);
  return vqvae;
}

}  // namespace

Tensor reconstruction_loss(const LossConfig& loss, const Tensor& reconstruction_B3XX,
                           const Tensor& image_B3XX) {
  Tensor total = at::mse_loss(reconstruction_B3XX, image_B3XX) * loss.l2;
  if (loss.l1 > 0) total = total + at::l1_loss(reconstruction_B3XX, image_B3XX) * loss.l1;
  return total;
}

TokenizerTrainer::TokenizerTrainer(TokenizerConfig config, ImageSource images)
    : config_(std::move(config)),
      images_(std::move(images)),
      vqvae_(initialised(config_)),
      trained_(trained_parameters(vqvae_, config_.codebook)),
      optimizer_(trained_,
                 {config_.optimizer.beta1, config_.optimizer.beta2, config_.optimizer.eps}),
      schedule_({.kind = "wsd",
                 .steps = config_.train.steps,
                 .warmup_steps = config_.optimizer.warmup_steps,
                 .hold = config_.optimizer.hold,
                 .end = config_.optimizer.end}),
      codebook_(vqvae_.quantizer().embedding_VC(), config_.codebook.decay) {
  if (images_.count < 1) throw UserError("there are no images to train the tokenizer on");
  if (config_.train.images > images_.count) {
    throw UserError("train.images is {}, but there are only {} images", config_.train.images,
                    images_.count);
  }
  if (config_.train.images > 0 && config_.train.images < images_.count) {
    const base::Permutation draw(static_cast<uint64_t>(images_.count), config_.train.seed,
                                 "tokenizer.images");
    subset_.emplace();
    for (int64_t i = 0; i < config_.train.images; ++i) {
      subset_->push_back(static_cast<int64_t>(draw(static_cast<uint64_t>(i))));
    }
  }
  if (config_.train.average > 0) {
    for (const nn::NamedTensor& named : trained_)
      averages_.push_back(named.tensor.detach().clone());
  }
}

std::vector<int64_t> TokenizerTrainer::batch_numbers(int64_t step) const {
  const int64_t count = subset_ ? static_cast<int64_t>(subset_->size()) : images_.count;
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < config_.train.batch; ++i) {
    const int64_t place = step * config_.train.batch + i;
    const base::Permutation order(static_cast<uint64_t>(count), config_.train.seed,
                                  "tokenizer.epoch", static_cast<uint64_t>(place / count));
    const auto number = static_cast<int64_t>(order(static_cast<uint64_t>(place % count)));
    numbers.push_back(subset_ ? (*subset_)[number] : number);
  }
  return numbers;
}

void TokenizerTrainer::start_codebook() {
  at::NoGradGuard no_grad;
  // Residuals as an exact quantiser would leave them: each map is subtracted as it is.
  const Quantizer& quantizer = vqvae_.quantizer();
  const int64_t scales = quantizer.config().scales.count(), batch = config_.train.batch;
  std::vector<Tensor> rows;
  for (int64_t taken = 0; taken < config_.codebook.kmeans_images; taken += batch) {
    Tensor rest_BCHW = vqvae_.features(images_.batch(batch_numbers(taken / batch)));
    for (int64_t k = 0; k < scales; ++k) {
      rows.push_back(quantizer.residual_codes(k, rest_BCHW));
      const Tensor map_BNC = rows.back().view({rest_BCHW.size(0), -1, rows.back().size(1)});
      rest_BCHW = rest_BCHW - quantizer.contribution(k, map_BNC);
    }
  }
  codebook_.start(kmeans(at::cat(rows), config_.model.vocabulary,
                         config_.codebook.kmeans_iterations, config_.train.seed));
}

TokenizerStep TokenizerTrainer::step() {
  VARSCALE_CHECK(!done(), "the training of {} steps is over", config_.train.steps);
  const int64_t step = steps_done_;
  const bool quantise = step >= config_.codebook.start_step;
  const bool averaged = config_.codebook.update == "ema";
  if (step == config_.codebook.start_step && config_.codebook.kmeans_images > 0) start_codebook();

  const Tensor image_B3XX = images_.batch(batch_numbers(step));
  const Vqvae::TrainOutput out = vqvae_.forward_train(image_B3XX, quantise);
  const Tensor loss = reconstruction_loss(config_.loss, out.reconstruction_B3XX, image_B3XX) +
                      out.vq_loss * config_.loss.vq;
  std::vector<Tensor> leaves, gradients;
  for (const nn::NamedTensor& named : trained_) leaves.push_back(named.tensor);
  gradients = torch::autograd::grad({loss}, leaves, {}, std::nullopt, false, /*allow_unused=*/true);
  for (size_t i = 0; i < leaves.size(); ++i) {
    // The quantiser's parameters have none as long as it is not used.
    gradients[i] = gradients[i].defined() ? gradients[i].contiguous() : at::zeros_like(leaves[i]);
  }

  TokenizerStep facts;
  facts.step = step;
  facts.lr = config_.optimizer.lr * schedule_.lr_factor(step);
  facts.grad_norm = optim::gradient_norm(gradients);
  optimizer_.step(gradients, facts.lr, config_.optimizer.weight_decay,
                  optim::clip_factor(facts.grad_norm, config_.optimizer.clip));
  at::NoGradGuard no_grad;
  if (quantise) {
    update_hits(vqvae_.hits_SV(), out.hits_SV, step - config_.codebook.start_step);
    facts.codes_used = out.hits_SV.sum(0).gt(0).sum().item<int64_t>();
    if (averaged) codebook_.update(out.residuals, out.tokens);
    const int64_t every = config_.codebook.restart_every;
    const bool early = static_cast<double>(step) <
                       config_.codebook.restart_until * static_cast<double>(config_.train.steps);
    if (averaged && every > 0 && early && (step - config_.codebook.start_step + 1) % every == 0) {
      facts.restarted = codebook_.restart(out.residuals, config_.codebook.restart_below,
                                          config_.train.seed, step);
    }
  }
  if (!averages_.empty()) {
    // Early weights are forgotten faster, so that short trainings are not held back by their start.
    const auto age = static_cast<double>(step);
    const double decay = std::min(config_.train.average, (1 + age) / (10 + age));
    for (size_t i = 0; i < leaves.size(); ++i) averages_[i].lerp_(leaves[i].detach(), 1 - decay);
  }
  facts.loss = loss.item<double>();
  facts.mse = at::mse_loss(out.reconstruction_B3XX, image_B3XX).item<double>();
  facts.vq_loss = out.vq_loss.item<double>();
  ++steps_done_;
  return facts;
}

Vqvae TokenizerTrainer::finished() const {
  at::NoGradGuard no_grad;
  Vqvae result(config_.model);
  const nn::NamedTensors from = vqvae_.state(), to = result.state();
  for (size_t i = 0; i < from.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  for (size_t i = 0; i < averages_.size(); ++i) {
    const auto target = std::find_if(to.begin(), to.end(),
                                     [&](const auto& t) { return t.name == trained_[i].name; });
    target->tensor.copy_(averages_[i]);
  }
  return result;
}

std::string TokenizerTrainer::training_record() const {
  nlohmann::ordered_json record = base::dump_config(config_, /*identity_only=*/true);
  record["images"] = {{"count", images_.count}, {"fingerprint", images_.fingerprint}};
  return record.dump();
}

nn::NamedTensors TokenizerTrainer::state() const {
  nn::NamedTensors state = vqvae_.state();
  for (const nn::NamedTensor& moment : optimizer_.state()) state.push_back(moment);
  for (const nn::NamedTensor& part : codebook_.state()) state.push_back(part);
  for (size_t i = 0; i < averages_.size(); ++i)
    state.push_back({"average." + trained_[i].name, averages_[i]});
  return state;
}

void TokenizerTrainer::save_state(const std::filesystem::path& path) const {
  nn::save_tensors(path, state(),
                   {{"format", kStateFormat},
                    {"record", training_record()},
                    {"steps_done", std::to_string(steps_done_)}});
}

void TokenizerTrainer::load_state(const std::filesystem::path& path) {
  const base::SafetensorsFile file(path);
  auto metadata = [&](const char* key) {
    const auto entry = file.metadata().find(key);
    return entry == file.metadata().end() ? std::string() : entry->second;
  };
  if (metadata("format") != kStateFormat) {
    throw UserError("{}: not the state of a tokenizer's training", path.string());
  }
  if (metadata("record") != training_record()) {
    throw UserError(
        "{}: the state of another training (settings or images differ); remove it, or write to "
        "another --out",
        path.string());
  }
  nn::load_tensors(file, state());
  steps_done_ = std::stoll(metadata("steps_done"));
  optimizer_.set_steps_taken(steps_done_);
}

}  // namespace varscale::tokenizer
