// Variable projection: exponents outside, linear constants inside.
#include <Eigen/Dense>
#include <algorithm>
#include <limits>

#include "fit/terms/terms.hpp"

namespace varscale::fit {
namespace {

constexpr int kScanOfOne = 64, kScanOfTwo = 24;  // log-spaced exponents, each
constexpr int kMostInnerSteps = 200, kMostOuterSteps = 200;
constexpr double kInf = std::numeric_limits<double>::infinity();

// What the linear problem z = E + sum c_j (1 + g_j) needs to know of its columns: g is the growth exp(-theta t) - 1,
// which keeps its digits where theta is small. Products are about the weighted means.
struct Gram {
  double weight = 0, mean_z = 0, zz = 0;
  std::array<double, kMostTerms> mean_g{}, gz{};
  double gg[kMostTerms][kMostTerms] = {};
};

struct Linear {
  double E = 0, objective = kInf;
  std::array<double, kMostTerms> c{};
};

// Least squares over the chosen terms alone, with E searched or held.
Linear solve_subset(const Gram& gram, int terms, unsigned chosen, bool free_e, double held_e) {
  Linear result{.E = held_e};
  double mean_z = gram.mean_z - (free_e ? 0 : held_e);
  const double about = free_e ? 0 : gram.weight;  // products about zero where E is held
  double a[kMostTerms][kMostTerms] = {}, b[kMostTerms] = {};
  int index[kMostTerms] = {}, n = 0;
  for (int j = 0; j < terms; ++j)
    if (chosen >> j & 1) index[n++] = j;
  for (int j = 0; j < n; ++j) {
    b[j] = gram.gz[index[j]] + about * (1 + gram.mean_g[index[j]]) * mean_z;
    for (int k = 0; k < n; ++k)
      a[j][k] = gram.gg[index[j]][index[k]] + about * (1 + gram.mean_g[index[j]]) * (1 + gram.mean_g[index[k]]);
  }
  double c[kMostTerms] = {};
  if (n == 1) {
    if (!(a[0][0] > 0)) return result;
    c[0] = b[0] / a[0][0];
  } else if (n == 2) {
    const double determinant = a[0][0] * a[1][1] - a[0][1] * a[1][0];
    if (!(determinant > 0)) return result;
    c[0] = (b[0] * a[1][1] - b[1] * a[0][1]) / determinant;
    c[1] = (b[1] * a[0][0] - b[0] * a[1][0]) / determinant;
  }
  result.objective = gram.zz + about * mean_z * mean_z;
  if (free_e) result.E = mean_z;
  for (int j = 0; j < n; ++j) {
    result.c[index[j]] = c[j];
    result.objective -= c[j] * b[j];
    if (free_e) result.E -= c[j] * (1 + gram.mean_g[index[j]]);
    if (c[j] < 0) result.objective = kInf;
  }
  if (result.E < 0) result.objective = kInf;
  return result;
}

// Non-negative least squares: the problem is convex, so the best feasible subset is its solution.
Linear solve_non_negative(const Gram& gram, const Terms& terms) {
  const int count = static_cast<int>(terms.t.size());
  const unsigned all = (1u << count) - 1;
  Linear best = solve_subset(gram, count, all, terms.free_e, terms.given_e);
  if (best.objective < kInf) return best;
  for (unsigned chosen = 0; chosen <= all; ++chosen) {
    for (const bool with_e : {true, false}) {
      if (with_e && !terms.free_e) continue;
      const Linear one = solve_subset(gram, count, chosen, with_e, with_e ? 0 : terms.given_e);
      if (one.objective < best.objective) best = one;
    }
  }
  return best;
}

// The best linear constants at some exponents, the objective there, and its first and second derivatives by the
// exponents with the linear constants following.
struct Projected {
  Constants constants;
  double objective = 0;
  Eigen::Vector2d slope = Eigen::Vector2d::Zero();
  Eigen::Matrix2d curvature = Eigen::Matrix2d::Zero();
};

class Projection {
 public:
  Projection(const Terms& terms, Space space)
      : terms_(terms), space_(space), growth_(terms.t.size(), std::vector<double>(terms.size())) {}

  Projected at(const std::array<double, kMostExponents>& theta) {
    for (size_t j = 0; j < growth_.size(); ++j) {
      const double exponent = theta[terms_.exponent[j]];
      for (size_t i = 0; i < terms_.size(); ++i) growth_[j][i] = std::expm1(-exponent * terms_.t[j][i]);
    }
    Linear linear;
    if (space_ == Space::kLinear) {
      linear = solve(std::vector<double>(terms_.size(), 1), terms_.y);
    } else {
      linear = solve_logarithmic();
    }
    Projected p;
    p.constants = {linear.E, linear.c, theta};
    differentiate(p);
    return p;
  }

 private:
  Linear solve(const std::vector<double>& weight, const std::vector<double>& z) const {
    Gram gram;
    for (size_t i = 0; i < z.size(); ++i) {
      gram.weight += weight[i];
      gram.mean_z += weight[i] * z[i];
      for (size_t j = 0; j < growth_.size(); ++j) gram.mean_g[j] += weight[i] * growth_[j][i];
    }
    gram.mean_z /= gram.weight;
    for (double& mean : gram.mean_g) mean /= gram.weight;
    for (size_t i = 0; i < z.size(); ++i) {
      const double about_z = z[i] - gram.mean_z;
      gram.zz += weight[i] * about_z * about_z;
      for (size_t j = 0; j < growth_.size(); ++j) {
        const double weighted = weight[i] * (growth_[j][i] - gram.mean_g[j]);
        gram.gz[j] += weighted * about_z;
        for (size_t k = 0; k < growth_.size(); ++k) gram.gg[j][k] += weighted * (growth_[k][i] - gram.mean_g[k]);
      }
    }
    return solve_non_negative(gram, terms_);
  }

  double law(const Linear& linear, size_t i) const {
    double value = linear.E;
    for (size_t j = 0; j < growth_.size(); ++j) value += linear.c[j] * (1 + growth_[j][i]);
    return value;
  }

  // Gauss-Newton for residuals ln y - ln law: each step is a linear problem with weights 1 / law^2. It begins at the
  // least relative residuals.
  Linear solve_logarithmic() const {
    std::vector<double> weight(terms_.size()), z = terms_.y;
    for (size_t i = 0; i < z.size(); ++i) weight[i] = 1 / (z[i] * z[i]);
    Linear linear = solve(weight, z);
    for (int step = 0; step < kMostInnerSteps; ++step) {
      for (size_t i = 0; i < z.size(); ++i) {
        const double value = law(linear, i);
        weight[i] = 1 / (value * value);
        z[i] = value * (1 + terms_.log_y[i] - std::log(value));
      }
      const Linear before = linear;
      linear = solve(weight, z);
      double moved = std::abs(linear.E - before.E), scale = std::abs(before.E);
      for (size_t j = 0; j < growth_.size(); ++j)
        moved += std::abs(linear.c[j] - before.c[j]), scale += std::abs(before.c[j]);
      if (moved <= 1e-15 * scale) break;
    }
    return linear;
  }

  // Of the objective by exponents and by the linear constants that are not on their bound, then the latter eliminated.
  void differentiate(Projected& p) const {
    const int outer = terms_.exponents;
    int count = outer, place_of_e = -1;
    std::array<int, kMostTerms> place{};
    if (terms_.free_e && p.constants.E > 0) place_of_e = count++;
    for (size_t j = 0; j < growth_.size(); ++j) place[j] = p.constants.c[j] > 0 ? count++ : -1;
    using Vector = Eigen::Matrix<double, Eigen::Dynamic, 1, 0, kMostConstants, 1>;
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, 0, kMostConstants, kMostConstants>;
    Vector gradient = Vector::Zero(count), of_law(count);
    Matrix hessian = Matrix::Zero(count, count);
    for (size_t i = 0; i < terms_.size(); ++i) {
      double value = p.constants.E;
      std::array<double, kMostTerms> u{};
      of_law.setZero();
      std::array<double, kMostExponents> second{};
      if (place_of_e >= 0) of_law[place_of_e] = 1;
      for (size_t j = 0; j < growth_.size(); ++j) {
        u[j] = 1 + growth_[j][i];
        const double part = p.constants.c[j] * u[j], t = terms_.t[j][i];
        value += part;
        of_law[terms_.exponent[j]] -= part * t;
        second[terms_.exponent[j]] += part * t * t;
        if (place[j] >= 0) of_law[place[j]] = u[j];
      }
      const bool logarithmic = space_ == Space::kLog;
      const double r = logarithmic ? terms_.log_y[i] - std::log(value) : terms_.y[i] - value;
      // r enters through law (linear) or ln law: the second derivative of the latter is law''/law - (law'/law)^2.
      const double scale = logarithmic ? 1 / value : 1;
      const double outer_product = logarithmic ? (1 + r) * scale * scale : 1;
      p.objective += r * r;
      for (int a = 0; a < count; ++a) {
        gradient[a] -= 2 * r * scale * of_law[a];
        for (int b = 0; b <= a; ++b) hessian(a, b) += 2 * outer_product * of_law[a] * of_law[b];
      }
      for (int e = 0; e < outer; ++e) hessian(e, e) -= 2 * r * scale * second[e];
      for (size_t j = 0; j < growth_.size(); ++j)
        if (place[j] >= 0) hessian(place[j], terms_.exponent[j]) += 2 * r * scale * u[j] * terms_.t[j][i];
    }
    for (int a = 0; a < count; ++a)
      for (int b = 0; b < a; ++b) hessian(b, a) = hessian(a, b);
    p.slope.head(outer) = gradient.head(outer);
    p.curvature.topLeftCorner(outer, outer) = hessian.topLeftCorner(outer, outer);
    if (const int inner = count - outer; inner > 0) {
      const Matrix eliminated = hessian.bottomRightCorner(inner, inner).ldlt().solve(hessian.bottomLeftCorner(inner, outer));
      p.curvature.topLeftCorner(outer, outer) -= hessian.topRightCorner(outer, inner) * eliminated;
    }
  }

  const Terms& terms_;
  Space space_;
  std::vector<std::vector<double>> growth_;
};

double scanned(int k, int count) {
  const double low = std::log(kSmallestAlpha), high = std::log(kLargestAlpha);
  return k == count - 1 ? kLargestAlpha : std::exp(low + (high - low) * k / (count - 1));
}

// Objectives of the linear problem at all scanned exponents: [k] or [k * count + l]. In log space of relative residuals.
std::vector<double> scan(const Terms& terms, Space space, int count) {
  const auto n = static_cast<Eigen::Index>(terms.size());
  Eigen::VectorXd root = Eigen::VectorXd::Ones(n), z(n);
  for (Eigen::Index i = 0; i < n; ++i) {
    z[i] = terms.y[i];
    if (space == Space::kLog) root[i] = 1 / z[i];
  }
  const Eigen::VectorXd weight = root.cwiseAbs2();
  Gram gram;
  gram.weight = weight.sum();
  gram.mean_z = weight.dot(z) / gram.weight;
  z = (z.array() - gram.mean_z).matrix().cwiseProduct(root);
  gram.zz = z.squaredNorm();

  const size_t terms_count = terms.t.size();
  std::vector<Eigen::MatrixXd> columns(terms_count, Eigen::MatrixXd(n, count));
  std::vector<Eigen::VectorXd> means(terms_count, Eigen::VectorXd(count)), with_z(terms_count);
  for (size_t j = 0; j < terms_count; ++j) {
    for (int k = 0; k < count; ++k) {
      const double exponent = scanned(k, count);
      auto column = columns[j].col(k);
      for (Eigen::Index i = 0; i < n; ++i) column[i] = std::expm1(-exponent * terms.t[j][i]);
      means[j][k] = weight.dot(column) / gram.weight;
      column = (column.array() - means[j][k]).matrix().cwiseProduct(root).eval();
    }
    with_z[j] = columns[j].transpose() * z;
  }
  Eigen::MatrixXd across;
  if (terms_count == 2) across = columns[0].transpose() * columns[1];
  const auto objective_at = [&](int k, int l) {
    const std::array<int, kMostTerms> at{k, l};
    for (size_t j = 0; j < terms_count; ++j) {
      gram.mean_g[j] = means[j][at[j]];
      gram.gz[j] = with_z[j][at[j]];
      gram.gg[j][j] = columns[j].col(at[j]).squaredNorm();
    }
    if (terms_count == 2) gram.gg[0][1] = gram.gg[1][0] = across(k, l);
    return solve_non_negative(gram, terms).objective;
  };
  std::vector<double> objectives;
  for (int k = 0; k < count; ++k) {
    if (terms.exponents == 1) {
      objectives.push_back(objective_at(k, k));
    } else {
      for (int l = 0; l < count; ++l) objectives.push_back(objective_at(k, l));
    }
  }
  return objectives;
}

// Newton's method on the exponents, each within its bounds; a step that does not lower the objective is damped.
EndPoint descend(Projection& projection, std::array<double, kMostExponents> theta, int exponents) {
  Projected now = projection.at(theta);
  double damping = 0;
  for (int step = 0; step < kMostOuterSteps; ++step) {
    const auto held = [&](int e) {
      return (theta[e] <= kSmallestAlpha && now.slope[e] >= 0) || (theta[e] >= kLargestAlpha && now.slope[e] <= 0);
    };
    bool moved = false;
    double length = 0;
    for (int attempt = 0; attempt < 60 && !moved; ++attempt) {
      if (attempt > 0) damping = std::max(4 * damping, 1e-6);
      Eigen::Matrix2d matrix = Eigen::Matrix2d::Identity();
      Eigen::Vector2d down = Eigen::Vector2d::Zero();
      for (int a = 0; a < exponents; ++a) {
        if (held(a)) continue;
        down[a] = -now.slope[a];
        for (int b = 0; b < exponents; ++b)
          if (!held(b)) matrix(a, b) = now.curvature(a, b);
        matrix(a, a) += damping * (std::abs(now.curvature(a, a)) + 1e-300);
      }
      const Eigen::LLT<Eigen::Matrix2d> factor(matrix);
      if (factor.info() != Eigen::Success) continue;
      const Eigen::Vector2d by = factor.solve(down);
      auto trial = theta;
      length = 0;
      for (int e = 0; e < exponents; ++e) {
        trial[e] = std::clamp(theta[e] + by[e], std::max(theta[e] / 2, kSmallestAlpha), std::min(theta[e] * 2, kLargestAlpha));
        length = std::max(length, std::abs(trial[e] / theta[e] - 1));
      }
      if (length < 1e-15) break;
      const Projected there = projection.at(trial);
      // At the floor of rounding the slope still tells the better point.
      if (there.objective < now.objective ||
          (there.objective <= now.objective * (1 + 1e-13) && there.slope.norm() < now.slope.norm())) {
        moved = true;
        theta = trial;
        now = there;
        damping = damping < 1e-6 ? 0 : damping / 64;
      }
    }
    if (!moved || length < 1e-14) break;
  }
  return {now.constants, now.objective};
}

}  // namespace

std::vector<EndPoint> project(const Terms& terms, Space space) {
  const int count = terms.exponents == 1 ? kScanOfOne : kScanOfTwo, rows = terms.exponents == 1 ? 1 : count;
  const std::vector<double> objectives = scan(terms, space, count);
  const auto at = [&](int k, int l) {
    return k < 0 || l < 0 || k >= rows || l >= count ? kInf : objectives[static_cast<size_t>(k) * count + l];
  };
  Projection projection(terms, space);
  std::vector<EndPoint> ends;
  for (int k = 0; k < rows; ++k) {
    for (int l = 0; l < count; ++l) {
      bool lowest = at(k, l) < kInf;
      for (int dk = -1; dk <= 1; ++dk)  // among equals the first one
        for (int dl = -1; dl <= 1; ++dl)
          if (dk != 0 || dl != 0)
            lowest = lowest && (dk < 0 || (dk == 0 && dl < 0) ? at(k, l) < at(k + dk, l + dl) : at(k, l) <= at(k + dk, l + dl));
      if (!lowest) continue;
      ends.push_back(terms.exponents == 1 ? descend(projection, {scanned(l, count), 0}, 1)
                                          : descend(projection, {scanned(k, count), scanned(l, count)}, 2));
    }
  }
  return ends;
}

}  // namespace varscale::fit
