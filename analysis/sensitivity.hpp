// How far the laws of a sweep, or a law through anyone's points, move under other choices (fit/sensitivity.hpp), and
// which estimators disagree with them.
//
//   std::vector<LawSensitivity> s = sweep_sensitivity(analysis);    // the headline laws with E free
//   write_sensitivity_csv(s, out);                                   // out/sensitivity.csv
//   Sensitivity of_points{...}; of_points.json(), .sentences()
//
// Beside the choices of fit::vary() stand other rules of counting: N of the blocks alone and by the paper's rule; and for
// L(C), 6 N D with D the tokens seen and N by each rule, instead of the run's own FLOP formula.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fit/sensitivity.hpp"
#include "laws.hpp"

namespace varscale::analysis {

struct Moved {
  std::string group, change;
  fit::SurfaceLaw law;
  bool outside = false;  // the exponent lies outside the headline's interval
};

struct LawSensitivity {
  std::string law;  // "L(N)" or "L(C)"
  Metric metric = Metric::kLossMean;
  fit::PowerLaw headline;
  std::optional<fit::Interval> alpha;  // of the headline
  std::vector<Moved> rows;
  std::vector<fit::NotVaried> not_done;
  std::vector<fit::Disagreement> disagreements;

  std::string id() const;        // "L(N) loss_mean"
  std::string sentence() const;  // between which values the exponent lies, and what moves it most
};

std::vector<LawSensitivity> sweep_sensitivity(const Analysis& analysis);

void write_sensitivity_csv(const std::vector<LawSensitivity>& sensitivities, const std::filesystem::path& out);
nlohmann::ordered_json sensitivity_json(const std::vector<LawSensitivity>& sensitivities);
// A part of the report: one line a choice, the exponent of each law beside it.
std::string sensitivity_html(const std::vector<LawSensitivity>& sensitivities);

// One sentence for each estimator that disagrees; empty where none does.
std::vector<std::string> disagreement_sentences(const std::vector<fit::Disagreement>& disagreements);

}  // namespace varscale::analysis
