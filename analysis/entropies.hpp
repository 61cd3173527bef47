// What tokens cost without any model: upper bounds of a sweep's losses, drawn beside its law and never used as E.
//
//   std::optional<TokenEntropies> bounds = read_entropies(sweep);     // nothing where nobody has measured them
//   bounds->of(Metric::kLossMean)                                      // {"unigram", 6.91}, {"unigram by scale", 6.87}, ...
//
// `var_data inspect --json tokens.h5 > <sweep>/token_statistics.json` measures them (data/token_statistics.hpp): cross-entropy
// of the validation tokens under the code frequencies of the training tokens, over all, of each scale, of each class. Files
// token_statistics*.json of the sweep folder are read; the one with the fingerprint of the runs' tokens counts.
//
// Errors   UserError naming the file: no JSON, or without the fields that var_data writes.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "runs.hpp"

namespace varscale::analysis {

struct UpperBound {
  std::string name;
  double nats = 0;  // per token
};

struct TokenEntropies {
  std::string file;
  double unigram = 0, scale_unigram = 0, class_unigram = 0;
  std::vector<double> scales;  // of each scale's tokens under frequencies of their own, coarse to fine

  // Of that loss; none of an error rate.
  std::vector<UpperBound> of(Metric metric) const;
};

std::optional<TokenEntropies> read_entropies(const SweepRuns& sweep);
nlohmann::ordered_json entropies_json(const TokenEntropies& entropies);
// A paragraph of the report: the bounds, and how far below them the best run is.
std::string entropies_html(const TokenEntropies& entropies, const SweepRuns& sweep);

}  // namespace varscale::analysis
