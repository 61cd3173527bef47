#include "kinds.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.hpp"
#include "laws.hpp"
#include "tuning.hpp"

namespace varscale::analysis {
namespace {

using base::UserError;

constexpr size_t kShort = 8;  // digits of a fingerprint that are shown

// As a name of a folder and of a column.
std::string safe(const std::string& text) {
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
                       c == '_' || c == '-';
    result += plain ? c : '-';
  }
  return result;
}

// Gives each its name: those that would be alike have digits behind.
void name_kinds(std::vector<SweepRuns>& kinds) {
  std::map<std::string, int> count;
  for (const SweepRuns& kind : kinds) ++count[plain_name(described(kind))];
  for (SweepRuns& kind : kinds) {
    const TokenKind tokens = described(kind);
    kind.kind = plain_name(tokens);
    if (count.at(kind.kind) > 1) kind.kind += "-" + safe(tokens.tokens.substr(0, 6));
  }
}

}  // namespace

TokenKind described(const SweepRuns& kind) {
  TokenKind result = kind.runs.front().tokens;
  for (const Run& run : kind.runs) {
    if (result.tokenizer.empty()) result.tokenizer = run.tokens.tokenizer;
    if (result.scales.empty()) result.scales = run.tokens.scales;
    if (result.path.empty()) result.path = run.tokens.path;
  }
  return result;
}

std::string plain_name(const TokenKind& kind) {
  const std::string stem = std::filesystem::path(kind.path).stem().string();
  return safe(stem.empty() ? kind.tokens.substr(0, kShort) : stem) + (kind.source == "cached" ? "" : "-" + kind.source);
}

std::string kind_words(const SweepRuns& kind) {
  const TokenKind tokens = described(kind);
  return fmt::format("{}{}{} tokens an image, {}",
                     tokens.tokenizer.empty() ? fmt::format("token file {}, ", tokens.tokens.substr(0, kShort))
                                              : fmt::format("tokenizer {}, ", tokens.tokenizer.substr(0, kShort)),
                     tokens.scales.empty() ? "" : fmt::format("maps of {}, ", tokens.scales),
                     kind.runs.front().tokens_per_image,
                     tokens.source == "cached" ? "the crops of the token file" : "fresh crops in every pass");
}

SweepKinds load_kinds(const std::filesystem::path& folder, const RunFilter& wanted) {
  SweepRuns all = read_folder(folder, wanted);
  SweepKinds result{.folder = all.folder, .name = all.name, .kinds = {}, .left_out = {}};
  for (Run& run : all.runs) {
    auto kind = std::ranges::find_if(result.kinds,
                                     [&](const SweepRuns& each) { return each.runs.front().tokens.same(run.tokens); });
    if (kind == result.kinds.end()) {
      SweepRuns first;
      first.folder = all.folder, first.name = all.name, first.plan = all.plan, first.tune = all.tune;
      kind = result.kinds.insert(kind, std::move(first));
    }
    kind->runs.push_back(std::move(run));
  }
  name_kinds(result.kinds);
  std::ranges::sort(result.kinds, {}, &SweepRuns::kind);
  if (result.kinds.size() == 1)
    result.kinds.front().left_out = std::move(all.left_out);
  else
    result.left_out = std::move(all.left_out);
  for (SweepRuns& kind : result.kinds) {
    // Runs that are only planned belong to a kind where the plan says which.
    if (kind.plan)
      std::erase_if(kind.plan->runs, [&](const PlannedRun& run) {
        return !run.tokens.tokens.empty() && !run.tokens.same(kind.runs.front().tokens);
      });
    if (!kind.tune.empty()) kind.tuned = tuned_points(kind);
  }
  return result;
}

SweepRuns load_runs(const std::filesystem::path& folder, const RunFilter& wanted) {
  SweepKinds sweep = load_kinds(folder, wanted);
  if (sweep.kinds.size() > 1)
    throw UserError("{}: its runs were trained on different tokens ({}: {}; {}: {}); expected runs of one kind",
                    folder.string(), sweep.kinds[0].kind, kind_words(sweep.kinds[0]), sweep.kinds[1].kind,
                    kind_words(sweep.kinds[1]));
  return std::move(sweep.kinds.front());
}

std::optional<std::string> why_not_fitted(const SweepRuns& kind) {
  const std::vector<const Run*> main = kind.main_runs();
  if (main.empty()) return "no finished run of role main";
  const size_t sizes = fit::distinct_sizes(size_points(main, NRule::kTotal, Metric::kLossMean)).size();
  const int64_t needed = fit::constant_count(fit::EFree{});
  if (static_cast<int64_t>(sizes) >= needed) return std::nullopt;
  return fmt::format("{} size{} of role main ({}), and a law needs {}", sizes, sizes == 1 ? "" : "s",
                     depth_words(depths(main)), needed);
}

std::vector<std::string> why_apart(const std::vector<SweepRuns>& kinds) {
  bool tokenizers = false, files = false, crops = false;
  for (const SweepRuns& one : kinds) {
    for (const SweepRuns& other : kinds) {
      const TokenKind a = described(one), b = described(other);
      if (a.tokens == b.tokens)
        crops |= a.source != b.source;
      else if (a.tokenizer == b.tokenizer && !a.tokenizer.empty())
        files = true;
      else
        tokenizers = true;
    }
  }
  std::vector<std::string> reasons;
  if (tokenizers)
    reasons.push_back(
        "A loss is in nats per token of its own tokenizer: another one says the same image in other codes, maps and "
        "numbers of tokens, whose entropy differs. Losses, E and B of two tokenizers are not in one unit, and the lower "
        "loss is not the better model.");
  if (files)
    reasons.push_back(
        "Two token files of one tokenizer hold other images, crops or precisions: their runs learnt from other data, and "
        "may be scored on other images.");
  if (crops)
    reasons.push_back(
        "Cached runs see the crops of the token file, online runs fresh ones in every pass: after the same number of "
        "images they have seen other data.");
  return reasons;
}

}  // namespace varscale::analysis
