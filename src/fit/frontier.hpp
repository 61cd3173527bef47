// The compute-optimal frontier of a law L(N, D): for each compute C the size N and data D of least loss.
//
//   Frontier frontier = analytic_frontier(law);                       // C = 6 N D
//   frontier.at(1e20).N, .D, .loss; frontier.a                        // N* grows as C^a, D* as C^b
//   CostFit cost = fit_cost(points);                                  // C = k N^p D through what runs have cost
//   Frontier own = analytic_frontier(law, cost.cost);
//   PowerLine line = *fit_power_line(computes, sizes);                // y = coefficient x^exponent
//
// Cost       C = k N^p D. Training FLOPs are exactly proportional to D, but those of one token are not proportional to N:
//            heads, attention and what works once an image have shares that change with size. k = 6 and p = 1 is the
//            rule of thumb.
// Closed     With alpha' = alpha / p, X = C / k and G = (alpha' A / (beta B))^(1 / (alpha' + beta)):
// form       N*^p = G X^(beta / (alpha' + beta)), D* = X^(alpha' / (alpha' + beta)) / G,
//            L* - E = (A G^-alpha' + B G^beta) X^(-alpha' beta / (alpha' + beta)).
//            For p = 1 that is section 3.3 of arXiv 2203.15556.
// Units      N, D and C as in the law and in the points.
// Errors     UserError: a law of another form, or without an optimum inside (A = 0 or B = 0); points that are not finite
//            and positive.
#pragma once

#include <optional>
#include <span>

#include "fit/bootstrap.hpp"
#include "fit/surface.hpp"

namespace varscale::fit {

struct ComputeCost {
  double k = 6, n_power = 1;
  double of(double N, double D) const;
  double data(double N, double C) const;  // the D that N can see for C
};

struct CostPoint {
  double N = 0, D = 0, C = 0;
};

struct CostFit {
  ComputeCost cost;
  double largest_deviation = 0;         // of ln C of a point from the cost's
  double least = 0, median = 0, most = 0;  // C / (N D) of the points
};

// Least squares of ln(C / D) in ln N; points of one size leave p at 1.
CostFit fit_cost(std::span<const CostPoint> points);

struct Optimum {
  double N = 0, D = 0, loss = 0;
};

struct Frontier {
  ComputeCost cost;
  double G = 0, a = 0, b = 0;  // p a + b = 1
  double E = 0, above_e = 0, loss_exponent = 0;  // L* = E + above_e X^-loss_exponent
  Optimum at(double C) const;
};

Frontier analytic_frontier(const SurfaceLaw& law, const ComputeCost& cost = {});

struct PowerLine {
  double coefficient = 0, exponent = 0;
  double rmse = 0;  // of ln y
  double at(double x) const;
};

// Least squares of ln y in ln x; nothing where there are fewer than two distinct x.
std::optional<PowerLine> fit_power_line(std::span<const double> x, std::span<const double> y);

// Of the exponents of N* (a) and D* (b), from resampled runs.
struct ExponentIntervals {
  Interval a, b;
  int64_t resamples = 0, redrawn = 0;  // resamples without exponents, which were drawn again
  double level = 0.9;
};

}  // namespace varscale::fit
