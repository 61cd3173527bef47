// Whether runs that see their data several times learn them by heart.
//
//   for (const std::string& note : repetition_notes(main_runs)) ...
//
// The gap of a run is its validation loss less its training loss. Drop path and dropped labels shift it, but not over
// time; repeated data let it grow. It is taken at the evaluation nearest to half of the steps and at the last one of the same
// images, with the training loss as the mean over the steps of the last twentieth before each.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runs.hpp"

namespace varscale::analysis {

inline constexpr double kGapWorthSaying = 0.02;  // nats

struct LossGap {
  double half = 0, end = 0;
  double error = 0;  // standard error of end - half, from the scatter of the training loss
  double growth() const { return end - half; }
  bool grows() const { return growth() > kGapWorthSaying && growth() > 4 * error; }
};

// Nothing where the run has no evaluation between 0.3 and 0.7 of its steps, none of the same images in the last 0.15, or too
// few steps before one of them.
std::optional<LossGap> loss_gap(const Run& run);

// One sentence that names the runs of more than one pass whose gap grows; none where there are none.
std::vector<std::string> repetition_notes(std::span<const Run* const> runs);

}  // namespace varscale::analysis
