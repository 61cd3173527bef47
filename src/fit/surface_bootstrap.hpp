// Intervals and covariance of a surface's constants from resampled runs.
//
//   SurfaceBootstrap bootstrap = *bootstrap_surface(points, fit, {.resamples = 4000, .seed = 1, .level = 0.95});
//   Interval alpha = bootstrap.interval("alpha");
//   Interval a = bootstrap.interval([](const SurfaceLaw& law) { return compute_exponent(law); });
//   Spread spread = bootstrap.spread();                      // standard errors and joint covariance
//
// From kFewSizes distinct sizes (pairs of the variables) on, whole runs are drawn with replacement, all points of a
// run together; a resample that does not determine the constants is drawn again and counted. Below, every resample
// draws all points anew around the fitted law with the noise of one run, as in bootstrap.hpp; nothing where no size
// is repeated and there are no more points than constants, as then nothing tells that noise.
// Each refit is by the fit's own estimator: vpnls and lsq from nothing, huber, lad and the form bnsl from the fit's minima.
//
// Random   Every resample is a function of (options.seed, its number): the same bits at any number of threads.
// Errors   UserError: fewer than 100 resamples; runs of which so few determine the constants that drawing them anew
//          finds none in 1,000 tries.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "fit/bootstrap.hpp"
#include "fit/surface.hpp"

namespace varscale::fit {

struct Spread {
  std::vector<double> se;                       // as constant_names(form)
  std::vector<std::vector<double>> covariance;  // the same order
};

struct SurfaceBootstrap {
  BootstrapMethod method = BootstrapMethod::kByRun;
  std::optional<Noise> noise;  // of the parametric method
  double level = 0.9;
  int64_t runs = 0;     // that were drawn from
  int64_t redrawn = 0;  // resamples that did not determine the constants
  std::vector<SurfaceLaw> laws;

  std::vector<double> values(const std::function<double(const SurfaceLaw&)>& of) const;
  Interval interval(const std::function<double(const SurfaceLaw&)>& of) const;
  Interval interval(std::string_view constant) const;
  Spread spread() const;
};

std::optional<SurfaceBootstrap> bootstrap_surface(std::span<const SurfacePoint> points, const SurfaceFit& fit,
                                                  const BootstrapOptions& options);

// a = beta / (alpha + beta) of the form chinchilla: at least loss for compute C = 6 N D, N grows as C^a and D as C^(1-a).
double compute_exponent(const SurfaceLaw& law);

double deviation(const std::vector<double>& values);  // about the mean, over n - 1

}  // namespace varscale::fit
