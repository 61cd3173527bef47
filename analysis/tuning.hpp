// Learning rates: tuned at each point of a sweep, their rule checked beside it, or neither.
//
//   sweep.tuned = tuned_points(sweep);                        // of a sweep that declares tune: [optimizer.lr]
//   LearningRates rates = learning_rates(sweep, check);       // check: a small sweep of that kind, or nothing
//   rates.sentence()                                          // "lr rule checked at d6, d8 with 10 % ..."
//
// A point of a tuned sweep is what the runs of one depth, budget and role come to at the vertex of a parabola
// of loss_mean in the log of the rate (fit/vertex.hpp). Their other values are read at the same rate.
//
// Errors   UserError: a check that is no tuned sweep, of a depth that the sweep does not have, or at another batch.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "runs.hpp"

namespace varscale::analysis {

// Of the finished runs. A depth and budget of role main with fewer than three rates so far is in `sweep.left_out`.
std::vector<TunedPoint> tuned_points(SweepRuns& sweep);

// How the points `runs` deviate where some of them are tuned and something tells the noise of one run.
std::optional<fit::Redraw> redraw_of(const SweepRuns& sweep, std::span<const Run* const> runs, Metric metric);

struct RateFinding {
  int64_t depth = 0, images = 0;
  std::vector<fit::Observation> losses;  // by rate
  fit::Vertex best;
  std::optional<double> rule;  // the rate that is checked
};

struct LearningRates {
  enum class State { kTuned, kChecked, kUnchecked };
  State state = State::kUnchecked;
  std::vector<RateFinding> findings;
  std::string checked_in;    // the folder
  double budget_share = 0;  // of the check, over the sweep's budget

  std::string word() const;      // "lr tuned", "lr rule checked", "lr unchecked"
  std::string sentence() const;  // begins with it
};

LearningRates learning_rates(const SweepRuns& sweep, const std::optional<SweepRuns>& check);

}  // namespace varscale::analysis
