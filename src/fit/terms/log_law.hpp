// The logarithm of a law by the logarithms of its constants, with derivatives: what the robust estimators minimise.
#pragma once

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "fit/terms/terms.hpp"

namespace varscale::fit {

// Unknowns: ln E (where E is searched), ln c_j, theta.
using Unknowns = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, kMostConstants, 1>;
using Square = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, 0, kMostConstants, kMostConstants>;

class LogLaw {
 public:
  explicit LogLaw(const Terms& terms)
      : terms_(terms),
        first_(terms.free_e ? 1 : 0),
        outer_(first_ + static_cast<int>(terms.t.size())),
        count_(outer_ + terms.exponents) {}

  int count() const noexcept { return count_; }

  Unknowns unknowns(const Constants& constants) const {
    const auto log_of = [](double c) { return std::log(std::max(c, 1e-300)); };
    Unknowns p(count_);
    if (first_ == 1) p[0] = log_of(constants.E);
    for (int j = first_; j < outer_; ++j) p[j] = log_of(constants.c[j - first_]);
    for (int e = outer_; e < count_; ++e) p[e] = constants.theta[e - outer_];
    return p;
  }
  Constants constants(const Unknowns& p) const {
    Constants constants{.E = first_ == 1 ? std::exp(p[0]) : terms_.given_e};
    for (int j = first_; j < outer_; ++j) constants.c[j - first_] = std::exp(p[j]);
    for (int e = outer_; e < count_; ++e) constants.theta[e - outer_] = p[e];
    return constants;
  }

  // ln y - ln law at one point; with the share of E and of each term in the law. False where the law is no number.
  bool residual(const double* p, size_t i, double& r, std::array<double, 1 + kMostTerms>& share) const {
    double law = terms_.given_e;
    if (first_ == 1) law = share[0] = std::exp(p[0]);
    for (int j = first_; j < outer_; ++j) {
      const int term = j - first_;
      share[j] = std::exp(p[j] - p[outer_ + terms_.exponent[term]] * terms_.t[term][i]);
      law += share[j];
    }
    if (!(law > 0 && law < 1e300)) return false;
    for (int j = 0; j < outer_; ++j) share[j] /= law;
    r = terms_.log_y[i] - std::log(law);
    return true;
  }

  // d ln law / d unknowns.
  void slope(const std::array<double, 1 + kMostTerms>& share, size_t i, double* d) const {
    for (int e = outer_; e < count_; ++e) d[e] = 0;
    for (int j = 0; j < outer_; ++j) d[j] = share[j];
    for (int j = first_; j < outer_; ++j) d[outer_ + terms_.exponent[j - first_]] -= share[j] * terms_.t[j - first_][i];
  }

  // The sum of Huber losses over `unit`, with derivatives where they are asked for; false as in residual().
  bool value(const double* p, double delta, double unit, double& sum, double* gradient, Square* hessian) const {
    sum = 0;
    if (gradient != nullptr) std::fill(gradient, gradient + count_, 0.0);
    if (hessian != nullptr) hessian->setZero(count_, count_);
    std::array<double, 1 + kMostTerms> share{};
    std::array<double, kMostConstants> d{};
    for (size_t i = 0; i < terms_.size(); ++i) {
      double r = 0;
      if (!residual(p, i, r, share)) return false;
      const bool near = std::abs(r) <= delta;
      sum += near ? 0.5 * r * r : delta * (std::abs(r) - 0.5 * delta);
      if (gradient == nullptr) continue;
      const double pull = near ? r : std::copysign(delta, r);
      slope(share, i, d.data());
      for (int a = 0; a < count_; ++a) gradient[a] -= pull * d[a];
      if (hessian == nullptr) continue;
      // The logarithm of a sum of exponentials of linear functions h_j: its second derivative is
      // sum share_j h_j h_j' - d d'.
      const double outer_product = (near ? 1 : 0) + pull;
      for (int a = 0; a < count_; ++a)
        for (int b = 0; b <= a; ++b) (*hessian)(a, b) += outer_product * d[a] * d[b];
      for (int j = 0; j < outer_; ++j) {
        (*hessian)(j, j) -= pull * share[j];
        if (j < first_) continue;
        const int e = outer_ + terms_.exponent[j - first_];
        const double t = terms_.t[j - first_][i];
        (*hessian)(e, j) += pull * share[j] * t;
        (*hessian)(e, e) -= pull * share[j] * t * t;
      }
    }
    sum /= unit;
    if (gradient != nullptr)
      for (int a = 0; a < count_; ++a) gradient[a] /= unit;
    if (hessian != nullptr) {
      *hessian /= unit;
      for (int a = 0; a < count_; ++a)
        for (int b = 0; b < a; ++b) (*hessian)(b, a) = (*hessian)(a, b);
    }
    return std::isfinite(sum);
  }

  double magnitudes(const Unknowns& p) const {
    double sum = 0, r = 0;
    std::array<double, 1 + kMostTerms> share{};
    for (size_t i = 0; i < terms_.size(); ++i) {
      if (!residual(p.data(), i, r, share)) return std::numeric_limits<double>::infinity();
      sum += std::abs(r);
    }
    return sum;
  }

 private:
  const Terms& terms_;
  int first_, outer_, count_;
};

// The sum of Huber losses in units of delta^2 at the end, by Newton's method from p.
double by_newton(const LogLaw& law, double delta, Unknowns& p);
// From a minimum of Huber losses to the least sum of magnitudes near it, which is returned.
double to_magnitudes(const Terms& terms, const LogLaw& law, Unknowns& p);

inline constexpr double kFirstThreshold = 1e-3;  // of the Huber losses where the sum of magnitudes begins

}  // namespace varscale::fit
