// A prediction written down before the runs that it is about are read.
//
//   Registration r = register_prediction("results/quickstart", options);    // writes fit/prediction.json
//   ... the deepest run trains ...
//   std::optional<Registration> r = read_registration(folder / "fit");      // the next var_fit compares
//
// plan.json tells which depth is the deepest and how many parameters it has. Of the run files, only
// those of smaller depths are opened; the file lists them with their hashes, and says whether a run.h5
// of the deepest lay there already.
//
// Errors   UserError: no plan.json, a sweep with fewer than two depths, fits as in laws.hpp.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "laws.hpp"

namespace varscale::analysis {

struct RegisteredMetric {
  double y = 0, gain = 0, previous_y = 0;
  std::optional<fit::Interval> y_interval, gain_interval;
};

struct Registration {
  int64_t depth = 0, previous_depth = 0;
  int64_t runs = 0;         // of the deepest, planned
  double params_total = 0;  // its N
  double level = 0.9;
  std::string law;                                  // the fitted law in words
  std::string written;                              // UTC
  bool deepest_had_rows = false;                    // a run.h5 of the deepest lay there, unread
  std::map<std::string, std::string> files;         // run id -> SHA-256 of its run.h5
  std::map<std::string, RegisteredMetric> metrics;  // "loss_mean", "loss_tail"
};

Registration register_prediction(const std::filesystem::path& folder,
                                 const std::filesystem::path& out, const Options& options);
std::optional<Registration> read_registration(const std::filesystem::path& out);

// What became of it.
struct Comparison {
  Registration registration;
  bool inputs_unchanged = false;  // the files it was made from are those of now
  std::map<std::string, fit::Verdict>
      verdicts;  // by metric; empty where the deepest has no point yet
};
Comparison compare(const Registration& registration, const SweepRuns& sweep);

// A law of three constants through the sizes below the deepest is tested by what they are more than three: with fewer
// sizes than these no claim is made.
inline constexpr size_t kSizesForAClaim = 5;

// "d5's gain predicted 0.0146 [0.008, 0.021], seen 0.0171"
std::string gain_words(int64_t depth, double predicted,
                       const std::optional<fit::Interval>& interval, std::optional<double> seen);

}  // namespace varscale::analysis
