// The runs of a sweep folder by the tokens that they were trained on: one fit a kind.
//
//   const SweepKinds sweep = load_kinds("results/tokenizers");
//   for (const SweepRuns& kind : sweep.kinds) analyse(kind, options);        // kind.kind is its name
//   why_apart(sweep.kinds);                                                  // sentences for the report
//
// A loss is nats per token of one tokenizer over one set of validation tokens. Runs are of one kind where their token
// file is the same (its fingerprint covers tokenizer, maps, images and crops), and the crops are of one source: `cached`
// or `online`.
//
// A kind is called by the name of its token file, with "-online" for runs of that source, and with six digits of the
// fingerprint where two would be called alike.
//
// Errors   UserError as in runs.hpp; load_runs(): runs of several kinds.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "runs.hpp"

namespace varscale::analysis {

struct SweepKinds {
  std::filesystem::path folder;
  std::string name;
  std::vector<SweepRuns> kinds;   // by name; a single one has left_out too
  std::vector<LeftOut> left_out;  // runs without a point, and so without a kind
};
SweepKinds load_kinds(const std::filesystem::path& folder, const RunFilter& wanted = {});

// Of a folder that has one kind.
SweepRuns load_runs(const std::filesystem::path& folder, const RunFilter& wanted = {});

// The tokens of the runs of one kind; what older runs do not say is taken from one that does.
TokenKind described(const SweepRuns& kind);
std::string plain_name(const TokenKind& kind);  // "f16", "f16-online", or 8 digits where no run says its path
std::string kind_words(const SweepRuns& kind);  // "tokenizer 1f3a9c02, maps of 1,2,4, 21 tokens an image, cached crops"

// Why no law goes through this kind's runs yet; nothing where one does.
std::optional<std::string> why_not_fitted(const SweepRuns& kind);

// Why the numbers of these fits do not compare, one sentence for each reason that applies.
std::vector<std::string> why_apart(const std::vector<SweepRuns>& kinds);

}  // namespace varscale::analysis
