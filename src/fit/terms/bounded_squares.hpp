// Least squares of few unknowns within bounds, by Levenberg and Marquardt's method.
//
//   at(p, squares)   the sum of squared residuals r at p, infinite where there is none; with J'r and J'J of the model's
//                    derivatives J where `squares` is not null. An unknown whose column is 0 stays where it is.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <span>

namespace varscale::fit {

inline constexpr int kMostUnknowns = 6;
using UnknownVector = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, kMostUnknowns, 1>;
using UnknownMatrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, 0, kMostUnknowns, kMostUnknowns>;

struct Squares {
  UnknownVector down;    // J'r
  UnknownMatrix square;  // J'J
};

// From p, which becomes the end; the sum there.
template <class At>
double minimise_within(const At& at, std::span<const double> low, std::span<const double> high, UnknownVector& p) {
  constexpr int kMostSteps = 300, kMostAttempts = 40;
  constexpr double kNoGain = 1e-14;  // relative
  const auto count = p.size();
  Squares here, there;
  double now = at(p, &here), damping = 1e-4;
  for (int step = 0; step < kMostSteps; ++step) {
    bool moved = false;
    double gain = 0;
    for (int attempt = 0; attempt < kMostAttempts && !moved; ++attempt) {
      UnknownMatrix matrix = here.square;
      UnknownVector right = here.down;
      for (Eigen::Index k = 0; k < count; ++k) {
        const bool stays = !(here.square(k, k) > 0) || (p[k] <= low[k] && right[k] <= 0) || (p[k] >= high[k] && right[k] >= 0);
        if (stays) {
          matrix.row(k).setZero(), matrix.col(k).setZero();
          matrix(k, k) = 1, right[k] = 0;
        } else {
          matrix(k, k) *= 1 + damping;
        }
      }
      const UnknownVector scale = matrix.diagonal().cwiseSqrt().cwiseInverse();
      const UnknownMatrix scaled = scale.asDiagonal() * matrix * scale.asDiagonal();
      const UnknownVector by = scale.cwiseProduct(scaled.ldlt().solve(scale.cwiseProduct(right).eval()));
      UnknownVector trial(count);
      for (Eigen::Index k = 0; k < count; ++k) trial[k] = std::clamp(p[k] + by[k], low[k], high[k]);
      if (const double sum = at(trial, &there); sum < now) {
        gain = now - sum;
        moved = true;
        p = trial, now = sum, here = there;
        damping = damping / 10 < 1e-12 ? 0 : damping / 10;
      } else {
        damping = std::max(10 * damping, 1e-10);
      }
    }
    if (!moved || gain <= kNoGain * now) break;
  }
  return now;
}

}  // namespace varscale::fit
