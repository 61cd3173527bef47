#include "fit/shared.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::fit {
namespace {

constexpr int kScan = 128;
constexpr int kNarrowings = 45;  // golden sections: a bracket of 0.13 in ln alpha to 1e-10

// Both groups as one linear problem at one exponent: columns E (one or two) and B of each group, rows scaled by the
// root of their weight, x over its geometric mean.
class Problem {
 public:
  Problem(std::span<const Observation> a, std::span<const Observation> b, const SharedOptions& options)
      : rows_(static_cast<Eigen::Index>(a.size() + b.size())), same_e_(options.same_e) {
    double sum = 0;
    const std::array groups = {a, b};
    for (size_t g = 0; g < 2; ++g) {
      for (const Observation& p : groups[g]) {
        group_.push_back(g);
        log_x_.push_back(std::log(p.x));
        root_.push_back(std::sqrt(options.weight[g]));
        y_.push_back(p.y);
        sum += log_x_.back();
      }
    }
    mean_ = sum / static_cast<double>(rows_);
  }

  Shared at(double alpha) const {
    const Eigen::Index columns = same_e_ ? 3 : 4, first_b = columns - 2;
    Eigen::MatrixXd matrix = Eigen::MatrixXd::Zero(rows_, columns);
    Eigen::VectorXd right(rows_);
    for (Eigen::Index i = 0; i < rows_; ++i) {
      const auto k = static_cast<size_t>(i);
      const auto g = static_cast<Eigen::Index>(group_[k]);
      matrix(i, same_e_ ? 0 : g) = root_[k];
      matrix(i, first_b + g) = root_[k] * std::exp(-alpha * (log_x_[k] - mean_));
      right[i] = root_[k] * y_[k];
    }
    const Eigen::VectorXd best = non_negative(matrix, right);
    Shared shared;
    shared.alpha = alpha, shared.same_e = same_e_;
    for (size_t g = 0; g < 2; ++g) {
      const auto column = static_cast<Eigen::Index>(g);
      shared.laws[g] = {best[same_e_ ? 0 : column], best[first_b + column] * std::exp(alpha * mean_), alpha};
    }
    shared.objective = (matrix * best - right).squaredNorm();
    return shared;
  }

 private:
  // The best of all subsets of columns whose least squares are not negative: there are sixteen at most. Most often that
  // is all of them.
  static Eigen::VectorXd non_negative(const Eigen::MatrixXd& matrix, const Eigen::VectorXd& right) {
    const Eigen::VectorXd all = matrix.householderQr().solve(right);
    if (all.minCoeff() >= 0) return all;
    const auto count = static_cast<size_t>(matrix.cols());
    Eigen::VectorXd best = Eigen::VectorXd::Zero(matrix.cols());
    double least = right.squaredNorm();
    for (size_t chosen = 1; chosen < (size_t{1} << count); ++chosen) {
      std::vector<Eigen::Index> columns;
      for (size_t c = 0; c < count; ++c)
        if ((chosen >> c & 1) != 0) columns.push_back(static_cast<Eigen::Index>(c));
      const Eigen::MatrixXd part = matrix(Eigen::all, columns);
      const Eigen::VectorXd solution = part.colPivHouseholderQr().solve(right);
      if (solution.minCoeff() < 0) continue;
      const double objective = (part * solution - right).squaredNorm();
      if (objective >= least) continue;
      least = objective;
      best.setZero();
      for (size_t k = 0; k < columns.size(); ++k) best[columns[k]] = solution[static_cast<Eigen::Index>(k)];
    }
    return best;
  }

  Eigen::Index rows_;
  bool same_e_;
  std::vector<size_t> group_;
  std::vector<double> log_x_, root_, y_;
  double mean_ = 0;
};

}  // namespace

double Shared::multiplier() const {
  VARSCALE_CHECK(same_e, "a multiplier of laws with an E each");
  return std::pow(laws[0].B / laws[1].B, 1 / alpha);
}

Shared fit_shared(std::span<const Observation> a, std::span<const Observation> b, const SharedOptions& options) {
  check_points(a, EFree{});
  check_points(b, EFree{});
  const Problem problem(a, b, options);
  const double low = std::log(kSmallestAlpha), high = std::log(kLargestAlpha);
  const auto scanned = [&](int k) { return low + (high - low) * k / (kScan - 1); };
  int best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (int k = 0; k < kScan; ++k)
    if (const double value = problem.at(std::exp(scanned(k))).objective; value < least) least = value, best = k;
  double left = scanned(std::max(best - 1, 0)), right = scanned(std::min(best + 1, kScan - 1));
  const double golden = (std::sqrt(5.0) - 1) / 2;
  const auto objective = [&](double log_alpha) { return problem.at(std::exp(log_alpha)).objective; };
  double one = right - golden * (right - left), two = left + golden * (right - left);
  double at_one = objective(one), at_two = objective(two);
  for (int step = 0; step < kNarrowings; ++step) {
    if (at_one <= at_two) {
      right = two, two = one, at_two = at_one;
      one = right - golden * (right - left), at_one = objective(one);
    } else {
      left = one, one = two, at_one = at_two;
      two = left + golden * (right - left), at_two = objective(two);
    }
  }
  return problem.at(std::exp(0.5 * (left + right)));
}

std::vector<Shared> bootstrap_shared(std::span<const Observation> a, std::span<const Observation> b, const Shared& fitted,
                                     const std::array<Noise, 2>& noise, const SharedOptions& shared,
                                     const BootstrapOptions& options) {
  std::array<std::vector<Observation>, 2> drawn = {std::vector<Observation>(a.begin(), a.end()),
                                                   std::vector<Observation>(b.begin(), b.end())};
  std::vector<Shared> resampled;
  for (int64_t k = 0; k < options.resamples; ++k) {
    for (size_t g = 0; g < 2; ++g) {
      const base::RandomStream random(options.seed, g == 0 ? "shared bootstrap, first" : "shared bootstrap, second",
                                      static_cast<uint64_t>(k));
      const double sd = draw_deviation(noise[g], random);
      for (size_t i = 0; i < drawn[g].size(); ++i) {
        const double law = fitted.laws[g].at(drawn[g][i].x);
        drawn[g][i].y = std::max(law + sd * random.normal(i), 0.5 * law);  // half the law is far outside any real noise
      }
    }
    resampled.push_back(fit_shared(drawn[0], drawn[1], shared));
  }
  return resampled;
}

}  // namespace varscale::fit
