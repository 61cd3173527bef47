// The compute-optimal frontier of a sweep: how size and data share a budget of compute best.
//
//   const ComputeFrontier frontier = compute_frontier(sweep, options);
//   if (frontier.fitted()) frontier.sentence();             // "compute-optimal: N* grows as C^0.52 [0.50, 0.54] by ..."
//   else frontier.not_fitted                                // why, one sentence
//   write_frontier_csv(frontier, out); frontier_json(frontier); frontier_html(frontier, figure);
//
// Over the points of role main and data (runs.hpp), at least three sizes of which have two budgets each. N is all
// parameters, D training tokens seen (images times tokens an image, repeats counted), C the training FLOPs of the run.
// Three ways, each where the sweep allows it, for loss_mean; L(N, D) for loss_tail, too:
//   L(N, D)    a chinchilla through the points (fit/surface.hpp) and its least loss along C = k N^p D, which is fitted to
//              what the runs have cost
//   envelope   the lowest of the ends of schedules, and for comparison of all checkpoints (fit/envelope.hpp)
//   isoFLOP    parabolas through runs of equal C, with their bias by L(N, D) (fit/isoflop.hpp)
// What is not possible is in `notes`, one sentence each.
//
// Errors   UserError: a stated E that is not below the losses.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fit/envelope.hpp"
#include "fit/frontier.hpp"
#include "fit/isoflop.hpp"
#include "fit/surface_bootstrap.hpp"
#include "laws.hpp"
#include "runs.hpp"

namespace varscale::analysis {

struct FrontierLaw {
  Metric metric = Metric::kLossMean;
  std::string e_rule;  // "free" or "given"
  fit::SurfaceFit fit;
  std::optional<fit::SurfaceBootstrap> bootstrap = {};
  std::optional<fit::Frontier> frontier = {};  // nothing where a constant other than E lies on its bound
  std::vector<fit::Frontier> resampled = {};   // of the resamples that have one

  using Interval = std::optional<fit::Interval>;
  Interval a() const;
  Interval b() const;
  Interval size_at(double C) const;  // of N*
  Interval data_at(double C) const;
};

struct FrontierEnvelope {
  std::vector<const Run*> runs;  // of each curve
  fit::EnvelopeRules rules;
  fit::Envelope envelope;
  std::optional<fit::Noise> noise = {};  // of one run, from which the intervals are; nothing: runs were resampled
  std::optional<fit::ExponentIntervals> intervals = {};

  std::string points() const { return rules.checkpoints ? "checkpoints" : "ends"; }
};

struct FrontierIsoFlop {
  std::vector<fit::RunPoint> points;  // as ComputeFrontier::runs
  fit::IsoFlop iso;                   // its groups of three sizes or more
  std::optional<fit::ExponentIntervals> intervals;
  std::optional<fit::IsoFlopBias> bias;
};

struct ComputeFrontier {
  std::string not_fitted;        // empty, or why there is nothing below
  std::vector<const Run*> runs;  // the points
  fit::CostFit cost;
  std::vector<FrontierLaw> laws;
  std::vector<FrontierEnvelope> envelopes;  // of ends, of checkpoints
  std::optional<FrontierIsoFlop> isoflop;   // where there is a group of three sizes
  std::vector<std::string> notes;

  const FrontierLaw* headline() const;  // loss_mean, E free; null where it has no frontier
  bool fitted() const;                  // there is an exponent by one of the ways
  std::string sentence() const;         // of the exponents; where fitted()
  double least_compute() const;         // of the points
  double most_compute() const;
  double tokens_per_image() const { return static_cast<double>(runs.front()->tokens_per_image); }
};

// `sweep` must outlive it.
ComputeFrontier compute_frontier(const SweepRuns& sweep, const Options& options);

void write_frontier_csv(const ComputeFrontier& frontier, const std::filesystem::path& out);
nlohmann::ordered_json frontier_json(const ComputeFrontier& frontier);
// A part of the report: words, `figure`, and tables. Empty where nothing was fitted.
std::string frontier_html(const ComputeFrontier& frontier, const std::string& figure);

}  // namespace varscale::analysis
