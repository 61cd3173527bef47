// var_fit compare: whether two sweeps follow one law, and what a change of model or data is worth.
//
//   var_fit compare results/depth results/depth_wider_head
//
// Each sweep has its own law; beside them stands the fit with one exponent for both, and where both are scored on the same
// tokens also with one E: then B alone differs, and says how much larger the first sweep's model must be for the loss of the
// second's (fit/shared.hpp). Losses on different tokens are in no common unit: of such sweeps exponents alone are compared.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "fit/shared.hpp"
#include "laws.hpp"

namespace varscale::analysis {

// A number with its interval; none where a sweep has nothing that tells its noise.
struct Judged {
  double value = 0;
  std::optional<fit::Interval> interval;
};

struct LossDifference {
  double x = 0;
  Judged difference;  // second less first, of the laws
};

// L(N) or L(C) of both.
struct LawPair {
  std::string law;                         // "L(N)" or "L(C)"
  std::array<const LawFit*, 2> own = {};   // E free
  Judged exponent_difference;              // second less first
  fit::Shared one_exponent;
  Judged shared_alpha;                     // of one_exponent
  std::optional<fit::Shared> one_e;        // same tokens alone
  std::optional<Judged> multiplier;        // of one_e
  std::vector<LossDifference> differences; // at the ends and the middle of the common sizes; same tokens alone
};

struct SweepComparison {
  std::array<std::string, 2> names;
  Metric metric = Metric::kLossMean;
  bool same_tokens = false;
  double level = 0.9;
  std::vector<std::string> differing;  // what else differs between the sweeps, in words
  std::vector<LawPair> laws;

  std::string sentence() const;
};

// The analyses must outlive it.
SweepComparison compare_sweeps(const std::array<const SweepRuns*, 2>& sweeps, const std::array<const Analysis*, 2>& analyses,
                               Metric metric, const fit::BootstrapOptions& options);
nlohmann::ordered_json comparison_json(const SweepComparison& comparison);
std::string comparison_words(const SweepComparison& comparison);
std::string comparison_csv(const SweepComparison& comparison);  // what the figure `compare` is drawn from

// The arguments behind `compare`; argv[0] is that word.
base::ExitCode run_compare(int argc, char** argv);

}  // namespace varscale::analysis
