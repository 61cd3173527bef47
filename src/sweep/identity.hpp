// What a run is: its settings with every derived value filled in, and the id that hashes them.
//
//   RunConfig run = resolve(config, tokens);        // no 0 or -1 that stands for a rule is left
//   std::string id = run_id(run, tokens);           // "d12-s0-1f3a9c"
//
// The id hashes what changes the numbers: the settings marked Identity::kYes after resolve(), the
// token file's fingerprint, that of given weights (model.init_fingerprint, which spec.hpp fills in) and
// kNumericsVersion. Ranks, mode, micro-batch, paths, logging and save cadence are not in it; nor are
// rules, only what they give: "lr: 6e-3 / depth" at depth 3 is the run of "lr: 2e-3".
//
// Errors   UserError without a place, naming the key: sizes that make no model, a warm-up in images as long as
//          the run.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "records/token_file.hpp"
#include "scaling/shape.hpp"
#include "sweep/run_config.hpp"

namespace varscale::sweep {

// Raised by a commit that changes the numbers of a run at equal settings.
inline constexpr int64_t kNumericsVersion = 1;

// What a run needs to know of its data: read from a token file, or assumed by the sweep file.
struct TokenFacts {
  int64_t train_images = 0, validation_images = 0;
  int64_t crops = 1;  // rows per training image
  int64_t classes = 0;
  scaling::TokenSpace space;
  std::string fingerprint;  // empty: the token file does not exist yet
  std::string tokenizer = {};  // fingerprint of the tokenizer; part of the token file's, and so not hashed again
  std::string assumed_apart = {};  // the path of one that does not exist yet, where the sweep has another such before it
  bool assumed() const noexcept { return fingerprint.empty(); }
  int64_t tokens_per_image() const noexcept { return space.scales.tokens(); }
};

TokenFacts facts_of(const records::TokenFile& file);

RunConfig resolve(RunConfig config, const TokenFacts& tokens);

// The budget in images, at least 1: train.images, or what train.tokens, train.flops (exact training FLOPs) or
// train.epochs comes to. UserError: more than 1e15.
int64_t budget_images(const RunConfig& run, const TokenFacts& tokens);
scaling::VarShape shape_of(const RunConfig& run, const TokenFacts& tokens);

// The rest takes resolved settings.
int64_t steps_of(const RunConfig& run);        // whole batches, rounded up
int64_t images_seen_of(const RunConfig& run);  // steps x batch
int64_t warmup_steps_of(const RunConfig& run);
// Of schedule.kind wsd: the updates before the decay, as optim::Schedule::decay_begin.
int64_t decay_step_of(const RunConfig& run);
// The updates after which train.keep_at asks for a lasting checkpoint; budgets beyond the run's are none.
// UserError: not a list of numbers.
std::set<int64_t> kept_steps_of(const RunConfig& run);

nlohmann::ordered_json identity_of(const RunConfig& run, const TokenFacts& tokens);
std::string identity_hash(const RunConfig& run, const TokenFacts& tokens);  // 64 hex digits
// "d<depth>-s<seed>-<6 hex digits>"; with "-?" where the tokens are assumed and so not in the hash.
std::string run_id(const RunConfig& run, const TokenFacts& tokens);

}  // namespace varscale::sweep
