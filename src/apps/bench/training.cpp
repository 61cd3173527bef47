#include "apps/bench/training.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>

#include "base/error.hpp"
#include "nn/async.hpp"
#include "nn/attention_rows.hpp"
#include "nn/device.hpp"
#include "nn/functional.hpp"
#include "scaling/count.hpp"
#include "train/set_up.hpp"
#include "train/validate.hpp"

namespace varscale::bench {

using base::UserError;

void TrainingOptions::add_to(CLI::App& command) {
  command.add_option("--depth", depth, "depth of the model")->check(CLI::PositiveNumber);
  command.add_option("--batch", batch, "images a step over all ranks")->check(CLI::PositiveNumber);
  command.add_option("--scales", scales, "sides of the token maps")->delimiter(',');
  command.add_option("--vocabulary", vocabulary, "codes")->check(CLI::PositiveNumber);
  precision.add_to(command);
  command.add_option("--mode", mode, "replicated, zero2, zero3 or hybrid")
      ->check(CLI::IsMember({"replicated", "zero2", "zero3", "hybrid"}));
  command.add_option("--shards", shards, "hybrid: ranks of one group");
  command.add_option("--recompute", recompute, "what backward computes again: none, selective (inputs of linear layers) or full (blocks)")
      ->check(CLI::IsMember({"none", "selective", "full"}));
  add_device(command, device);
}

scaling::VarShape TrainingOptions::shape() const {
  return scaling::VarShape::from_depth(depth, {vocabulary, code_width, scaling::ScaleList(scales)}, classes);
}

scaling::MemoryEstimate TrainingOptions::memory(int ranks) const {
  using scaling::Holding;
  scaling::MemoryOptions memory{
      .micro_batch = (batch + ranks - 1) / ranks,
      .precision = precision.name == "bf16" ? scaling::Precision::kBf16 : scaling::Precision::kFp32,
      .holding = mode == "replicated" ? Holding::kReplicated : mode == "zero2" ? Holding::kZero2 : Holding::kZero3,
      .recompute = scaling::recompute_named(recompute),
      .on_gpu = device == "cuda",
      .softmax_kept = !nn::has_bf16_dot_products()};
  if (mode != "replicated") memory.shards = mode == "hybrid" ? shards : ranks;
  return scaling::estimate_memory(shape(), memory);
}

nlohmann::ordered_json TrainingOptions::head(const std::string& what, const comm::Communicator& ranks) const {
  return {{"what", what},
          {"depth", depth},
          {"batch", batch},
          {"tokens_per_image", scaling::ScaleList(scales).tokens()},
          {"precision", precision.name},
          {"mode", mode},
          {"device", device},
          {"recompute", recompute},
          {"ranks", ranks.size()},
          {"threads_a_rank", at::get_num_threads()}};
}

Training::Training(const TrainingOptions& options, const Place& place, bool overlap)
    : options_(options),
      device_(place.device()),
      shape_(options.shape()),
      model_(shape_, {.device = device_, .weights = options.precision.type(), .allocate = false}) {
  comm::Communicator& ranks = place.ranks();
  if (options.mode == "hybrid" && (options.shards < 1 || ranks.size() % options.shards != 0))
    throw UserError("--shards {}: expected a divisor of the {} ranks", options.shards, ranks.size());
  if (options.batch < ranks.size())
    throw UserError("--batch {}: expected at least one image for each of the {} ranks", options.batch, ranks.size());
  parallel_ = parallel::make_parallel(train::units_of(model_), ranks,
                                      {.mode = parallel::mode_named(options.mode),
                                       .shards = options.shards,
                                       .recompute = options.recompute == "full",
                                       .overlap = overlap});
  for (const parallel::Owned& part : parallel_->owned())
    models::fill_initial(part.name, shape_, {.seed = 1}, part.first_element(), part.weight);
  parallel_->weights_changed();
  optimizer_ = std::make_unique<optim::AdamW>(parallel::owned_weights(*parallel_), optim::AdamWOptions{});
  const parallel::Share share = parallel::share_of(options.batch, ranks.rank(), ranks.size());
  rows_ = share.count();
  const int64_t L = shape_.tokens.scales.tokens();
  labels_B_ = at::randint(0, options.classes, {rows_}, at::kLong).to(device_);
  teacher_BLE_ = at::randn({rows_, L - 1, options.code_width}, at::TensorOptions(at::kFloat)).to(device_);
  targets_N_ = at::randint(0, options.vocabulary, {rows_ * L}, at::kLong).to(device_);
  for (int64_t i = 0; i < rows_; ++i) ids_.push_back(share.begin + i);
}

at::Tensor Training::drop_path_factors() const {
  return nn::to_device(models::drop_path_factors(shape_, 1, steps_, ids_), device_);
}

at::Tensor Training::loss_of(const at::Tensor& drop_path_SB) {
  parallel_->begin_step();
  parallel_->begin_micro(true);
  const at::Tensor logits_BLV = model_.forward(labels_B_, teacher_BLE_,
                                               {.compute = options_.precision.type(),
                                                .drop_path_SB = drop_path_SB,
                                                .recompute_inputs = options_.recompute == "selective",
                                                .run_block = parallel::block_runner(*parallel_)});
  const nn::TokenScores scores = nn::score_and_consume(logits_BLV.flatten(0, 1), targets_N_);
  return scores.loss_N.sum() / tokens();
}

void Training::update(const at::Tensor& loss, const auto& lr) {
  loss.backward();
  parallel_->finish_backward();
  const at::Tensor norm_squared = parallel_->gradient_norm_squared();
  optimizer_->step(parallel::owned_gradients(*parallel_), lr, 0.05,
                   optim::guard(norm_squared, loss.detach().to(at::kDouble), 2.0));
  parallel_->weights_changed();
}

void Training::backward(const at::Tensor& loss) {
  update(loss, kRate);
  ++steps_;
}

void Training::step() {
  if (!recorded_) return backward(forward());
  (*recorded_)({labels_B_, drop_path_factors()}, kRate);
  ++steps_;
}

void Training::record() {
  recorded_.emplace(nn::make_graph(device_), [this](const std::vector<at::Tensor>& inputs, const at::Tensor& lr) {
    const at::Tensor loss = loss_of(inputs.at(1));
    update(loss, lr);
    return loss.detach();
  });
}

double Training::flops() const { return scaling::training_flops(shape_, static_cast<double>(options_.batch)); }

double Training::tokens() const { return static_cast<double>(options_.batch * shape_.tokens.scales.tokens()); }

double Training::take_wait_s() {
  double seconds = 0;
  for (const nn::Interval& wait : parallel_->take_waits()) seconds += wait.seconds();
  return seconds;
}

}  // namespace varscale::bench
