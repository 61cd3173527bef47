// Prediction of a larger model from smaller ones, and its judgement.
//
//   Prediction prediction = predict(smaller_points, n_d5, EFree{}, options);
//   Verdict verdict = judge(prediction, /*observed=*/{4.3350});
//   verdict.covers && verdict.excludes_zero      // the law said something, and it was right
//
// The loss of the next model is a weak test: "the same as the last one" is wrong by a fraction of a
// percent only. So the judgement is on the *gain*: the mean observed loss of the largest smaller model
// minus the loss of the new one. Its interval has the uncertainty of the constants and the noise of the
// runs, those of the largest smaller model included: every resample draws them anew.
//
// Errors   UserError: too few sizes left for the form, a predicted size that is not above all others.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fit/bootstrap.hpp"
#include "fit/power_law.hpp"

namespace varscale::fit {

struct Prediction {
  PowerFit fit;  // on the smaller sizes alone
  std::optional<Noise>
      noise;              // nothing: one seed a size and no residual freedom; no intervals then
  double x = 0;           // the predicted size
  int64_t runs = 1;       // how many runs its loss will be the mean of
  double previous_x = 0;  // the largest smaller size
  double previous_y = 0;  // its mean observed value
  double y = 0;           // predicted
  double gain = 0;        // previous_y - y
  std::optional<Interval> y_interval, gain_interval;
};

// From `points` alone, all of which are smaller than x. `redraw` is of points that are estimates themselves.
Prediction predict(std::span<const Observation> points, double x, const ERule& e_rule,
                   const BootstrapOptions& options, int64_t runs = 1,
                   const std::optional<Redraw>& redraw = {});

struct Verdict {
  double observed_y = 0;  // mean over the runs of the predicted size
  int64_t runs = 0;
  double observed_gain = 0;
  double relative_error = 0;          // (predicted - observed) / observed, of the loss
  std::optional<bool> covers;         // the gain's interval holds the observed gain
  std::optional<bool> excludes_zero;  // the gain's interval lies above zero
};

Verdict judge(const Prediction& prediction, std::span<const double> observed);

// Leaves the `count` largest sizes out and predicts each of them from the rest.
struct HeldOut {
  Prediction prediction;
  Verdict verdict;
};
std::vector<HeldOut> hold_out_largest(std::span<const Observation> points, const ERule& e_rule,
                                      const BootstrapOptions& options, int64_t count = 1,
                                      const std::optional<Redraw>& redraw = {});

}  // namespace varscale::fit
