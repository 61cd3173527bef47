// A sweep file: which runs there are, and the settings of each.
//
//   name: depth
//   output: results/depth              # the sweep folder
//   placement: packed                  # several runs at once; whole: each on all ranks, one after another
//   include: base.yaml                 # or a list; keys of this file go before its keys
//   defaults:                          # any setting of a run (run_config.hpp)
//     tokens: data/imagenet256.h5
//     optimizer: {lr: "6e-3 / depth"}  # a formula (expression.hpp) where a number is expected
//   recipes:                           # named settings, which an entry takes by `recipe: NAME`
//     public: {schedule: {kind: public}}
//   by_depth:                          # settings of the runs of one depth
//     30: {train.batch: 1024}
//   runs:                              # each entry is a grid: lists expand, the first key slowest
//     - {model.depth: [1, 2, 3], train.seed: [0, 1]}
//     - {role: data, model.depth: 1, train.images: [28000, 56000]}
//     - {model.depth: [2, 3], train.flops: [1e15, 4e15], recipe: public}
//     - {model.depth: [2, 3], branches: {train.images: [28000, 56000]}}  # decays from one trunk a depth
//   tune: [optimizer.lr]               # each point is the best of its values (tune.hpp)
//   evaluate: {...}                    # how finished runs are sampled and scored (evaluation.hpp)
//   assume: {images: 1281167, ...}     # stands in for a missing token file, for --plan only
//
//   Sweep sweep = load_sweep("sweeps/depth.yaml", overrides, Purpose::kTrain, open_tokens);
//   for (const SweepRun& run : sweep.runs) train(run.config, run.id);
//
// An entry's key goes before by_depth's, that before its recipe's, that before the defaults. A budget
// (images, epochs, tokens or flops of `train`) replaces any budget of a lower layer. ${NAME} and
// ${NAME:-default} in a value are the environment's.
//
// Formulas may use depth, width, heads, batch and images (the budget). These five are settled in
// this order, so a formula for one of them may use only those before it.
//
// Errors   UserError with every fault of the file, one a line, each with file:line: unknown,
//          misspelt, unused, duplicated or mistyped keys, values out of range, shapes that make no
//          model, token files that cannot be used, two entries that ask for the same run, branches that
//          cannot share a trunk.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "sweep/evaluation.hpp"
#include "sweep/identity.hpp"
#include "sweep/run_config.hpp"

namespace varscale::sweep {

// Where a run leaves its trunk (branches.hpp).
struct BranchPoint {
  std::string trunk;       // the run whose first steps are its own
  std::string trunk_hash;  // identity_hash of it
  int64_t step = 0;        // of the trunk's checkpoint that it begins from
};

struct SweepRun {
  std::string id;
  std::string where;  // the entry of `runs` that asks for it: "sweeps/depth.yaml:14"
  RunConfig config;   // resolved
  TokenFacts tokens;
  std::optional<BranchPoint> branch = {};
};

struct Sweep {
  std::string name;
  std::filesystem::path output;
  bool whole = false;          // placement: each run on all ranks, one after another
  std::string text;            // the file as it stood, with the overrides as comments
  std::vector<SweepRun> runs;  // in the order of the file, a trunk before its branches
  std::vector<std::string> tune = {};  // settings that are tuned
  std::optional<EvaluationConfig> evaluation = {};
};

// What a token file says, or nothing where it does not exist. UserError: it cannot be used.
using TokenLookup = std::function<std::optional<TokenFacts>(const std::filesystem::path&)>;
std::optional<TokenFacts> read_token_facts(const std::filesystem::path& path);

enum class Purpose { kTrain, kPlan };  // kPlan: `assume` may stand in for missing token files

Sweep load_sweep(const std::filesystem::path& path, const std::vector<std::string>& overrides,
                 Purpose purpose, const TokenLookup& lookup = read_token_facts);
// Included documents before the one that includes them.
Sweep read_sweep(const std::vector<base::Document>& layers, Purpose purpose,
                 const TokenLookup& lookup = read_token_facts);

// The geometry of a data set whose token file does not exist yet.
struct AssumedTokens {
  int64_t images = 1281167, validation = 50000, crops = 1, classes = 1000, vocabulary = 4096,
          code_width = 32;
  std::vector<int64_t> scales = {1, 2, 3, 4, 5, 6, 8, 10, 13, 16};

  template <class Visitor>
  void visit(Visitor& v) {
    const auto positive = Range<int64_t>::between(1, int64_t{1} << 32);
    v.field("images", images, "training images", positive);
    v.field("validation", validation, "validation images", positive);
    v.field("crops", crops, "token rows per training image", positive);
    v.field("classes", classes, "classes, without the null class", positive);
    v.field("vocabulary", vocabulary, "codes", Range<int64_t>::at_least(2));
    v.field("code_width", code_width, "numbers a code", positive);
    v.field("scales", scales, "sides of the token maps", positive);
  }
};

}  // namespace varscale::sweep
