// Robust losses of ln y - ln law from many starts: Ceres to the neighbourhood of a minimum, Newton's method into it.
#include <ceres/ceres.h>
#include <glog/logging.h>

#include <Eigen/Dense>
#include <algorithm>
#include <limits>
#include <numeric>
#include <optional>

#include "fit/terms/in_parallel.hpp"
#include "fit/terms/log_law.hpp"

namespace varscale::fit {
namespace {

// The published grid (arXiv 2203.15556, approach 3): exponents, ln E, and logarithms of the coefficients.
constexpr double kGridExponent[] = {0, 0.5, 1, 1.5, 2};
constexpr double kGridLogE[] = {-1, -0.5, 0, 0.5, 1};
constexpr double kGridLogCoefficient[] = {0, 5, 10, 15, 20, 25};

constexpr double kSameEnd = 1e-6;  // two ends whose unknowns are this near are one
constexpr int kMostBfgsSteps = 1000, kMostNewtonSteps = 300;
constexpr double kInfinite = std::numeric_limits<double>::infinity();

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
  std::vector<Unknowns> places;
  for (const Constants& start : starts) {
    Unknowns p = law.unknowns(start);
    by_newton(law, 100 * threshold, p);  // nearer least squares, smoother
    // Starts that have come together there stay so.
    const auto same = std::ranges::find_if(
        places, [&p](const Unknowns& other) { return (p - other).cwiseAbs().maxCoeff() < kSameEnd; });
    const auto place = same - places.begin();
    places.push_back(p);
    if (place < std::ssize(ends)) {
      ends.push_back(ends[static_cast<size_t>(place)]);
      continue;
    }
    by_newton(law, 10 * threshold, p);
    double objective = by_newton(law, threshold, p) * threshold * threshold;
    if (estimator == Estimator::kLad) objective = to_magnitudes(terms, law, p);
    ends.push_back({law.constants(p), objective});
  }
  return ends;
}

}  // namespace varscale::fit
