#include "sweep/identity.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <sstream>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "scaling/count.hpp"

namespace varscale::sweep {

TokenFacts facts_of(const records::TokenFile& file) {
  const records::TokenFileInfo& info = file.info();
  TokenFacts facts;
  facts.train_images = info.train_images;
  facts.validation_images = info.validation_images;
  facts.crops = info.crops;
  facts.classes = info.classes;
  facts.space = {info.vocabulary, file.quantizer().code_width, scaling::ScaleList(info.scales)};
  facts.fingerprint = file.fingerprint();
  facts.tokenizer = info.tokenizer_fingerprint;
  return facts;
}

RunConfig resolve(RunConfig config, const TokenFacts& tokens) {
  const scaling::VarShape shape = shape_of(config, tokens);
  ModelConfig& model = config.model;
  model.width = shape.width;
  model.heads = shape.heads;
  model.drop_path = shape.drop_path;
  // Given weights are not drawn: two runs that differ in how they would be are one run.
  if (!model.init_fingerprint.empty()) model.init_std = model.adaln_gamma_init = 0;
  if (model.init_std < 0) model.init_std = std::sqrt(1 / (3 * static_cast<double>(model.width)));

  if (config.optimizer.weight_decay_end < 0)
    config.optimizer.weight_decay_end = config.optimizer.weight_decay;

  // Parts of a schedule that its kind does not have: two runs that differ there only are one run.
  ScheduleConfig& schedule = config.schedule;
  if (schedule.kind == "cosine" || schedule.kind == "constant") schedule.hold = 0;
  if (schedule.kind == "constant") schedule.end = 1;

  TrainConfig& train = config.train;
  train.images = budget_images(config, tokens);
  const auto images = static_cast<double>(train.images);
  train.epochs = images / static_cast<double>(tokens.train_images);
  train.tokens = images * static_cast<double>(tokens.tokens_per_image());
  train.flops = scaling::training_flops(shape, images);

  if (schedule.warmup_images > 0) {
    const int64_t steps = steps_of(config), warmup = (schedule.warmup_images + train.batch - 1) / train.batch;
    if (warmup >= steps)
      throw base::UserError("schedule.warmup_images is {}: {} of the run's {} steps; expected fewer than all",
                            schedule.warmup_images, warmup, steps);
    schedule.warmup_images = warmup * train.batch;
    schedule.warmup = static_cast<double>(warmup) / static_cast<double>(steps);
  }
  return config;
}

int64_t budget_images(const RunConfig& run, const TokenFacts& tokens) {
  const TrainConfig& train = run.train;
  const char* key = "train.epochs";
  double given = train.epochs, images = train.epochs * static_cast<double>(tokens.train_images);
  if (train.images > 0) {
    key = "train.images", given = images = static_cast<double>(train.images);
  } else if (train.tokens > 0) {
    key = "train.tokens", given = train.tokens;
    images = train.tokens / static_cast<double>(tokens.tokens_per_image());
  } else if (train.flops > 0) {
    key = "train.flops", given = train.flops;
    images = train.flops / scaling::training_flops(shape_of(run, tokens), 1);
  }
  if (images > 1e15)
    throw base::UserError("{} is {:g}: {:.3g} images; expected at most 1e15", key, given, images);
  if (images * static_cast<double>(tokens.tokens_per_image()) > 1e18)
    throw base::UserError("{} is {:g}: {:.3g} images of {} tokens; expected at most 1e18 tokens", key, given, images,
                          tokens.tokens_per_image());
  if (train.images > 0) return train.images;
  return std::max<int64_t>(1, std::llround(images));
}

scaling::VarShape shape_of(const RunConfig& run, const TokenFacts& tokens) {
  scaling::VarShape shape;
  shape.depth = run.model.depth;
  shape.width = run.model.width_or_rule();
  shape.heads = run.model.heads_or_rule();
  shape.mlp_ratio = run.model.mlp_ratio;
  shape.classes = tokens.classes;
  shape.tokens = tokens.space;
  shape.shared_adaln = run.model.shared_adaln;
  shape.attn_l2_norm = run.model.attn_l2_norm;
  shape.drop_path = run.model.drop_path_or_rule();
  shape.check();
  return shape;
}

int64_t steps_of(const RunConfig& run) {
  return (run.train.images + run.train.batch - 1) / run.train.batch;
}

int64_t images_seen_of(const RunConfig& run) { return steps_of(run) * run.train.batch; }

int64_t warmup_steps_of(const RunConfig& run) {
  return std::llround(run.schedule.warmup * static_cast<double>(steps_of(run)));
}

int64_t decay_step_of(const RunConfig& run) {
  return std::max<int64_t>(warmup_steps_of(run),
                           std::llround(run.schedule.hold * static_cast<double>(steps_of(run))));
}

std::set<int64_t> kept_steps_of(const RunConfig& run) {
  std::string words = run.train.keep_at;
  std::replace(words.begin(), words.end(), ',', ' ');
  std::istringstream list(words);
  std::set<int64_t> steps;
  for (std::string word; list >> word;) {
    size_t end = 0;
    double images = 0;
    try {
      images = std::stod(word, &end);
    } catch (const std::exception&) {
    }
    if (end != word.size() || !(images >= 1) || images > 1e15)
      throw base::UserError("train.keep_at has '{}', expected numbers of images, as in '4e6 16e6'",
                            word);
    const auto step = static_cast<int64_t>(std::ceil(images / static_cast<double>(run.train.batch)));
    if (step <= steps_of(run)) steps.insert(step);
  }
  return steps;
}

nlohmann::ordered_json identity_of(const RunConfig& run, const TokenFacts& tokens) {
  nlohmann::ordered_json identity;
  identity["numerics_version"] = kNumericsVersion;
  identity["tokens"] = tokens.assumed() ? tokens.assumed_apart : tokens.fingerprint;
  identity["settings"] = base::dump_config(run, /*identity_only=*/true);
  // The budget counts once, in images, and the warm-up as a share.
  for (const char* key : {"epochs", "tokens", "flops"}) identity["settings"]["train"].erase(key);
  identity["settings"]["schedule"].erase("warmup_images");
  if (run.model.init_fingerprint.empty()) identity["settings"]["model"].erase("init_fingerprint");
  // The fingerprint says all of cached tokens; and runs of before there was another kind keep their ids.
  if (!run.data.online()) identity["settings"].erase("data");
  return identity;
}

std::string identity_hash(const RunConfig& run, const TokenFacts& tokens) {
  return base::sha256_hex(base::json_text(identity_of(run, tokens)));
}

std::string run_id(const RunConfig& run, const TokenFacts& tokens) {
  return fmt::format("d{}-s{}-{}{}", run.model.depth, run.train.seed,
                     identity_hash(run, tokens).substr(0, 6), tokens.assumed() ? "-?" : "");
}

}  // namespace varscale::sweep
