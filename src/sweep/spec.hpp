// A sweep file: which runs there are, and the settings of each.
//
//   name: depth
//   output: results/depth              # the sweep folder
//   defaults:                          # any setting of a run (run_config.hpp)
//     tokens: data/imagenet256.h5
//     optimizer: {lr: "6e-3 / depth"}  # a formula (expression.hpp) where a number is expected
//   runs:                              # each entry is a grid: lists expand, the first key slowest
//     - {model.depth: [1, 2, 3], train.seed: [0, 1]}
//     - {role: data, model.depth: 1, train.images: [28000, 56000]}
//   assume: {images: 1281167, ...}     # stands in for a missing token file, for --plan only
//
//   Sweep sweep = load_sweep("sweeps/depth.yaml", overrides, Purpose::kTrain, open_tokens);
//   for (const SweepRun& run : sweep.runs) train(run.config, run.id);
//
// Formulas may use depth, width, heads, batch and images (the budget). These five are settled in
// this order, so a formula for one of them may use only those before it.
//
// Errors   UserError with every fault of the file, one a line, each with file:line: unknown,
// misspelt,
//          unused, duplicated or mistyped keys, values out of range, shapes that make no model,
//          token files that cannot be used, two entries that ask for the same run.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "sweep/identity.hpp"
#include "sweep/run_config.hpp"

namespace varscale::sweep {

struct SweepRun {
  std::string id;
  std::string where;  // the entry of `runs` that asks for it: "sweeps/depth.yaml:14"
  RunConfig config;   // resolved
  TokenFacts tokens;
};

struct Sweep {
  std::string name;
  std::filesystem::path output;
  std::string text;            // the file as it stood, with the overrides as comments
  std::vector<SweepRun> runs;  // in the order of the file
};

// What a token file says, or nothing where it does not exist. UserError: it cannot be used.
using TokenLookup = std::function<std::optional<TokenFacts>(const std::filesystem::path&)>;
std::optional<TokenFacts> read_token_facts(const std::filesystem::path& path);

enum class Purpose { kTrain, kPlan };  // kPlan: `assume` may stand in for missing token files

Sweep load_sweep(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                 Purpose purpose, const TokenLookup& lookup = read_token_facts);
Sweep read_sweep(const base::Document& document, Purpose purpose,
                 const TokenLookup& lookup = read_token_facts);

// The geometry of a data set whose token file does not exist yet.
struct AssumedTokens {
  int64_t images = 1281167, validation = 50000, crops = 1, classes = 1000, vocabulary = 4096,
          code_width = 32;
  std::vector<int64_t> scales = {1, 2, 3, 4, 5, 6, 8, 10, 13, 16};

  template <class Visitor>
  void visit(Visitor& v) {
    const auto positive = Range<int64_t>::at_least(1);
    v.field("images", images, "training images", positive);
    v.field("validation", validation, "validation images", positive);
    v.field("crops", crops, "token rows per training image", positive);
    v.field("classes", classes, "classes, without the null class", positive);
    v.field("vocabulary", vocabulary, "codes", Range<int64_t>::at_least(2));
    v.field("code_width", code_width, "numbers a code", positive);
    v.field("scales", scales, "sides of the token maps", positive);
  }
};

// Settings of one run by dotted key, each with the node it comes from. Fills a RunConfig.
class Settings {
 public:
  // Adds the scalars below `node`: nested maps and dotted keys alike. An unknown key is a fault.
  static Settings flatten(const base::Node& node, base::Faults& faults);

  const base::Node* find(const std::string& key) const;
  void put(const std::string& key, base::Node node) {
    nodes_.insert_or_assign(key, std::move(node));
  }
  void erase(const std::string& key) { nodes_.erase(key); }
  const std::vector<std::string>& order() const noexcept { return order_; }
  std::string where(const std::string& key, const std::string& otherwise) const;

 private:
  void add(const base::Node& node, const std::string& prefix, base::Faults& faults);
  std::map<std::string, base::Node> nodes_;
  std::vector<std::string> order_;  // of the file
};

// Every key of RunConfig, dotted.
const std::vector<base::ConfigHelpLine>& setting_keys();

}  // namespace varscale::sweep
