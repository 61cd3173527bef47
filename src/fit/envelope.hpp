// The compute-optimal frontier as the lower envelope of what runs have reached.
//
//   std::vector<Curve> curves = {{.N = 44e6, .points = {{1e18, 2e9, 3.9}, {4e18, 8e9, 3.6}}}, ...};  // C, D, loss
//   Envelope envelope = envelope_of(curves, {});              // ends of schedules only
//   envelope.rows, envelope.N->exponent, envelope.left_out()
//   envelope_of(curves, {.checkpoints = Checkpoints{.least_progress = 0.1, .smoothing = 5}});
//
// At budgets C that are evenly spaced in ln C, the size of least loss is a row. Where the best size changes from one
// budget to the next, two sizes are equally good at a crossing between them. Rules, each of which words() states:
// ends       Only the last point of a curve counts: before the learning rate has decayed a loss is too high for its
//            compute, and the more so the longer the schedule. The ends of one size are joined to one curve, ends at
//            one C averaged in ln loss, by cubics of ln loss in ln C with the slopes of parabolas through three ends: a
//            straight line would lie so far above the curve between ends that neighbouring sizes win there. With
//            `checkpoints` every point counts instead, each run a curve of its own, without the first part of the
//            schedule and after a moving average.
// edges      A budget whose best size is the smallest or largest of those that reach it is left out: a smaller or larger
//            one might be better. `edge_sizes` lets them in.
// sizes      A budget that fewer than three sizes reach is left out.
// Bias       A finite set of sizes gives an envelope at or above the frontier; it converges as sizes get denser.
// Exponents  Straight lines of ln N* and ln D* in ln C through at least three crossings, where N* and D* are the geometric
//            means of the two sizes and their data. (Rows are steps, of which the first and the last are cut off where
//            sizes end: a line through rows would be far too steep.) Both sizes must reach both budgets around a crossing.
// Intervals  With the noise of one run: every run is shifted by a draw of it and the envelope is taken again. Without: runs,
//            all of a group together, are drawn with replacement, which opens gaps between the ends of a size and so gives
//            intervals that are far too wide where no place has several runs. Neither has the error of coarse sizes in it.
// Errors     UserError: a value that is not finite and positive, a curve whose C does not rise, a rule out of range.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fit/frontier.hpp"

namespace varscale::fit {

struct CurvePoint {
  double C = 0, D = 0, loss = 0;
};

struct Curve {
  double N = 0;
  std::vector<CurvePoint> points;  // of one run, C rising; the last is the end of its schedule
  int64_t group = -1;              // runs that share steps are resampled together; -1: a group of its own
};

struct Checkpoints {
  double least_progress = 0.1;  // share of the run's D below which its points are left out
  int64_t smoothing = 1;        // points in the moving average of ln loss, odd; 1: none
};

struct EnvelopeRules {
  std::optional<Checkpoints> checkpoints = {};  // nothing: ends of schedules only
  bool edge_sizes = false;
  int64_t budgets_per_decade = 20;
};

std::string points_words(const EnvelopeRules& rules);  // what counts, as a sentence of a report
std::string words(const EnvelopeRules& rules);         // that, and the other rules

struct EnvelopeRow {
  double C = 0, N = 0, D = 0, loss = 0;
  size_t curve = 0;  // of the run whose point is nearest in C
};

struct Crossing {
  double C = 0, N = 0, D = 0;
  double smaller = 0, larger = 0;  // the two sizes
};

struct Envelope {
  std::vector<EnvelopeRow> rows;
  std::vector<Crossing> crossings;  // by rising C; of edge sizes, too, as the best size lies between
  int64_t budgets = 0;  // that were asked
  int64_t at_smallest = 0, at_largest = 0, too_few_sizes = 0;
  std::optional<PowerLine> N, D;   // against C
  std::string why_no_exponents;    // where there are none

  int64_t left_out() const { return budgets - static_cast<int64_t>(rows.size()); }
};

Envelope envelope_of(std::span<const Curve> curves, const EnvelopeRules& rules);

// Nothing where the envelope has no exponents, or 1,000 draws in a row have none.
std::optional<ExponentIntervals> bootstrap_envelope(std::span<const Curve> curves, const EnvelopeRules& rules,
                                                    const BootstrapOptions& options, const std::optional<Noise>& noise = {});

}  // namespace varscale::fit
