// Robust losses of ln y - ln law from many starts: Ceres to the neighbourhood of a minimum, Newton's method into it.
#include <ceres/ceres.h>
#include <glog/logging.h>

#include <Eigen/Dense>
#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "fit/terms/in_parallel.hpp"
#include "fit/terms/terms.hpp"

namespace varscale::fit {
namespace {

// The published grid (arXiv 2203.15556, approach 3): exponents, ln E, and logarithms of the coefficients.
constexpr double kGridExponent[] = {0, 0.5, 1, 1.5, 2};
constexpr double kGridLogE[] = {-1, -0.5, 0, 0.5, 1};
constexpr double kGridLogCoefficient[] = {0, 5, 10, 15, 20, 25};

constexpr double kSmallestThreshold = 1e-8;  // of the sum of magnitudes
constexpr double kFirstThreshold = 1e-3;     // where it begins
constexpr double kSameEnd = 1e-6;            // two ends whose unknowns are this near are one
constexpr int kMostBfgsSteps = 1000, kMostNewtonSteps = 300;
constexpr double kInfinite = std::numeric_limits<double>::infinity();

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
    for (int j = first_; j < outer_; ++j)
      d[outer_ + terms_.exponent[j - first_]] -= share[j] * terms_.t[j - first_][i];
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
      if (!residual(p.data(), i, r, share)) return kInfinite;
      sum += std::abs(r);
    }
    return sum;
  }

 private:
  const Terms& terms_;
  int first_, outer_, count_;
};

// In units of delta^2, as solvers' tolerances ask for an objective near 1: unscaled, BFGS stops early and says
// that it has converged.
class Objective : public ceres::FirstOrderFunction {
 public:
  Objective(const LogLaw& law, double delta) : law_(law), delta_(delta) {}
  int NumParameters() const override { return law_.count(); }
  bool Evaluate(const double* p, double* cost, double* gradient) const override {
    return law_.value(p, delta_, delta_ * delta_, *cost, gradient, nullptr);
  }

 private:
  const LogLaw& law_;
  double delta_;
};

// A line search that has come to the floor of rounding warns on stderr, whatever logging_type says.
class WithoutWarnings {
 public:
  WithoutWarnings() : before_(FLAGS_minloglevel) { FLAGS_minloglevel = google::GLOG_ERROR; }
  ~WithoutWarnings() { FLAGS_minloglevel = before_; }
  WithoutWarnings(const WithoutWarnings&) = delete;
  WithoutWarnings& operator=(const WithoutWarnings&) = delete;

 private:
  int before_;
};

Unknowns by_bfgs(const LogLaw& law, double delta, Unknowns p) {
  const ceres::GradientProblem problem(new Objective(law, delta));  // which owns and deletes it
  ceres::GradientProblemSolver::Options options;
  options.line_search_direction_type = ceres::BFGS;
  options.max_num_iterations = kMostBfgsSteps;
  options.function_tolerance = options.parameter_tolerance = 1e-14;
  options.gradient_tolerance = 1e-10;
  options.logging_type = ceres::SILENT;
  ceres::GradientProblemSolver::Summary summary;
  ceres::Solve(options, problem, p.data(), &summary);
  return p;
}

// The objective, in units of delta^2, at the end.
double by_newton(const LogLaw& law, double delta, Unknowns& p) {
  Unknowns gradient(law.count());
  Square hessian(law.count(), law.count());
  const double unit = delta * delta;
  double now = 0, damping = 0;
  if (!law.value(p.data(), delta, unit, now, gradient.data(), &hessian)) return kInfinite;
  for (int step = 0; step < kMostNewtonSteps; ++step) {
    bool moved = false;
    double length = 0, gain = 0;
    for (int attempt = 0; attempt < 60 && !moved; ++attempt) {
      if (attempt > 0) damping = std::max(4 * damping, 1e-8);
      Square matrix = hessian;
      for (int a = 0; a < law.count(); ++a) matrix(a, a) += damping * (std::abs(hessian(a, a)) + 1e-12);
      const Eigen::LLT<Square> factor(matrix);
      if (factor.info() != Eigen::Success) continue;
      const Unknowns by = factor.solve(-gradient);
      length = by.cwiseAbs().maxCoeff();
      if (!(length < 2)) continue;
      if (length < 1e-15) break;
      const Unknowns trial = p + by;
      Unknowns trial_gradient(law.count());
      Square trial_hessian(law.count(), law.count());
      double there = 0;
      if (!law.value(trial.data(), delta, unit, there, trial_gradient.data(), &trial_hessian)) continue;
      if (there < now || (there <= now * (1 + 1e-14) && trial_gradient.norm() < 0.5 * gradient.norm())) {
        moved = true;
        gain = now - there;
        p = trial, now = there, gradient = trial_gradient, hessian = trial_hessian;
        damping = damping < 1e-8 ? 0 : damping / 64;
      }
    }
    if (!moved || (length < 1e-13 && gain <= 1e-15 * now)) break;
  }
  return now;
}

// A least sum of magnitudes meets as many points as it has unknowns. They are those nearest to the law once the
// threshold is small, but for points whose slopes the nearer ones' make up; the law is then put through them.
void through_nearest(const Terms& terms, const LogLaw& law, Unknowns& p) {
  constexpr double kIndependent = 1e-6;
  const int count = law.count();
  std::array<double, 1 + kMostTerms> share{};
  Unknowns slope = Unknowns::Zero(count);
  std::vector<double> distance(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) {
    if (!law.residual(p.data(), i, distance[i], share)) return;
    distance[i] = std::abs(distance[i]);
  }
  std::vector<size_t> order(terms.size()), met;
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return distance[a] < distance[b]; });
  std::vector<Unknowns> basis;
  for (const size_t i : order) {
    double r = 0;
    law.residual(p.data(), i, r, share);
    law.slope(share, i, slope.data());
    const double length = slope.norm();
    for (const Unknowns& each : basis) slope -= each.dot(slope) * each;
    if (slope.norm() <= kIndependent * length) continue;
    basis.push_back(slope.normalized());
    met.push_back(i);
    if (static_cast<int>(met.size()) == count) break;
  }
  if (static_cast<int>(met.size()) < count) return;
  Unknowns through = p, left(count);
  Square slopes(count, count);
  for (int step = 0; step < 20; ++step) {
    for (int k = 0; k < count; ++k) {
      if (!law.residual(through.data(), met[k], left[k], share)) return;
      law.slope(share, met[k], slope.data());
      slopes.row(k) = slope.transpose();
    }
    const Eigen::FullPivLU<Square> factor(slopes);
    if (!factor.isInvertible()) return;
    const Unknowns by = factor.solve(left);
    if (!(by.norm() < 1e-2)) return;  // not where Newton's method may be trusted
    through += by;
    if (by.norm() < 1e-15) break;
  }
  if (law.magnitudes(through) <= law.magnitudes(p)) p = through;
}

// From a minimum at the first threshold to the least sum of magnitudes near it.
double to_magnitudes(const Terms& terms, const LogLaw& law, Unknowns& p) {
  for (double threshold = kFirstThreshold; threshold > 0.5 * kSmallestThreshold; threshold /= 10)
    by_newton(law, threshold, p);
  through_nearest(terms, law, p);
  return law.magnitudes(p);
}

std::vector<Constants> grid(const Terms& terms) {
  std::vector<Constants> starts(1, Constants{.E = terms.given_e});
  const auto vary = [&starts](std::span<const double> values, auto&& set) {
    std::vector<Constants> more;
    for (const Constants& start : starts)
      for (double value : values) set(more.emplace_back(start), value);
    starts = std::move(more);
  };
  for (int e = 0; e < terms.exponents; ++e)
    vary(kGridExponent, [e](Constants& start, double value) { start.theta[e] = value; });
  if (terms.free_e) vary(kGridLogE, [](Constants& start, double value) { start.E = std::exp(value); });
  for (size_t j = 0; j < terms.t.size(); ++j)
    vary(kGridLogCoefficient, [j, &terms](Constants& start, double value) {
      start.c[j] = std::exp(value - start.theta[terms.exponent[j]] * terms.mean_t[j]);
    });
  return starts;
}

}  // namespace

std::vector<EndPoint> search_grid(const Terms& terms, Estimator estimator, double delta) {
  const LogLaw law(terms);
  const std::vector<Constants> starts = grid(terms);
  const double threshold = estimator == Estimator::kLad ? kFirstThreshold : delta;
  std::vector<Unknowns> places(starts.size());
  std::vector<EndPoint> ends(starts.size());
  const WithoutWarnings quiet;
  in_parallel(starts.size(), [&](size_t i) {
    places[i] = by_bfgs(law, threshold, law.unknowns(starts[i]));
    ends[i].objective = by_newton(law, threshold, places[i]) * threshold * threshold;
    ends[i].constants = law.constants(places[i]);
  });
  if (estimator != Estimator::kLad) return ends;

  // Starts that have come together stay so: one of them goes on for all.
  std::vector<size_t> leaders, leader_of(starts.size());
  for (size_t i = 0; i < starts.size(); ++i) {
    const auto same = std::find_if(leaders.begin(), leaders.end(), [&](size_t k) {
      return (places[i] - places[k]).cwiseAbs().maxCoeff() < kSameEnd;
    });
    leader_of[i] = same == leaders.end() ? i : *same;
    if (leader_of[i] == i) leaders.push_back(i);
  }
  std::vector<EndPoint> of_leaders(starts.size());
  in_parallel(leaders.size(), [&](size_t k) {
    Unknowns p = places[leaders[k]];
    of_leaders[leaders[k]].objective = to_magnitudes(terms, law, p);
    of_leaders[leaders[k]].constants = law.constants(p);
  });
  for (size_t i = 0; i < starts.size(); ++i) ends[i] = of_leaders[leader_of[i]];
  return ends;
}

std::vector<EndPoint> search_from(const Terms& terms, Estimator estimator, double delta,
                                  std::span<const Constants> starts) {
  const LogLaw law(terms);
  const double threshold = estimator == Estimator::kLad ? kFirstThreshold : delta;
  std::vector<EndPoint> ends;
  for (const Constants& start : starts) {
    Unknowns p = law.unknowns(start);
    for (const double wide : {100.0, 10.0}) by_newton(law, wide * threshold, p);  // nearer least squares, smoother
    double objective = by_newton(law, threshold, p) * threshold * threshold;
    if (estimator == Estimator::kLad) objective = to_magnitudes(terms, law, p);
    ends.push_back({law.constants(p), objective});
  }
  return ends;
}

}  // namespace varscale::fit
