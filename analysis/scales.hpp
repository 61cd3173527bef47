// The final loss and error of each token map, by depth: which maps gain from size.
//
//   write_scales_csv(sweep, out / "scales.csv");   // what the figure is drawn from; none where no run has rows by map
//   ScaleGains gains = scale_gains(sweep);         // the largest depth against the smallest, means over seeds
//
// Runs are the points of L(N); of a tuned point, the run of the least loss.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runs.hpp"

namespace varscale::analysis {

struct ScaleGain {
  int64_t scale = 0;                         // from 0, coarse to fine
  std::string side;                          // of the map, in tokens; empty where the runs do not say
  double loss = 0, err = 0;                  // of the smallest depth
  double largest_loss = 0, largest_err = 0;  // of the largest
};
struct ScaleGains {
  int64_t smallest = 0, largest = 0;  // depths
  std::vector<ScaleGain> scales;      // empty where no two depths have rows by map
};
ScaleGains scale_gains(const SweepRuns& sweep);

void write_scales_csv(const SweepRuns& sweep, const std::filesystem::path& path);

}  // namespace varscale::analysis
