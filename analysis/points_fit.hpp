// A fit of points with what is reported of it: intervals, predictions, rows left out and how well they were predicted.
//
//   PointsResult result = fit_points(table, request);
//   base::json_text(points_json(result, request), 2);    // points.json
//   points_words(result, request);                       // the terminal's lines
//
// Errors   UserError: as fit/surface.hpp has them.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fit/profile.hpp"
#include "fit/sensitivity.hpp"
#include "fit/surface_bootstrap.hpp"
#include "points_table.hpp"

namespace varscale::analysis {

struct PointsRequest {
  std::string file;
  fit::SurfaceSpec spec;
  std::string e_source;  // where a given E comes from
  std::string columns, where, hold_out;
  std::vector<std::string> variables = {};            // names of the columns that are the form's variables, in its order
  std::vector<std::vector<double>> predictions = {};  // places, as `variables`
  std::optional<fit::BootstrapOptions> bootstrap;     // nothing: no intervals
  std::optional<fit::ProfileOptions> profile = {};    // nothing: none of these
};

struct Predicted {
  std::vector<double> x;
  double value = 0;
  std::optional<fit::Interval> interval = {};  // of the law, without the noise of a run
};

// How well rows that were left out are predicted; relative errors are |predicted / seen - 1|.
struct HeldOutRows {
  std::vector<Predicted> rows;
  std::vector<double> seen;
  std::vector<int64_t> lines;
  double mean_relative_error = 0, max_relative_error = 0, mean_absolute_error = 0, r2 = 0;
};

struct PointsResult {
  fit::SurfaceFit fit;
  std::optional<fit::SurfaceBootstrap> bootstrap;
  fit::Sensitivity sensitivity;
  std::vector<fit::Disagreement> disagreements;  // where there are intervals
  std::optional<fit::ProfileIntervals> profile;
  int64_t rows = 0, fitted = 0;  // of the file; that were fitted
  std::vector<Predicted> predictions;
  std::optional<HeldOutRows> held_out;
};

PointsResult fit_points(const PointTable& table, const PointsRequest& request);
nlohmann::ordered_json points_json(const PointsResult& result, const PointsRequest& request);
std::string points_words(const PointsResult& result, const PointsRequest& request);

}  // namespace varscale::analysis
