// What samples of the runs are worth, as `var_eval sweep` has left it beside each run.h5.
//
//   std::optional<ScoreTable> scores = read_score_table(sweep);      // nothing where no run is scored
//   write_scores_csv(*scores, out);                                  // out/scores.csv, which the figure is drawn from
//
// Figures compare at one reference, network and number of images: the table has the runs of the settings that most
// runs were scored under, and says which others it leaves out.
//
// Errors   UserError: a scores.json that is none.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "records/score_file.hpp"
#include "runs.hpp"

namespace varscale::analysis {

struct ScoredRun {
  const Run* run;
  records::RunScores scores;
};

struct ScoreTable {
  std::vector<ScoredRun> runs;  // in the order of the sweep's, at least one
  std::vector<LeftOut> left_out;

  const records::RunScores& first() const { return runs.front().scores; }
  bool has_grid() const { return first().best.has_value(); }
  bool has_classes() const { return first().protocol.inception_score.has_value(); }
};

// `sweep` must outlive it.
std::optional<ScoreTable> read_score_table(const SweepRuns& sweep);

void write_scores_csv(const ScoreTable& scores, const std::filesystem::path& out);
nlohmann::ordered_json scores_json(const ScoreTable& scores);
// A part of the report: a table in words and a sentence on what it may be compared with, behind `figure`.
std::string scores_html(const ScoreTable& scores, const std::string& figure);

}  // namespace varscale::analysis
