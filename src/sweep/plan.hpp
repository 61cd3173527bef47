// What a sweep costs before it runs: one row a run, printed by --plan and kept as plan.json.
//
//   Plan plan = make_plan(sweep, throughput, machine_of("h200", 64));
//   fmt::print("{}", plan_table(plan));
//   write_file_atomic(folder / "plan.json", plan_json(plan).dump(2));
//
// FLOPs and hours are those of the training steps; validation while training adds at most
// eval.max_cost. A branch's FLOPs are the compute of its point, those of the trunk included; hours and totals
// are what is spent. Memory is the tensors of one rank in the mode of its run, which `auto` chooses for the
// machine (scaling/layout.hpp).
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "scaling/layout.hpp"
#include "sweep/spec.hpp"
#include "sweep/throughput.hpp"

namespace varscale::sweep {

struct PlanRow {
  std::string id, role;
  int64_t depth = 0;
  uint64_t seed = 0;
  double lr = 0;           // peak
  bool interpolated = false;
  int64_t parameters = 0;  // all of them (rule n_total)
  double flops = 0;        // of all training steps, exact formula, a branch's share of its trunk included
  double own_flops = 0;    // of the steps that the run itself takes
  int64_t images = 0;      // seen: steps x batch
  int64_t tokens = 0;      // images x tokens per image
  double passes = 0;       // images / training images
  int64_t steps = 0;
  int64_t memory_bytes = 0;  // one rank
  std::string mode;          // "replicated", "zero3", "hybrid of 8"
  std::string mode_why;
  bool fits = true;
  double hours = 0;        // of own_flops, on all ranks; of train.cuda_graph on one
  std::string hours_from;
  std::string tokens_file, tokens_fingerprint;  // the latter is empty where the file does not exist yet
  std::string data_tokens;                      // data.tokens
  std::string branch_of;   // the trunk; empty: none
  int64_t branch_step = 0;
};

// Trunks and their branches, against the branches as runs of their own.
struct Saving {
  double separate_flops = 0, shared_flops = 0;
  double share() const { return 1 - shared_flops / separate_flops; }
};

struct Plan {
  std::string sweep, device;
  scaling::Machine machine;
  bool assumed_tokens = false;
  std::vector<PlanRow> rows;
  std::vector<std::string> tune;  // settings that are tuned
  double total_flops() const;  // really spent
  double total_hours() const;
  std::optional<Saving> saving() const;  // nothing where no run is a branch
};

// Where a plan is to run: `ranks` ranks of the device. Of GPUs up to 8 are taken to be in one node, CPU
// ranks to share this machine.
scaling::Machine machine_of(const std::string& device, int64_t ranks);

// How a run's ranks hold its model, by parallel.mode and parallel.memory_gib. UserError: a hybrid whose
// groups do not divide the ranks, train.cuda_graph where the update is not that of one rank alone.
scaling::Layout layout_of(const RunConfig& config, const scaling::VarShape& shape,
                          scaling::Machine machine);

// What of a launch's ranks a run can take: one for train.cuda_graph, else all.
scaling::Machine machine_for(const RunConfig& config, scaling::Machine launch);

PlanRow plan_run(const SweepRun& run, const Throughput& throughput, const scaling::Machine& launch);
Plan make_plan(const Sweep& sweep, const Throughput& throughput, const scaling::Machine& machine);
std::string plan_table(const Plan& plan);
nlohmann::ordered_json plan_json(const Plan& plan);

}  // namespace varscale::sweep
