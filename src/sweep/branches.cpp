#include "sweep/branches.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/config.hpp"
#include "records/checkpoint_place.hpp"

namespace varscale::sweep {

namespace {

using nlohmann::ordered_json;

// What may differ between the branches of one trunk: the budget, and what follows it.
bool may_differ(const std::string& key) {
  static const std::set<std::string> keys{"train.images", "train.epochs",    "train.tokens", "train.flops",
                                          "schedule.hold", "schedule.warmup", "schedule.end"};
  return keys.contains(key);
}

// The settings by dotted key.
void flatten(const ordered_json& json, const std::string& prefix, std::map<std::string, ordered_json>& flat) {
  for (const auto& [key, value] : json.items()) {
    if (value.is_object())
      flatten(value, prefix + key + ".", flat);
    else
      flat[prefix + key] = value;
  }
}

std::map<std::string, ordered_json> settings_of(const SweepRun& run) {
  std::map<std::string, ordered_json> flat;
  flatten(base::dump_config(run.config), "", flat);
  return flat;
}

std::vector<BranchFault> faults_of(const SweepRun& run, size_t index) {
  std::vector<BranchFault> faults;
  const auto add = [&](const char* key, std::string sentence) {
    faults.push_back({key, index, std::move(sentence)});
  };
  const ScheduleConfig& schedule = run.config.schedule;
  const OptimizerConfig& optimizer = run.config.optimizer;
  if (schedule.kind != "wsd") {
    add("schedule.kind", fmt::format("schedule.kind is {}; branches need wsd, whose rate knows nothing of the "
                                     "budget before the decay",
                                     schedule.kind));
    return faults;
  }
  if (optimizer.weight_decay_end != optimizer.weight_decay)
    add("optimizer.weight_decay_end",
        fmt::format("optimizer.weight_decay_end is {} and optimizer.weight_decay {}; branches need a weight "
                    "decay that is constant, since its way depends on the budget",
                    optimizer.weight_decay_end, optimizer.weight_decay));
  if (schedule.warmup > 0 && schedule.warmup_images == 0) {
    add("schedule.warmup", fmt::format("schedule.warmup is {}, a share of the steps, which differ from branch to "
                                       "branch; give schedule.warmup_images",
                                       schedule.warmup));
    return faults;
  }
  const int64_t steps = steps_of(run.config), warmup = warmup_steps_of(run.config);
  const auto constant = std::llround(schedule.hold * static_cast<double>(steps));
  if (constant >= steps)
    add("schedule.hold", fmt::format("schedule.hold is {}: of {} steps none is left for a decay, and a branch is "
                                     "one",
                                     schedule.hold, steps));
  else if (constant <= warmup)
    add("", fmt::format("its decay begins after step {} of {}, and the warm-up takes {}: nothing is shared with a "
                        "trunk; take a larger budget, a larger schedule.hold or a shorter warm-up",
                        constant, steps, warmup));
  return faults;
}

}  // namespace

std::vector<BranchFault> branch_faults(const std::vector<SweepRun>& runs) {
  std::vector<BranchFault> faults;
  for (size_t i = 0; i < runs.size(); ++i)
    for (BranchFault& fault : faults_of(runs[i], i)) faults.push_back(std::move(fault));
  const auto first = settings_of(runs.front());
  for (size_t i = 1; i < runs.size(); ++i) {
    for (const auto& [key, value] : settings_of(runs[i])) {
      if (may_differ(key) || value == first.at(key)) continue;
      faults.push_back({key, i,
                        fmt::format("{} is {} at {} images and {} at {}; branches of one trunk differ in budget and "
                                    "decay alone",
                                    key, first.at(key).dump(), runs.front().config.train.images, value.dump(),
                                    runs[i].config.train.images)});
    }
  }
  return faults;
}

SweepRun make_trunk(std::vector<SweepRun>& runs) {
  std::set<int64_t> points;
  for (const SweepRun& run : runs) points.insert(decay_step_of(run.config));
  SweepRun trunk = runs.front();
  RunConfig& config = trunk.config;
  config.role = "trunk";
  config.schedule.kind = "constant";
  config.train.images = *points.rbegin() * config.train.batch;
  for (int64_t step : points)
    config.train.keep_at += fmt::format("{}{}", config.train.keep_at.empty() ? "" : " ", step * config.train.batch);
  config = resolve(config, trunk.tokens);
  trunk.id = run_id(config, trunk.tokens);
  for (SweepRun& run : runs)
    run.branch = {trunk.id, identity_hash(config, trunk.tokens), decay_step_of(run.config)};
  return trunk;
}

std::string waiting_words(const SweepRun& run, const Ledger& ledger) {
  if (!run.branch) return {};
  const auto& [trunk, hash, step] = *run.branch;
  if (records::has_checkpoint(ledger.run_folder(trunk), step)) return {};
  if (!records::checkpoint_steps(ledger.run_folder(run.id) / records::kCheckpoints).empty()) return {};  // its own
  const RunStatus status = ledger.status(trunk);
  if (status.state == RunState::kDone)
    return fmt::format("its trunk {} is done, but its checkpoint of step {} is gone; move the trunk's folder away "
                       "to have it again",
                       trunk, step);
  if (status.state == RunState::kFailed && status.failures >= kMostFailures)
    return fmt::format("cannot begin: its trunk {} has failed before step {}", trunk, step);
  return fmt::format("waits for step {} of its trunk {}", step, trunk);
}

}  // namespace varscale::sweep
