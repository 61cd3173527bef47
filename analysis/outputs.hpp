// The files of a fit: fit.json, points.csv, fits.csv, and one CSV beside each figure.
//
//   Results results{sweep, analysis, options, comparison, sentence};
//   write_tables(results, out);              // out/*.csv
//   ordered_json json = fit_json(results);   // out/fit.json, six significant digits
//
// Every figure is drawn from the CSV of its name and from nothing else.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "entropies.hpp"
#include "frontier.hpp"
#include "laws.hpp"
#include "prediction.hpp"
#include "runs.hpp"
#include "scores.hpp"
#include "sensitivity.hpp"
#include "tuning.hpp"

namespace varscale::analysis {

inline constexpr const char* kFigures[] = {"curves", "law_n",     "law_c",
                                           "law_d",  "frontier", "residuals", "held_out", "scales", "scores", "paper"};

struct Results {
  const SweepRuns& sweep;
  const Analysis& analysis;
  const Options& options;
  std::optional<Comparison> comparison;
  std::string sentence;  // the law in one sentence
  LearningRates rates;
  std::string folder = {};  // of its files below the page; empty: beside it
  std::optional<ScoreTable> scores = {};
  std::vector<LawSensitivity> sensitivity = {};
  ComputeFrontier frontier = {};
  std::optional<TokenEntropies> entropies = {};
};

nlohmann::ordered_json fit_json(const Results& results);
nlohmann::ordered_json tokens_json(const SweepRuns& sweep);  // the tokens of its runs
void remove_tables(const std::filesystem::path& out);        // every CSV and drawing that a fit writes
void write_tables(const Results& results, const std::filesystem::path& out);

}  // namespace varscale::analysis
