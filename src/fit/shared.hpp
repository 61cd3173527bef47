// Two sets of runs under one exponent: what a change of model or data does, where each alone says too little.
//
//   Shared shared = fit_shared(a, b, {.same_e = true, .weight = {1 / (sd_a * sd_a), 1 / (sd_b * sd_b)}});
//   shared.alpha, shared.laws[1].B
//   shared.multiplier()        // b at x has the value of a at multiplier x; with same_e alone
//
// y = E_g + B_g x^-alpha in group g, least weighted squares: the exponent outside, by a scan of its whole range and a
// golden-section search; the constants inside, by non-negative least squares. Shared exponents make comparisons of few
// sizes well-conditioned (arXiv 2602.07712).
//
// Errors   UserError as in power_law.hpp, for each group by itself.
#pragma once

#include <array>
#include <span>

#include "fit/bootstrap.hpp"
#include "fit/power_law.hpp"

namespace varscale::fit {

struct SharedOptions {
  bool same_e = false;                    // one E for both groups, too
  std::array<double, 2> weight = {1, 1};  // of the squared residuals of each group
};

struct Shared {
  double alpha = 0;
  bool same_e = false;
  std::array<PowerLaw, 2> laws;
  double objective = 0;  // weighted sum of squares

  double multiplier() const;  // (B_a / B_b)^(1 / alpha)
};

Shared fit_shared(std::span<const Observation> a, std::span<const Observation> b, const SharedOptions& options);

// The shared fit of resamples that draw all runs of both groups anew around `fitted`, each with its group's noise,
// whose own uncertainty is drawn too. Random: functions of (options.seed, number of the resample).
std::vector<Shared> bootstrap_shared(std::span<const Observation> a, std::span<const Observation> b, const Shared& fitted,
                                     const std::array<Noise, 2>& noise, const SharedOptions& shared,
                                     const BootstrapOptions& options);

}  // namespace varscale::fit
