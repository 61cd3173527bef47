#include "sweep/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/progress.hpp"
#include "base/error.hpp"
#include "base/machine.hpp"
#include "scaling/count.hpp"
#include "scaling/device.hpp"
#include "sweep/text_table.hpp"

namespace varscale::sweep {

double Plan::total_flops() const {
  double total = 0;
  for (const PlanRow& row : rows) total += row.own_flops;
  return total;
}

std::optional<Saving> Plan::saving() const {
  std::set<std::string> trunks;
  for (const PlanRow& row : rows)
    if (!row.branch_of.empty()) trunks.insert(row.branch_of);
  if (trunks.empty()) return std::nullopt;
  Saving saving;
  for (const PlanRow& row : rows) {
    const bool is_branch = !row.branch_of.empty();
    if (is_branch) saving.separate_flops += row.flops;
    if (is_branch || trunks.contains(row.id)) saving.shared_flops += row.own_flops;
  }
  return saving;
}

double Plan::total_hours() const {
  double total = 0;
  for (const PlanRow& row : rows) total += row.hours;
  return total;
}

scaling::Machine machine_of(const std::string& device, int64_t ranks) {
  scaling::Machine machine{.ranks = ranks, .node_ranks = ranks};
  if (const scaling::Device* known = scaling::find_device(device)) {
    constexpr int64_t kGpusOfANode = 8;
    machine.node_ranks = std::min(ranks, kGpusOfANode);
    machine.memory_bytes = known->memory_bytes;
    machine.on_gpu = true;
  } else {
    machine.memory_bytes = base::machine_memory_bytes() / static_cast<double>(ranks);
  }
  return machine;
}

namespace {

// A recorded update is that of one rank with the whole model, in which nothing changes but batch and learning rate.
void check_graph(const RunConfig& config) {
  const TrainConfig& train = config.train;
  if (!train.cuda_graph) return;
  const auto refuse = [](std::string_view key, const auto& found, std::string_view expected) {
    throw base::UserError("train.cuda_graph records the update of one rank that holds the whole model: {} is {}, expected {}",
                          key, found, expected);
  };
  if (train.device != "cuda") refuse("train.device", train.device, "cuda");
  if (config.parallel.mode != "auto" && config.parallel.mode != "replicated")
    refuse("parallel.mode", config.parallel.mode, "replicated");
  if (train.micro_batch != 0 && train.micro_batch < train.batch)
    refuse("train.micro_batch", train.micro_batch, "the whole batch");
  const double decay = config.optimizer.weight_decay, end = config.optimizer.weight_decay_end;
  if (end != -1 && end != decay) refuse("optimizer.weight_decay_end", end, "a constant decay");
}

}  // namespace

scaling::Layout layout_of(const RunConfig& config, const scaling::VarShape& shape,
                          scaling::Machine machine) {
  check_graph(config);
  const ParallelConfig& parallel = config.parallel;
  if (parallel.shards != 0 && parallel.mode != "hybrid") {
    throw base::UserError("parallel.shards is {}, but parallel.mode is {}; only hybrid reads it",
                          parallel.shards, parallel.mode);
  }
  if (parallel.mode == "hybrid" &&
      (parallel.shards < 1 || machine.ranks % parallel.shards != 0)) {
    throw base::UserError(
        "parallel.shards is {}; hybrid needs groups that divide the {} ranks of this launch",
        parallel.shards, machine.ranks);
  }
  if (parallel.memory_gib > 0) machine.memory_bytes = parallel.memory_gib * (1 << 30);
  const int64_t share = (config.train.batch + machine.ranks - 1) / machine.ranks;
  const scaling::MemoryOptions options{
      .micro_batch =
          config.train.micro_batch ? std::min(config.train.micro_batch, share) : share,
      .precision = config.train.precision == "bf16" ? scaling::Precision::kBf16
                                                    : scaling::Precision::kFp32,
      .recompute = scaling::recompute_named(parallel.recompute),
      .on_gpu = machine.on_gpu};
  if (parallel.mode == "auto") return scaling::choose_layout(shape, options, machine);
  return scaling::given_layout(shape, options, machine, parallel.mode, parallel.shards);
}

scaling::Machine machine_for(const RunConfig& config, scaling::Machine launch) {
  if (config.train.cuda_graph) launch.ranks = launch.node_ranks = 1;
  return launch;
}

PlanRow plan_run(const SweepRun& run, const Throughput& throughput, const scaling::Machine& launch) {
  const RunConfig& config = run.config;
  const scaling::Machine machine = machine_for(config, launch);
  const scaling::VarShape shape = shape_of(config, run.tokens);
  PlanRow row;
  row.id = run.id;
  row.role = config.role;
  row.interpolated = config.interpolated;
  row.depth = config.model.depth;
  row.seed = config.train.seed;
  row.lr = config.optimizer.lr;
  row.tokens_file = config.tokens;
  row.tokens_fingerprint = run.tokens.fingerprint;
  row.data_tokens = config.data.tokens;
  row.parameters = scaling::count_parameters(shape).total();
  row.steps = steps_of(config);
  row.images = images_seen_of(config);
  row.tokens = row.images * run.tokens.tokens_per_image();
  row.passes = static_cast<double>(row.images) / static_cast<double>(run.tokens.train_images);
  row.flops = scaling::training_flops(shape, static_cast<double>(row.images));
  if (run.branch) row.branch_of = run.branch->trunk, row.branch_step = run.branch->step;
  const int64_t own_images = row.images - row.branch_step * config.train.batch;
  row.own_flops = scaling::training_flops(shape, static_cast<double>(own_images));

  const scaling::Layout layout = layout_of(config, shape, machine);
  row.memory_bytes = layout.bytes;
  row.mode = layout.mode == "hybrid" ? fmt::format("hybrid of {}", layout.shards) : layout.mode;
  row.mode_why = layout.why;
  row.fits = layout.fits;

  const Rate rate = throughput.rate(row.depth, config.train.precision);
  row.hours = row.own_flops / (rate.flops_per_s * static_cast<double>(machine.ranks)) / 3600;
  row.hours_from = rate.source;
  return row;
}

Plan make_plan(const Sweep& sweep, const Throughput& throughput, const scaling::Machine& machine) {
  Plan plan;
  plan.sweep = sweep.name;
  plan.device = throughput.device();
  plan.machine = machine;
  plan.tune = sweep.tune;
  for (const SweepRun& run : sweep.runs) {
    plan.assumed_tokens |= run.tokens.assumed();
    try {
      plan.rows.push_back(plan_run(run, throughput, machine));
    } catch (const base::UserError& error) {
      throw base::UserError("{}: {}", run.where, error.what());
    }
  }
  return plan;
}

std::string plan_table(const Plan& plan) {
  // The rate stands in the table where it tells the runs of a point apart.
  const auto with_rate = [&](std::vector<std::string> cells, std::string rate) {
    if (!plan.tune.empty()) cells.insert(cells.begin() + 3, std::move(rate));
    return cells;
  };
  TextTable table(with_rate({"id", "depth", "seed", "role", "parameters", "FLOPs", "images", "tokens",
                             "passes", "steps", "mode", "memory/rank", "hours", "hours from"},
                            "lr"));
  for (const PlanRow& row : plan.rows)
    table.add(with_rate({row.id, fmt::format("{}", row.depth), fmt::format("{}", row.seed),
                         row.interpolated ? row.role + "*" : row.role,
                         base::format_count(static_cast<double>(row.parameters)),
                         fmt::format("{:.3e}", row.flops), fmt::format("{}", row.images),
                         base::format_count(static_cast<double>(row.tokens)),
                         fmt::format("{:.4g}", row.passes), fmt::format("{}", row.steps), row.mode,
                         base::format_bytes(static_cast<double>(row.memory_bytes)),
                         fmt::format("{:.3g}", row.hours), row.hours_from},
                        fmt::format("{:.4g}", row.lr)));
  std::string text =
      fmt::format("sweep {}: {} runs, {} rank{} on {}\n\n", plan.sweep, plan.rows.size(),
                  plan.machine.ranks, plan.machine.ranks == 1 ? "" : "s", plan.device);
  text += table.text();
  text += fmt::format("\ntotal: {:.3e} FLOPs, {:.3g} hours ({})\n", plan.total_flops(),
                      plan.total_hours(), base::format_duration(plan.total_hours() * 3600));
  if (const auto saving = plan.saving())
    text += fmt::format("separate runs {:.3e} FLOPs, trunk and branches {:.3e}, {:.1f} % saved; a branch's FLOPs "
                        "have its trunk's, its hours do not\n",
                        saving->separate_flops, saving->shared_flops, 100 * saving->share());
  for (const PlanRow& row : plan.rows)
    if (!row.fits || row.mode != "replicated")
      text += fmt::format("{}: {}{}\n", row.id, row.fits ? "" : "DOES NOT FIT: ", row.mode_why);
  if (std::ranges::any_of(plan.rows, &PlanRow::interpolated))
    text += "*: settings between published ones (interpolated: true).\n";
  if (plan.assumed_tokens)
    text +=
        "The token file does not exist yet: its geometry is the one under assume:, and ids that "
        "end in -? will change.\n";
  return text;
}

nlohmann::ordered_json plan_json(const Plan& plan) {
  nlohmann::ordered_json json;
  json["sweep"] = plan.sweep;
  json["device"] = plan.device;
  json["ranks"] = plan.machine.ranks;
  json["assumed_tokens"] = plan.assumed_tokens;
  json["flop_formula"] = scaling::kFlopFormula;
  json["parameter_rule"] = "n_total";
  if (!plan.tune.empty()) json["tune"] = plan.tune;
  json["runs"] = nlohmann::ordered_json::array();
  for (const PlanRow& row : plan.rows) {
    nlohmann::ordered_json run;
    run["id"] = row.id;
    run["depth"] = row.depth;
    run["seed"] = row.seed;
    run["lr"] = row.lr;
    run["role"] = row.role;
    run["interpolated"] = row.interpolated;
    run["parameters"] = row.parameters;
    run["flops"] = row.flops;
    run["images"] = row.images;
    run["tokens"] = row.tokens;
    run["tokens_file"] = row.tokens_file;
    run["tokens_fingerprint"] = row.tokens_fingerprint;
    run["data_tokens"] = row.data_tokens;
    run["passes"] = row.passes;
    run["steps"] = row.steps;
    run["mode"] = row.mode;
    run["mode_why"] = row.mode_why;
    run["memory_bytes_per_rank"] = row.memory_bytes;
    run["hours"] = row.hours;
    run["hours_from"] = row.hours_from;
    run["own_flops"] = row.own_flops;
    if (!row.branch_of.empty()) {
      run["branch_of"] = row.branch_of;
      run["branch_step"] = row.branch_step;
    }
    json["runs"].push_back(run);
  }
  json["total"]["flops"] = plan.total_flops();
  json["total"]["hours"] = plan.total_hours();
  if (const auto saving = plan.saving()) {
    json["branches"]["separate_flops"] = saving->separate_flops;
    json["branches"]["shared_flops"] = saving->shared_flops;
    json["branches"]["saved"] = saving->share();
  }
  return json;
}

}  // namespace varscale::sweep
