#include "runs.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"

namespace varscale::analysis {
namespace {

using base::UserError;

// Root attributes of one run.h5, with the file named where one is missing or of another kind.
class FactReader {
 public:
  FactReader(const records::Facts& facts, const std::filesystem::path& file)
      : facts_(facts), file_(file) {}

  double number(const std::string& key) const {
    const records::Fact& fact = at(key);
    if (const auto* integer = std::get_if<int64_t>(&fact)) return static_cast<double>(*integer);
    if (const auto* real = std::get_if<double>(&fact)) return *real;
    throw UserError("{}: attribute {} is text, expected a number", file_.string(), key);
  }
  int64_t integer(const std::string& key) const { return static_cast<int64_t>(number(key)); }
  std::string text(const std::string& key) const {
    if (const auto* value = std::get_if<std::string>(&at(key))) return *value;
    throw UserError("{}: attribute {} is a number, expected text", file_.string(), key);
  }
  bool has(const std::string& key) const { return facts_.contains(key); }

 private:
  const records::Fact& at(const std::string& key) const {
    const auto found = facts_.find(key);
    if (found == facts_.end()) throw UserError("{}: has no attribute {}", file_.string(), key);
    return found->second;
  }
  const records::Facts& facts_;
  const std::filesystem::path& file_;
};

TokenKind tokens_of(const FactReader& facts) {
  const auto text = [&](const char* key) { return facts.has(key) ? facts.text(key) : std::string(); };
  TokenKind kind{.tokens = facts.text("tokens_fingerprint")};
  if (facts.has("data_tokens")) kind.source = facts.text("data_tokens");
  kind.tokenizer = text("tokenizer_fingerprint");
  kind.scales = text("scales");
  if (const auto config = nlohmann::ordered_json::parse(text("config"), nullptr, false);
      config.is_object() && config.contains("tokens") && config["tokens"].is_string())
    kind.path = config["tokens"].get<std::string>();
  return kind;
}

// Fills `run`, or says why it has no point yet.
std::string read_point(Run& run) {
  run.tables = records::read_run(run.file);
  const FactReader facts(run.tables.facts, run.file);
  if (!facts.has("complete") || facts.integer("complete") != 1) return "not finished";
  if (run.tables.steps.empty() || run.tables.eval.empty()) return "no evaluation";
  run.final = run.tables.eval.back();
  if (run.final.step != run.tables.steps.back().step || run.final.whole_set != 1)
    return "no evaluation of the whole validation set after the last step";

  run.role = facts.text("role");
  run.interpolated = facts.has("interpolated") && facts.integer("interpolated") == 1;
  run.depth = facts.integer("depth");
  run.width = facts.integer("width");
  run.seed = facts.integer("seed");
  run.data_seed = facts.integer("data_seed");
  run.budget_images = facts.integer("budget_images");
  run.batch = facts.integer("batch");
  run.val_images = facts.integer("val_images");
  run.tokens_per_image = facts.integer("tokens_per_image");
  run.params_total = facts.number("params_total");
  run.params_blocks = facts.number("params_blocks");
  run.params_paper = facts.number("params_paper");
  run.unique_tokens = facts.number("unique_tokens");
  run.passes = facts.number("passes");
  run.lr = facts.number("lr");
  run.flop_formula = facts.text("flop_formula");
  run.tokens = tokens_of(facts);
  run.precision = facts.text("precision");
  for (Metric metric : kMetrics) {
    if (!std::isfinite(run.value(metric)))
      throw UserError(
          "{}: the final {} is not a number; the run has diverged, leave it out of the sweep",
          run.file.string(), name(metric));
  }
  return {};
}

}  // namespace

std::optional<SweepPlan> read_plan(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "plan.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  SweepPlan result;
  std::vector<PlannedRun>& runs = result.runs;
  try {
    const nlohmann::ordered_json plan = base::parse_json(base::read_file(path));
    for (const nlohmann::ordered_json& run : plan.at("runs")) {
      runs.push_back({.id = run.at("id").get<std::string>(),
                      .role = run.at("role").get<std::string>(),
                      .depth = run.at("depth").get<int64_t>(),
                      .params_total = run.at("parameters").get<double>(),
                      .images = run.at("images").get<int64_t>(),
                      .lr = run.value("lr", 0.0),
                      .branch_of = run.value("branch_of", ""),
                      .tokens = {.tokens = run.value("tokens_fingerprint", ""),
                                 .source = run.value("data_tokens", "cached"),
                                 .path = run.value("tokens_file", "")}});
    }
    if (plan.contains("tune")) result.tune = plan["tune"].get<std::vector<std::string>>();
  } catch (const nlohmann::ordered_json::exception& error) {
    throw UserError("{}: not a plan that var_sweep wrote ({})", path.string(), error.what());
  }
  std::map<std::string, int64_t> longest;  // by trunk
  for (const PlannedRun& run : runs)
    if (!run.branch_of.empty()) longest[run.branch_of] = std::max(longest[run.branch_of], run.images);
  for (PlannedRun& run : runs) {
    run.is_shorter = run.role == "main" && !run.branch_of.empty() && run.images < longest.at(run.branch_of);
    if (run.is_shorter) run.role = "data";
  }
  return result;
}

std::string name(NRule rule) {
  switch (rule) {
    case NRule::kTotal:
      return "total";
    case NRule::kBlocks:
      return "blocks";
    case NRule::kPaper:
      return "paper";
  }
  return {};
}

std::string definition(NRule rule) {
  switch (rule) {
    case NRule::kTotal:
      return "every trained parameter, embeddings and head included";
    case NRule::kBlocks:
      return "parameters of the transformer blocks, their AdaLN included; no embeddings, no head";
    case NRule::kPaper:
      return "the paper's rule 18 d w², with depth d and width w";
  }
  return {};
}

std::string name(Metric metric) {
  switch (metric) {
    case Metric::kLossMean:
      return "loss_mean";
    case Metric::kLossTail:
      return "loss_tail";
    case Metric::kErrMean:
      return "err_mean";
    case Metric::kErrTail:
      return "err_tail";
  }
  return {};
}

std::string words(Metric metric) {
  switch (metric) {
    case Metric::kLossMean:
      return "loss, all tokens";
    case Metric::kLossTail:
      return "loss, last scale";
    case Metric::kErrMean:
      return "error rate, all tokens";
    case Metric::kErrTail:
      return "error rate, last scale";
  }
  return {};
}

bool is_loss(Metric metric) { return metric == Metric::kLossMean || metric == Metric::kLossTail; }

double Run::n(NRule rule) const {
  switch (rule) {
    case NRule::kTotal:
      return params_total;
    case NRule::kBlocks:
      return params_blocks;
    case NRule::kPaper:
      return params_paper;
  }
  return 0;
}

double Run::value(Metric metric) const {
  switch (metric) {
    case Metric::kLossMean:
      return final.loss_mean;
    case Metric::kLossTail:
      return final.loss_tail;
    case Metric::kErrMean:
      return final.err_mean;
    case Metric::kErrTail:
      return final.err_tail;
  }
  return 0;
}

std::vector<const Run*> SweepRuns::points() const {
  std::vector<const Run*> result;
  std::set<const Run*> in_a_point;
  for (const TunedPoint& point : tuned) {
    result.push_back(&point.run);
    for (size_t i : point.members) in_a_point.insert(&runs[i]);
  }
  for (const Run& run : runs)
    if (!in_a_point.contains(&run) && (tune.empty() || run.role != "main")) result.push_back(&run);
  return result;
}

void to_json(nlohmann::ordered_json& json, const LeftOut& run) { json = {{"id", run.id}, {"reason", run.reason}}; }

std::vector<const Run*> SweepRuns::main_runs() const {
  std::vector<const Run*> result = points();
  std::erase_if(result, [](const Run* run) { return run->role != "main"; });
  return result;
}

SweepRuns read_folder(const std::filesystem::path& folder, const RunFilter& wanted) {
  const std::filesystem::path runs_folder = folder / "runs";
  if (!std::filesystem::is_directory(runs_folder))
    throw UserError("{}: no sweep folder; expected {} with one folder a run", folder.string(),
                    runs_folder.string());
  SweepRuns sweep;
  sweep.folder = folder;
  sweep.name = std::filesystem::weakly_canonical(folder).filename().string();
  std::optional<std::map<std::string, PlannedRun>> planned;
  sweep.plan = read_plan(folder);
  if (sweep.plan) {
    sweep.tune = sweep.plan->tune;
    planned.emplace();
    for (const PlannedRun& run : sweep.plan->runs) planned->emplace(run.id, run);
  }
  for (const auto& entry : std::filesystem::directory_iterator(runs_folder)) {
    if (!entry.is_directory()) continue;
    Run run;
    run.id = entry.path().filename().string();
    if (wanted && !wanted(run.id)) continue;
    run.file = entry.path() / "run.h5";
    std::string reason = "no run.h5 yet";
    if (planned && !planned->contains(run.id)) {
      reason = "orphan: no longer in the sweep file";
    } else if (std::filesystem::exists(run.file)) {
      run.sha256 = base::sha256_hex(base::read_file(run.file));
      reason = read_point(run);
      if (planned && planned->at(run.id).is_shorter) run.role = "data";
    }
    if (reason.empty())
      sweep.runs.push_back(std::move(run));
    else
      sweep.left_out.push_back({run.id, reason});
  }
  std::sort(sweep.runs.begin(), sweep.runs.end(), [](const Run& a, const Run& b) {
    return std::tie(a.depth, a.budget_images, a.seed, a.id) <
           std::tie(b.depth, b.budget_images, b.seed, b.id);
  });
  std::sort(sweep.left_out.begin(), sweep.left_out.end(),
            [](const LeftOut& a, const LeftOut& b) { return a.id < b.id; });
  if (sweep.runs.empty())
    throw UserError("{}: none of its {} runs is finished; a fit needs finished runs",
                    folder.string(), sweep.left_out.size());
  return sweep;
}

void require_same_data(std::span<const Run* const> runs, bool across_data) {
  constexpr std::string_view kBudget = "a budget in images of";
  for (const Run* run : runs) {
    const Run& first = *runs.front();
    const auto refuse = [&](std::string_view what, const std::string& a, const std::string& b) {
      throw UserError(
          "{} has {} {} and {} has {}; runs of role main must agree in it (use role data or tune "
          "for the others{})",
          first.id, what, a, run->id, b, what == kBudget ? ", or --across-data" : "");
    };
    if (!across_data && run->budget_images != first.budget_images)
      refuse(kBudget, std::to_string(first.budget_images),
             std::to_string(run->budget_images));
    if (run->flop_formula != first.flop_formula)
      refuse("the FLOP formula", first.flop_formula, run->flop_formula);
    if (run->val_images != first.val_images)
      refuse("a validation set in images of", std::to_string(first.val_images),
             std::to_string(run->val_images));
  }
}

std::vector<int64_t> depths(std::span<const Run* const> runs) {
  std::set<int64_t> result;
  for (const Run* run : runs) result.insert(run->depth);
  return {result.begin(), result.end()};
}

std::string depth_words(const std::vector<int64_t>& depths) {
  if (depths.empty()) return "no depth";
  const bool consecutive =
      depths.back() - depths.front() == static_cast<int64_t>(depths.size()) - 1;
  if (consecutive && depths.size() > 1)
    return fmt::format("d{}-d{}", depths.front(), depths.back());
  std::string list;
  for (int64_t depth : depths) list += fmt::format("{}d{}", list.empty() ? "" : ", ", depth);
  return list;
}

}  // namespace varscale::analysis
