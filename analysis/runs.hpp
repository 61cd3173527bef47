// The runs of a sweep folder as points of a fit.
//
//   SweepRuns sweep = load_runs("results/depth");      // every results/depth/runs/<id>/run.h5
//   sweep.runs                                         // finished ones, by depth, budget, seed
//   sweep.left_out                                     // the others, each with the reason: not
//                                                      // finished, or no longer in plan.json
//
// A run's point is its last evaluation, on the whole validation set, after its last step.
//
// Errors   UserError: no such folder, no finished run, a run.h5 without a needed attribute, a final loss
//          that is not a number (each names the file).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fit/power_law.hpp"
#include "records/run_file.hpp"

namespace varscale::analysis {

// How parameters are counted, in the order in which reports show them.
enum class NRule { kTotal, kBlocks, kPaper };
inline constexpr NRule kNRules[] = {NRule::kTotal, NRule::kBlocks, NRule::kPaper};
std::string name(NRule rule);        // "total", "blocks", "paper"
std::string definition(NRule rule);  // one sentence

enum class Metric { kLossMean, kLossTail, kErrMean, kErrTail };
inline constexpr Metric kMetrics[] = {Metric::kLossMean, Metric::kLossTail, Metric::kErrMean,
                                      Metric::kErrTail};
std::string name(Metric metric);   // the column's name in run.h5: "loss_mean"
std::string words(Metric metric);  // "loss, all tokens"
bool is_loss(Metric metric);

struct Run {
  std::string id, role;
  std::filesystem::path file;
  std::string sha256;  // of run.h5
  bool interpolated = false;  // its settings lie between published ones
  int64_t depth = 0, width = 0, seed = 0, data_seed = 0;
  int64_t budget_images = 0, batch = 0, val_images = 0, tokens_per_image = 0;
  double params_total = 0, params_blocks = 0, params_paper = 0;
  double unique_tokens = 0, passes = 0, lr = 0;
  std::string flop_formula, tokens_fingerprint, precision;
  records::EvalRow final{};
  records::RunTables tables;

  double n(NRule rule) const;
  double value(Metric metric) const;
};

// The runs of the folder's plan.json (var_sweep writes it); nothing where there is none. Of the branches of one
// trunk that are of role main, the longest is; the others are of role data.
struct PlannedRun {
  std::string id, role;
  int64_t depth = 0;
  double params_total = 0;
  int64_t images = 0;
  std::string branch_of = {};  // its trunk
  bool is_shorter = false;     // a branch of role main that is not the longest of its trunk
};
std::optional<std::vector<PlannedRun>> read_plan(const std::filesystem::path& folder);

struct LeftOut {
  std::string id, reason;
};

struct SweepRuns {
  std::filesystem::path folder;
  std::string name;
  std::vector<Run> runs;
  std::vector<LeftOut> left_out;

  std::vector<const Run*> main_runs() const;  // role "main"
};

// `wanted` decides by run id, before a file is opened; empty: all.
SweepRuns load_runs(const std::filesystem::path& folder,
                    const std::function<bool(const std::string& id)>& wanted = {});

// UserError naming two runs unless all were trained on the same number of images from the same tokens and
// counted by the same FLOP formula: otherwise their losses differ for another reason than size.
void require_same_data(std::span<const Run* const> runs);

// The distinct depths of some runs, rising; and "d1-d5", "d2, d4".
std::vector<int64_t> depths(std::span<const Run* const> runs);
std::string depth_words(const std::vector<int64_t>& depths);

}  // namespace varscale::analysis
