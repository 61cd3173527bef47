#include <ceres/ceres.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "fit/power_law.hpp"

namespace varscale::fit {
namespace {

constexpr double kShareOfE[] = {0.2, 0.6, 0.9, 0.97, 0.995};  // of the smallest y
constexpr double kAlpha[] = {0.05, 0.1, 0.2, 0.4, 0.8};
constexpr double kFactorOfB[] = {0.3, 1, 3};  // of what is left of the mean y above E
constexpr double kSameObjective = 1e-6;
constexpr double kTolerance = 1e-15;
constexpr int kMostIterations = 2000;

// ln y - ln(E + exp(ln b - alpha ln z)), with E positive and free.
struct FreeResidual {
  double log_z, log_y;
  template <class T>
  bool operator()(const T* log_e, const T* log_b, const T* alpha, T* residual) const {
    using std::exp;
    using std::log;
    const T power = *log_b - *alpha * log_z;
    const T high = power > *log_e ? power : *log_e;
    *residual = log_y - (high + log(exp(*log_e - high) + exp(power - high)));
    return true;
  }
};

struct GivenResidual {
  double log_z, log_y, E;
  template <class T>
  bool operator()(const T* log_b, const T* alpha, T* residual) const {
    using std::exp;
    using std::log;
    *residual = log_y - log(E + exp(*log_b - *alpha * log_z));
    return true;
  }
};

struct Point {
  double log_e, log_b, alpha;
};

double solve(std::span<const Observation> points, const EGiven* given, double log_x0, double delta,
             Point& point) {
  ceres::Problem problem;
  for (const Observation& p : points) {
    const double log_z = std::log(p.x) - log_x0, log_y = std::log(p.y);
    auto* loss = new ceres::HuberLoss(delta);  // the problem owns and deletes it
    if (given == nullptr) {
      problem.AddResidualBlock(
          new ceres::AutoDiffCostFunction<FreeResidual, 1, 1, 1, 1>(new FreeResidual{log_z, log_y}),
          loss, &point.log_e, &point.log_b, &point.alpha);
    } else {
      problem.AddResidualBlock(new ceres::AutoDiffCostFunction<GivenResidual, 1, 1, 1>(
                                   new GivenResidual{log_z, log_y, given->value}),
                               loss, &point.log_b, &point.alpha);
    }
  }
  ceres::Solver::Options options;
  options.linear_solver_type = ceres::DENSE_QR;
  options.max_num_iterations = kMostIterations;
  options.function_tolerance = options.gradient_tolerance = options.parameter_tolerance =
      kTolerance;
  options.logging_type = ceres::SILENT;
  ceres::Solver::Summary summary;
  ceres::Solve(options, &problem, &summary);
  // Ceres minimises half the sum of rho(r^2), which is the sum of Huber losses as the paper writes it.
  return summary.IsSolutionUsable() ? summary.final_cost : std::numeric_limits<double>::infinity();
}

}  // namespace

HuberCheck fit_log_huber(std::span<const Observation> points, const ERule& e_rule, double delta) {
  check_points(points, e_rule);
  VARSCALE_CHECK(delta > 0, "the Huber threshold is {}", delta);
  const auto* given = std::get_if<EGiven>(&e_rule);
  double log_x0 = 0, mean_y = 0, lowest = points.front().y;
  for (const Observation& p : points) {
    log_x0 += std::log(p.x) / static_cast<double>(points.size());
    mean_y += p.y / static_cast<double>(points.size());
    lowest = std::min(lowest, p.y);
  }

  HuberCheck best;
  best.delta = delta;
  best.objective = std::numeric_limits<double>::infinity();
  std::vector<double> objectives;
  for (double share : kShareOfE) {
    const double E = given ? given->value : share * lowest;
    for (double alpha : kAlpha) {
      for (double factor : kFactorOfB) {
        Point point{std::log(E), std::log(factor * (mean_y - E)), alpha};
        const double objective = solve(points, given, log_x0, delta, point);
        objectives.push_back(objective);
        if (objective < best.objective) {
          best.objective = objective;
          best.law = {given ? given->value : std::exp(point.log_e),
                      std::exp(point.log_b + point.alpha * log_x0), point.alpha};
        }
      }
    }
    if (given) break;  // E is no start to vary
  }
  best.starts = static_cast<int64_t>(objectives.size());
  // The floor lets exact data, whose objective is rounding, count as reached.
  const double limit = best.objective * (1 + kSameObjective) + 1e-20;
  best.starts_at_best = std::count_if(objectives.begin(), objectives.end(),
                                      [limit](double objective) { return objective <= limit; });
  return best;
}

}  // namespace varscale::fit
