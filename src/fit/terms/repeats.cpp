// The outermost constant of data_constrained: R, around the projection of all others.
#include <algorithm>

#include "fit/terms/terms.hpp"

namespace varscale::fit {
namespace {

constexpr int kRepeatsScanned = 16, kMostRootSteps = 100;

// The best of all other constants at one R, and the derivative of their objective by ln R.
struct AtRepeats {
  double log_r = 0, slope = 0;
  EndLaw end;
};

AtRepeats at_repeats(std::span<const SurfacePoint> points, const SurfaceSpec& spec, double log_r) {
  const double r = std::exp(log_r);
  const Terms terms(points, spec, r);
  const std::vector<EndPoint> ends = project(terms, spec.space);
  const EndPoint& best = *std::ranges::min_element(ends, {}, &EndPoint::objective);
  AtRepeats at{.log_r = log_r, .end = {terms.law(best.constants), best.objective}};
  // The others are at their best, so the total derivative is the partial one.
  const size_t term = 1;
  const double theta = best.constants.theta[static_cast<size_t>(terms.exponent[term])];
  for (size_t i = 0; i < points.size(); ++i) {
    const double law = at.end.law.at(points[i].x);
    const double part = best.constants.c[term] * std::exp(-theta * terms.t[term][i]);
    const double slope = -theta * part * r * log_slope_of_effective_data(points[i].x[1], points[i].x[2], r);
    at.slope -= spec.space == Space::kLinear ? 2 * (points[i].y - law) * slope
                                             : 2 * (terms.log_y[i] - std::log(law)) * slope / law;
  }
  return at;
}

}  // namespace

std::vector<EndLaw> project_repeats(std::span<const SurfacePoint> points, const SurfaceSpec& spec) {
  const double low = std::log(kSmallestRepeats), high = std::log(kLargestRepeats);
  std::vector<AtRepeats> scan;
  for (int k = 0; k < kRepeatsScanned; ++k)
    scan.push_back(at_repeats(points, spec, low + (high - low) * k / (kRepeatsScanned - 1)));
  std::vector<EndLaw> ends;
  if (scan.front().slope >= 0) ends.push_back(scan.front().end);
  for (int k = 0; k + 1 < kRepeatsScanned; ++k) {
    AtRepeats below = scan[k], above = scan[k + 1];
    if (!(below.slope < 0 && above.slope > 0)) continue;
    // False position; an end that stays twice in a row counts half (Illinois).
    double weight_below = below.slope, weight_above = above.slope;
    for (int step = 0, side = 0; step < kMostRootSteps && above.log_r - below.log_r > 1e-13; ++step) {
      const double middle = (below.log_r * weight_above - above.log_r * weight_below) / (weight_above - weight_below);
      if (!(middle > below.log_r && middle < above.log_r)) break;
      const AtRepeats at = at_repeats(points, spec, middle);
      if (at.slope == 0) {
        below = above = at;
      } else if (at.slope < 0) {
        below = at, weight_below = at.slope;
        if (side == -1) weight_above /= 2;
        side = -1;
      } else {
        above = at, weight_above = at.slope;
        if (side == 1) weight_below /= 2;
        side = 1;
      }
    }
    ends.push_back(below.end.objective <= above.end.objective ? below.end : above.end);
  }
  if (scan.back().slope <= 0) ends.push_back(scan.back().end);
  return ends;
}

}  // namespace varscale::fit
