#include "tokenizer_training/trainer.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/random.hpp"
#include "nn/async.hpp"
#include "nn/storage.hpp"
#include "tokenizer_training/set_up.hpp"

namespace varscale::tokenizer_training {

namespace {

constexpr double kUsageDecay = 0.99;
constexpr const char* kCodes = "quantize.embedding.weight";

// Sums over the step's batch, each already divided by its global count.
enum Figure { kL2, kL1, kLpips, kVq, kEntropy, kFigures };

TokenizerConfig checked(TokenizerConfig config) {
  config.check();
  return config;
}

}  // namespace

// What the micro-batches of a step leave behind.
struct TokenizerTrainer::Gathered {
  bool quantise = false;
  Tensor figures_F;                 // float64
  Tensor hits_SV, sums_VC, soft_V;  // of the codes, float32
  // Residuals of the counted micro-batches by scale, and the rows of the batch they belong to.
  struct Residuals {
    int64_t first, count;
    std::vector<Tensor> by_scale;
  };
  std::vector<Residuals> residuals;  // where codes are to be restarted
  bool keep_residuals = false;
};

TokenizerTrainer::TokenizerTrainer(TokenizerConfig config, ImageSource images, comm::Communicator& world)
    : config_(checked(std::move(config))),
      images_(std::move(images)),
      world_(world),
      device_(device_of(config_)),
      share_(config_.train, images_.count, world),
      schedule_({.kind = config_.optimizer.schedule,
                 .steps = config_.train.steps,
                 .warmup_steps = config_.optimizer.warmup_steps,
                 .hold = config_.optimizer.hold,
                 .end = config_.optimizer.end}),
      lpips_(read_lpips(config_)),
      vqvae_(config_.model, leaf_options(config_)) {
  const bool averaged = config_.codebook.update == "ema";
  std::vector<parallel::Unit> units;
  for (nn::NamedTensors& leaves : vqvae_.units()) {
    if (averaged) std::erase_if(leaves, [](const auto& named) { return named.name == kCodes; });
    units.push_back({units.empty() ? "root" : fmt::format("block {}", units.size() - 1), std::move(leaves)});
  }
  parallel_ = parallel::make_parallel(units, world,
                                      {.mode = parallel::mode_named(config_.parallel.mode),
                                       .shards = static_cast<int>(config_.parallel.shards),
                                       .recompute = config_.parallel.recompute,
                                       .overlap = config_.parallel.overlap});
  const tokenizer::InitOptions init{.network = config_.train.init == "public" ? tokenizer::Init::kPublic
                                                                              : tokenizer::Init::kZeroResidual,
                                    .small_codes = config_.train.init_codes == "small",
                                    .seed = config_.train.seed};
  const std::vector<double> fan_ins = vqvae_.fan_ins();
  for (const parallel::Owned& part : parallel_->owned()) {
    const auto& all = vqvae_.parameters();
    const auto found = std::ranges::find(all, part.name, &nn::NamedTensor::name);
    tokenizer::fill_initial(part.name, fan_ins[static_cast<size_t>(found - all.begin())], config_.model.vocabulary, init,
                            part.first_element(), part.weight);
    if (config_.train.average > 0) averages_.push_back(part.weight.clone());
  }
  parallel_->weights_changed();
  optimizer_.emplace(
      parallel::owned_weights(*parallel_),
      optim::AdamWOptions{config_.optimizer.beta1, config_.optimizer.beta2, config_.optimizer.eps});
  if (averaged) {
    const Tensor codes_VC = vqvae_.quantizer().embedding_VC();
    nn::allocate_storage(codes_VC);
    codes_VC.requires_grad_(false);
    tokenizer::fill_initial(kCodes, 1, config_.model.vocabulary, init, 0, codes_VC);
    codebook_.emplace(codes_VC, config_.codebook.decay);
  }
  const at::TensorOptions floats = at::TensorOptions(at::kFloat).device(device_);
  if (config_.codebook.entropy > 0)
    usage_V_ = at::full({config_.model.vocabulary}, 1.0 / static_cast<double>(config_.model.vocabulary), floats);
  window_SV_ = at::zeros_like(vqvae_.hits_SV());
  saved_2_ = at::zeros({2}, at::kDouble);
  if (config_.adversarial.is_on()) adversary_.emplace(config_, world, device_);
  record_ = record_of(config_, images_, lpips_, adversary_);
}

Tensor TokenizerTrainer::load(const Portion& portion) { return nn::to_device(images_.load(portion.images), device_); }

// Residuals as an exact quantiser would leave them: each map is subtracted as it is.
void TokenizerTrainer::start_codebook() {
  at::NoGradGuard no_grad;
  const tokenizer::Quantizer& quantizer = vqvae_.quantizer();
  const int64_t scales = quantizer.config().scales.count(), batch = config_.train.batch;
  const parallel::Share mine = parallel::share_of(batch, world_.rank(), world_.size());
  std::vector<Tensor> rows;
  for (int64_t taken = 0; taken < config_.codebook.kmeans_images; taken += batch) {
    const Portion portion = share_.rows(taken / batch, mine.begin, mine.end);
    parallel_->begin_forward();
    Tensor rest_BCHW = vqvae_.features(load(portion), {}, parallel::block_runner(*parallel_));
    parallel_->end_forward();  // the decoder's weights may be on their way
    for (int64_t k = 0; k < scales; ++k) {
      const Tensor map_BNC = quantizer.residual_codes(k, rest_BCHW).view({mine.count(), -1, config_.model.code_width});
      const Tensor all_BNC = at::zeros({batch, map_BNC.size(1), map_BNC.size(2)}, map_BNC.options());
      all_BNC.slice(0, mine.begin, mine.end).copy_(map_BNC);
      rows.push_back(all_BNC.flatten(0, 1));
      rest_BCHW = rest_BCHW - quantizer.contribution(k, map_BNC);
    }
  }
  Tensor rows_NC = at::cat(rows);
  world_.all_reduce(rows_NC, comm::Reduce::kSum, "rows for k-means").wait();
  const Tensor codes_VC = tokenizer::kmeans(rows_NC.to(at::kCPU), config_.model.vocabulary,
                                            config_.codebook.kmeans_iterations, config_.train.seed)
                              .to(device_);
  // One rank's, since threads may differ.
  world_.broadcast(codes_VC, 0, "codes of k-means").wait();
  if (codebook_) {
    codebook_->start(codes_VC);
    return;
  }
  for (const parallel::Owned& part : parallel_->owned())
    if (part.name == kCodes) part.weight.copy_(codes_VC.slice(0, part.begin, part.end));
  parallel_->weights_changed();
}

// How many scales each image keeps; undefined: all keep all.
Tensor TokenizerTrainer::scales_of(const Portion& portion) const {
  const CodebookConfig& codebook = config_.codebook;
  if (codebook.scale_dropout == 0) return {};
  const int64_t scales = vqvae_.quantizer().config().scales.count();
  std::vector<int64_t> kept;
  for (const int64_t sample : portion.samples) {
    const base::RandomStream draws(config_.train.seed, "tokenizer.scale_dropout", static_cast<uint64_t>(sample));
    const auto fewer = static_cast<uint64_t>(scales - codebook.scale_dropout_from);
    kept.push_back(draws.uniform_double(1) < codebook.scale_dropout
                       ? codebook.scale_dropout_from + static_cast<int64_t>(draws.below(0, fewer))
                       : scales);
  }
  return at::tensor(kept, at::kLong).to(device_);
}

// Forward, losses and backward of one micro-batch.
void TokenizerTrainer::accumulate(const Portion& portion, bool last, Gathered& gathered) {
  const double share =
      portion.counted ? static_cast<double>(portion.count()) / static_cast<double>(config_.train.batch) : 0;
  const Tensor image_B3XX = load(portion);
  parallel_->begin_micro(last);
  const Vqvae::TrainOutput out =
      vqvae_.forward_train(image_B3XX, {.quantise = gathered.quantise,
                                        .scales_B = gathered.quantise ? scales_of(portion) : Tensor(),
                                        .usage_V = gathered.quantise ? usage_V_ : Tensor(),
                                        .entropy_temperature = config_.codebook.entropy_temperature,
                                        .run_block = parallel::block_runner(*parallel_)});
  // What is computed from the image alone is differentiated to the image alone, once a term.
  const Tensor image_leaf = out.reconstruction_B3XX.detach().requires_grad_();
  const Tensor l2 = at::mse_loss(image_leaf, image_B3XX), l1 = at::l1_loss(image_leaf, image_B3XX);
  Tensor of_image = l2 * config_.loss.l2 + l1 * config_.loss.l1, lpips;
  if (lpips_) {
    lpips = lpips_->distances(image_leaf, image_B3XX).mean();
    of_image = of_image + lpips * config_.loss.lpips;
  }
  Tensor gradient = torch::autograd::grad({of_image * share}, {image_leaf}).at(0);
  if (adversary_ && (adversary_->active() || adversary_->measures())) {
    const Tensor term = adversary_->generator_term(image_leaf, portion.samples, portion.counted);
    const Tensor pull = torch::autograd::grad({term}, {image_leaf}).at(0);
    if (adversary_->measures()) {
      const Tensor& last_weight = vqvae_.decoder().last_weight();
      auto at_last = [&](const Tensor& of) {
        return torch::autograd::grad({out.reconstruction_B3XX}, {last_weight}, {of}, /*retain_graph=*/true).at(0);
      };
      adversary_->add_last_layer(at_last(gradient), at_last(pull));
    }
    if (adversary_->active()) {
      gradient = gradient + pull * adversary_->weight();
      adversary_->note_term(term.detach());
    }
  }
  Tensor inside = out.vq_loss * config_.loss.vq;
  if (out.entropy_loss.defined()) inside = inside + out.entropy_loss * config_.codebook.entropy;
  // Parameters of the quantiser that this pass does not need have a gradient of zero.
  for (const nn::NamedTensor& named : vqvae_.quantizer().parameters())
    if (named.tensor.requires_grad()) inside = inside + named.tensor.sum() * 0.0;
  torch::autograd::backward({out.reconstruction_B3XX, inside * share}, {gradient, Tensor()});
  parallel_->finish_backward();
  if (adversary_ && adversary_->active())
    adversary_->judge(image_B3XX, image_leaf.detach(), portion.samples, portion.counted, last);
  if (!portion.counted) return;

  at::NoGradGuard no_grad;
  auto add_figure = [&](Figure figure, const Tensor& mean) {
    if (mean.defined()) gathered.figures_F[figure] += mean.detach().to(at::kDouble) * share;
  };
  add_figure(kL2, l2), add_figure(kL1, l1), add_figure(kLpips, lpips), add_figure(kVq, out.vq_loss);
  add_figure(kEntropy, out.entropy_loss);
  if (!gathered.quantise) return;
  gathered.hits_SV += out.hits_SV;
  if (codebook_)
    gathered.sums_VC += tokenizer::code_sums(out.residuals, out.tokens, out.counted, config_.model.vocabulary);
  if (usage_V_.defined()) gathered.soft_V += out.soft_use_V;
  if (gathered.keep_residuals) gathered.residuals.push_back({portion.first, portion.count(), out.residuals});
}

// The rows of the whole batch's residuals that were chosen, on every rank.
Tensor TokenizerTrainer::rows_of(const Gathered& gathered, const std::vector<tokenizer::RowChoice>& choices) {
  const Tensor rows_nC =
      at::zeros({static_cast<int64_t>(choices.size()), config_.model.code_width}, vqvae_.hits_SV().options());
  for (size_t i = 0; i < choices.size(); ++i) {
    const int64_t places = vqvae_.quantizer().config().scales.tokens_at(choices[i].scale);
    const int64_t image = choices[i].row / places;
    for (const Gathered::Residuals& part : gathered.residuals) {
      if (image < part.first || image >= part.first + part.count) continue;
      rows_nC[static_cast<int64_t>(i)].copy_(
          part.by_scale[static_cast<size_t>(choices[i].scale)][choices[i].row - part.first * places]);
    }
  }
  world_.all_reduce(rows_nC, comm::Reduce::kSum, "rows for codes").wait();
  return rows_nC;
}

void TokenizerTrainer::update_codes(const Gathered& gathered, int64_t step, records::TokenizerStepRow& row) {
  const CodebookConfig& codebook = config_.codebook;
  tokenizer::update_hits(vqvae_.hits_SV(), gathered.hits_SV, step - codebook.start_step);
  window_SV_ += gathered.hits_SV;
  const Tensor hits_V = gathered.hits_SV.sum(0);
  row.codes_used = hits_V.gt(0).sum().item<int64_t>();
  if (usage_V_.defined()) {
    const Tensor mean_V = gathered.soft_V / gathered.soft_V.sum().clamp_min(1e-12);
    usage_V_.mul_(kUsageDecay).add_(mean_V, 1 - kUsageDecay);
  }
  if (!codebook_) return;
  codebook_->update(hits_V, gathered.sums_VC);
  if (!gathered.keep_residuals) return;
  std::vector<int64_t> rows;
  const scaling::ScaleList& scales = vqvae_.quantizer().config().scales;
  for (int64_t k = 0; k < scales.count(); ++k) rows.push_back(config_.train.batch * scales.tokens_at(k));
  const auto choices = codebook_->to_restart(codebook.restart_below, rows, config_.train.seed, step);
  if (!choices.empty()) codebook_->restart(rows_of(gathered, choices));
  row.restarted = static_cast<int64_t>(choices.size());
}

records::TokenizerStepRow TokenizerTrainer::step() {
  VARSCALE_CHECK(!done(), "the training of {} steps is over", config_.train.steps);
  const auto begin = std::chrono::steady_clock::now();
  const int64_t step = steps_done_;
  const CodebookConfig& codebook = config_.codebook;
  if (step == codebook.start_step && codebook.kmeans_images > 0) start_codebook();

  Gathered gathered;
  gathered.quantise = step >= codebook.start_step;
  gathered.figures_F = at::zeros({kFigures}, at::TensorOptions(at::kDouble).device(device_));
  gathered.hits_SV = at::zeros_like(vqvae_.hits_SV());
  if (codebook_) gathered.sums_VC = at::zeros({config_.model.vocabulary, config_.model.code_width}, gathered.hits_SV.options());
  if (usage_V_.defined()) gathered.soft_V = at::zeros_like(usage_V_);
  const bool early = static_cast<double>(step) < codebook.restart_until * static_cast<double>(config_.train.steps);
  gathered.keep_residuals = codebook_ && gathered.quantise && codebook.restart_every > 0 && early &&
                            (step - codebook.start_step + 1) % codebook.restart_every == 0;

  parallel_->begin_step();
  if (adversary_) adversary_->begin_step(step);
  for (int64_t pass = 0; pass < share_.passes(); ++pass) {
    const bool last = pass + 1 == share_.passes();
    const Portion portion = share_.of(step, pass);
    accumulate(portion, last, gathered);
    if (images_.prepare && (!last || step + 1 < config_.train.steps))
      images_.prepare(last ? share_.of(step + 1, 0).images : share_.of(step, pass + 1).images);
  }

  at::NoGradGuard no_grad;
  // All figures of the step in one call, those of the codes in another.
  Tensor figures = gathered.figures_F;
  if (adversary_) figures = at::cat({figures, adversary_->sums()});
  world_.all_reduce(figures, comm::Reduce::kSum, "losses").wait();
  if (gathered.quantise) {
    std::vector<Tensor> parts{gathered.hits_SV.flatten()};
    if (codebook_) parts.push_back(gathered.sums_VC.flatten());
    if (usage_V_.defined()) parts.push_back(gathered.soft_V);
    const Tensor all = at::cat(parts);
    world_.all_reduce(all, comm::Reduce::kSum, "use of the codes").wait();
    int64_t at = 0;
    auto take = [&](Tensor& tensor) {
      if (!tensor.defined()) return;
      tensor = all.slice(0, at, at + tensor.numel()).view(tensor.sizes());
      at += tensor.numel();
    };
    take(gathered.hits_SV), take(gathered.sums_VC), take(gathered.soft_V);
  }
  const Tensor norm_squared = parallel_->gradient_norm_squared();
  const Tensor of_terms = at::tensor({config_.loss.l2, config_.loss.l1, config_.loss.lpips, config_.loss.vq, codebook.entropy},
                                     at::kDouble).to(device_);
  const Tensor loss = figures.slice(0, 0, kFigures).dot(of_terms);
  const optim::Guard guard = optim::guard(norm_squared, loss, config_.optimizer.clip);
  records::TokenizerStepRow row{};
  row.step = step + 1;
  row.images = static_cast<double>(step + 1) * static_cast<double>(config_.train.batch);
  row.lr = config_.optimizer.lr * schedule_.lr_factor(step);
  optimizer_->step(parallel::owned_gradients(*parallel_), row.lr, config_.optimizer.weight_decay, guard);
  parallel_->weights_changed();

  const Tensor host = at::cat({figures, loss.view({1}), norm_squared.view({1}), guard.skip.to(at::kDouble).view({1})}).to(at::kCPU);
  const auto* figure = host.const_data_ptr<double>();
  row.l2 = figure[kL2], row.l1 = figure[kL1], row.lpips = figure[kLpips], row.vq = figure[kVq];
  row.entropy = figure[kEntropy];
  const double* end = figure + host.numel() - 3;
  row.loss = end[0];
  row.grad_norm = std::sqrt(end[1]);
  const bool skip = end[2] != 0;
  skipped_in_a_row_ = skip ? skipped_in_a_row_ + 1 : 0;
  if (adversary_) {
    const double* sums = figure + kFigures;
    row.generator = sums[0], row.discriminator = sums[1], row.real_logit = sums[2], row.fake_logit = sums[3];
    row.adversarial_weight = adversary_->weight();
    adversary_->update(schedule_.lr_factor(step), skip);
    row.discriminator_grad_norm = adversary_->active() ? adversary_->gradient_norm() : 0;
  }
  if (gathered.quantise && !skip) update_codes(gathered, step, row);
  // Early weights are forgotten faster, so that short trainings are not held back by their start.
  const auto age = static_cast<double>(step);
  const double decay = std::min(config_.train.average, (1 + age) / (10 + age));
  for (size_t i = 0; i < averages_.size(); ++i) averages_[i].lerp_(parallel_->owned()[i].weight, 1 - decay);
  ++steps_done_;
  row.step_s = base::seconds_since(begin);
  return row;
}

std::vector<records::CodeRow> TokenizerTrainer::take_code_rows() {
  std::vector<records::CodeRow> rows;
  const Tensor hits_SV = window_SV_.to(at::kCPU);
  for (int64_t k = 0; k < hits_SV.size(0); ++k) {
    const tokenizer::CodebookUse use = tokenizer::codebook_use(hits_SV[k]);
    rows.push_back({.step = steps_done_,
                    .scale = k,
                    .tokens = static_cast<int64_t>(hits_SV[k].sum(at::kDouble).item<double>()),
                    .used = use.used,
                    .dead = use.codes - use.used,
                    .perplexity = use.perplexity});
  }
  window_SV_.zero_();
  return rows;
}

Vqvae TokenizerTrainer::finished() const {
  at::NoGradGuard no_grad;
  Vqvae result(config_.model);
  const nn::NamedTensors target = result.state();
  auto tensor_named = [&](const std::string& name) {
    return std::ranges::find(target, name, &nn::NamedTensor::name)->tensor;
  };
  const std::vector<parallel::Owned>& owned = parallel_->owned();
  for (size_t i = 0; i < owned.size(); ++i) {
    const parallel::Owned& part = owned[i];
    const Tensor& mine = averages_.empty() ? part.weight : averages_[i];
    Tensor whole = mine;
    if (config_.parallel.mode != "replicated") {
      // Each row from one rank that owns it.
      whole = at::zeros(part.shape, mine.options());
      if (parallel_->saves(i) && part.end > part.begin) whole.slice(part.axis, part.begin, part.end).copy_(mine);
      world_.all_reduce(whole, comm::Reduce::kSum, "the finished tokenizer").wait();
    }
    tensor_named(part.name).copy_(whole);
  }
  if (codebook_) tensor_named(kCodes).copy_(vqvae_.quantizer().embedding_VC());
  result.hits_SV().copy_(vqvae_.hits_SV());
  return result;
}

nn::NamedTensors TokenizerTrainer::replicated_state() {
  nn::NamedTensors state{{"hits", vqvae_.hits_SV()}, {"window", window_SV_}, {"figures", saved_2_}};
  if (usage_V_.defined()) state.push_back({"usage", usage_V_});
  if (codebook_) {
    state.push_back({"codes", vqvae_.quantizer().embedding_VC()});
    for (const nn::NamedTensor& named : codebook_->state()) state.push_back(named);
  }
  if (adversary_)
    for (const nn::NamedTensor& named : adversary_->state()) state.push_back(named);
  return state;
}

std::vector<checkpoint::Piece> TokenizerTrainer::pieces(bool to_save) {
  if (to_save) {
    saved_2_[0] = static_cast<double>(optimizer_->steps_taken());
    saved_2_[1] = static_cast<double>(skipped_in_a_row_);
    if (adversary_) adversary_->note_state();
  }
  std::vector<checkpoint::Piece> pieces;
  const nn::NamedTensors moments = optimizer_->state();
  const std::vector<parallel::Owned>& owned = parallel_->owned();
  for (size_t i = 0; i < owned.size(); ++i) {
    if (to_save && !parallel_->saves(i)) continue;
    const parallel::Owned& part = owned[i];
    auto add = [&](const std::string& name, const Tensor& tensor) {
      pieces.push_back({name, part.shape, part.axis, part.begin, part.end, tensor});
    };
    add("param." + part.name, part.weight);
    add(moments[2 * i].name, moments[2 * i].tensor);
    add(moments[2 * i + 1].name, moments[2 * i + 1].tensor);
    if (!averages_.empty()) add("average." + part.name, averages_[i]);
  }
  if (to_save && world_.rank() != 0) return pieces;
  for (checkpoint::Piece& piece : checkpoint::whole_pieces("replicated.", replicated_state()))
    pieces.push_back(std::move(piece));
  return pieces;
}

void TokenizerTrainer::loaded(int64_t steps_done) {
  steps_done_ = steps_done;
  optimizer_->set_steps_taken(static_cast<int64_t>(saved_2_[0].item<double>()));
  skipped_in_a_row_ = static_cast<int64_t>(saved_2_[1].item<double>());
  if (adversary_) adversary_->take_state();
  parallel_->weights_changed();
}

}  // namespace varscale::tokenizer_training
