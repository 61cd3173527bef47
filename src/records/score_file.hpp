// scores.json: what samples of a finished run are worth, beside its run.h5.
//
//   write_scores("results/depth/runs/d12-s0-1f3a9c/scores.json", scores);
//   std::optional<RunScores> scores = read_scores(path);      // nothing where there is none
//
// Two runs' figures compare where their `settings` are equal: reference, feature network, numbers of images, guidance
// and all else that samples depend on beside the run itself.
// Errors   UserError naming the file: not JSON, another schema, a missing or mistyped entry.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace varscale::records {

// Of the samples at one value of the guidance.
struct Score {
  double cfg = 0;
  double frechet = 0;
  std::optional<double> spatial_frechet = {};  // where network and reference have spatial features
  std::optional<double> inception_score = {};  // of the published network alone
  std::optional<double> kernel = {}, precision = {}, recall = {};  // where the reference has images
};

// What one value of the grid was judged by.
struct GridScore {
  double cfg = 0, frechet = 0;
};

struct RunScores {
  std::string run;
  nlohmann::ordered_json settings;
  std::string frechet_name, network, network_identity;  // "FID", the feature network and SHA-256 over its weights
  std::string reference, reference_fingerprint;         // as it was named; SHA-256 over names and sizes of its images
  int64_t reference_images = 0, images = 0;             // images: samples of each score
  Score protocol;                                       // at the stated guidance
  std::optional<Score> best;                            // at the grid's best; where there is a grid
  std::vector<GridScore> grid;
};

nlohmann::ordered_json score_json(const Score& score);
Score score_of(const nlohmann::ordered_json& json);  // nlohmann's exceptions

void write_scores(const std::filesystem::path& path, const RunScores& scores);  // complete or absent
std::optional<RunScores> read_scores(const std::filesystem::path& path);

}  // namespace varscale::records
