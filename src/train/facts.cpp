#include "train/facts.hpp"

#include <fmt/ranges.h>
#include <torch/headeronly/version.h>

#include <algorithm>

#include "base/config.hpp"
#include "base/random.hpp"
#include "base/version.hpp"
#include "scaling/count.hpp"

namespace varscale::train {

records::Facts run_facts(const TrainJob& job, const checkpoint::Identity& identity,
                         const scaling::VarShape& shape, const EvalPlan& evaluations,
                         int64_t validation_images) {
  const sweep::RunConfig& run = job.run;
  const scaling::ParameterCount count = scaling::count_parameters(shape);
  const auto images = static_cast<double>(sweep::images_seen_of(run));
  const double tokens = images * static_cast<double>(shape.tokens.scales.tokens());
  records::Facts facts;
  facts["sweep"] = job.sweep;
  facts["run_id"] = identity.run_id;
  facts["config_hash"] = identity.config_hash;
  facts["config"] = base::dump_config(run).dump();
  facts["program_version"] = base::program_version();
  facts["torch_version"] = std::string(TORCH_VERSION);
  facts["numerics_version"] = sweep::kNumericsVersion;
  facts["role"] = run.role;
  facts["interpolated"] = static_cast<int64_t>(run.interpolated);
  facts["depth"] = shape.depth;
  facts["width"] = shape.width;
  facts["heads"] = shape.heads;
  facts["seed"] = static_cast<int64_t>(run.train.seed);
  facts["data_seed"] = static_cast<int64_t>(run.train.data_seed);
  facts["batch"] = run.train.batch;
  facts["steps"] = sweep::steps_of(run);
  facts["lr"] = run.optimizer.lr;
  facts["precision"] = run.train.precision;
  facts["budget_images"] = sweep::images_seen_of(run);
  facts["unique_images"] = job.facts.train_images;
  // Online every pass has crops of its own: as many as the run takes.
  const int64_t unique_crops =
      run.data.online() ? sweep::images_seen_of(run) : job.facts.train_images * job.facts.crops;
  facts["data_tokens"] = run.data.tokens;
  facts["unique_tokens"] = unique_crops * shape.tokens.scales.tokens();
  facts["passes"] = images / static_cast<double>(job.facts.train_images);
  facts["scales"] = shape.tokens.scales.words();
  facts["tokens_per_image"] = shape.tokens.scales.tokens();
  facts["tokens_fingerprint"] = job.facts.fingerprint;
  facts["tokenizer_fingerprint"] = job.facts.tokenizer;
  facts["params_total"] = count.total();
  facts["params_non_embedding"] = count.non_embedding();
  facts["params_blocks"] = count.blocks();
  facts["params_paper"] = count.paper_rule;
  facts["flop_formula"] = std::string(scaling::kFlopFormula);
  facts["flops_per_image"] = scaling::training_flops(shape, 1.0);
  facts["flops_6nd"] = scaling::six_nd(static_cast<double>(count.total()), tokens);
  facts["loss_unit"] = std::string("nat per token");
  facts["err_unit"] = std::string("fraction, 1 - top-1 accuracy");
  facts["validation"] =
      std::string("centre crop, no drop path, label drop: ") + run.eval.label_drop;
  facts["val_images"] = validation_images;
  facts["eval_subset_images"] = evaluations.subset_images;
  if (!run.model.init_from.empty()) {
    facts["init_from"] = run.model.init_from;
    facts["init_fingerprint"] = run.model.init_fingerprint;
  }
  if (job.origin) {
    facts["branch_of"] = job.origin->run_id;
    facts["branch_step"] = job.origin->step;
  }
  facts["segments"] = int64_t{1};
  facts["complete"] = int64_t{0};
  return facts;
}

void add_layout_facts(records::Facts& facts, const scaling::Layout& layout,
                      const Hardware& hardware) {
  facts["ranks"] = static_cast<int64_t>(hardware.hosts.size());
  facts["hosts"] = fmt::format("{}", fmt::join(hardware.hosts, ","));
  facts["device"] = hardware.device;
  facts["device_peak_flops"] = hardware.peak_flops;
  facts["parallel_mode"] = layout.mode;
  facts["parallel_shards"] = layout.shards;
  facts["parallel_why"] = layout.why;
}

std::vector<int64_t> evaluation_images(int64_t validation_images, int64_t count) {
  const base::Permutation order(static_cast<uint64_t>(validation_images), 0, "evaluation subset");
  std::vector<int64_t> images;
  for (int64_t i = 0; i < count; ++i)
    images.push_back(static_cast<int64_t>(order(static_cast<uint64_t>(i))));
  std::sort(images.begin(), images.end());
  return images;
}

}  // namespace varscale::train
