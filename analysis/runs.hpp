// The runs of a sweep folder as points of a fit.
//
//   SweepRuns sweep = read_folder("results/depth");    // every results/depth/runs/<id>/run.h5
//   sweep.runs                                         // finished ones, by depth, budget, seed
//   sweep.left_out                                     // the others, each with the reason: not
//                                                      // finished, or no longer in plan.json
//
// Only runs that were trained on the same tokens are fitted together: kinds.hpp divides the folder.
//
// A run's point is its last evaluation, on the whole validation set, after its last step. In a sweep that tunes
// its learning rate (`tune` in plan.json) the runs of one depth and budget make one point (tuning.hpp).
//
// Errors   UserError: no such folder, no finished run, a run.h5 without a needed attribute, a final loss
//          that is not a number (each names the file).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fit/power_law.hpp"
#include "fit/vertex.hpp"
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

// What a run was trained on and scored by. The fingerprint of the token file covers the tokenizer, its maps and the
// images; "online" runs take fresh crops, "cached" ones those of the file.
struct TokenKind {
  std::string tokens;              // fingerprint of the token file
  std::string source = "cached";   // data.tokens
  // In words, and not compared. Older runs do not say all: empty.
  std::string tokenizer = {};      // its fingerprint
  std::string scales = {};         // "1,2,4"
  std::string path = {};           // the token file's, as the run's settings had it
  bool same(const TokenKind& other) const { return tokens == other.tokens && source == other.source; }
};

struct Run {
  std::string id, role;
  std::filesystem::path file;
  std::string sha256;  // of run.h5
  bool interpolated = false;  // its settings lie between published ones
  int64_t depth = 0, width = 0, seed = 0, data_seed = 0;
  int64_t budget_images = 0, batch = 0, val_images = 0, tokens_per_image = 0;
  double params_total = 0, params_blocks = 0, params_paper = 0;
  double unique_tokens = 0, passes = 0, lr = 0;
  std::string flop_formula, precision;
  TokenKind tokens;
  records::EvalRow final{};
  records::RunTables tables;

  double n(NRule rule) const;
  double value(Metric metric) const;
};

// The folder's plan.json (var_sweep writes it); nothing where there is none. Of the branches of one
// trunk that are of role main, the longest is; the others are of role data.
struct PlannedRun {
  std::string id, role;
  int64_t depth = 0;
  double params_total = 0;
  int64_t images = 0;
  double lr = 0;               // peak; 0: the plan does not say
  std::string branch_of = {};  // its trunk
  bool is_shorter = false;     // a branch of role main that is not the longest of its trunk
  TokenKind tokens = {};       // without a fingerprint where the plan does not say
};
struct SweepPlan {
  std::vector<PlannedRun> runs;
  std::vector<std::string> tune;  // settings that are tuned
};
std::optional<SweepPlan> read_plan(const std::filesystem::path& folder);

struct LeftOut {
  std::string id, reason;
};
void to_json(nlohmann::ordered_json& json, const LeftOut& run);

// The runs of one depth and budget at the best of their rates.
struct TunedPoint {
  Run run;                      // as one run: id "d6-tuned", rate and values at the vertex
  std::vector<size_t> members;  // in SweepRuns::runs
  fit::Vertex best;             // of loss_mean
};

struct SweepRuns {
  std::filesystem::path folder;
  std::string name;
  std::vector<Run> runs;
  std::vector<LeftOut> left_out;
  std::optional<SweepPlan> plan;
  std::vector<std::string> tune;  // the plan's
  std::vector<TunedPoint> tuned;  // of runs of one kind (kinds.hpp)
  std::string kind;               // what its kind of tokens is called; empty before they are divided

  // What the laws go through: tuned points, and runs of role data that are in none; without tune every run.
  std::vector<const Run*> points() const;
  std::vector<const Run*> main_runs() const;  // of points(): role "main"
};

// `wanted` decides by run id, before a file is opened; empty: all.
using RunFilter = std::function<bool(const std::string& id)>;
SweepRuns read_folder(const std::filesystem::path& folder, const RunFilter& wanted = {});

// UserError naming two runs of one kind of tokens unless all were trained on the same number of images (not asked
// with `across_data`) and counted by the same FLOP formula: otherwise their losses differ for another reason than size.
void require_same_data(std::span<const Run* const> runs, bool across_data = false);

// The distinct depths of some runs, rising; and "d1-d5", "d2, d4".
std::vector<int64_t> depths(std::span<const Run* const> runs);
std::string depth_words(const std::vector<int64_t>& depths);

}  // namespace varscale::analysis
