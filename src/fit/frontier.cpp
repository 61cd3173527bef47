#include "fit/frontier.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <vector>

#include "base/error.hpp"

namespace varscale::fit {
namespace {

void require_positive(std::span<const double> values) {
  for (const double value : values)
    if (!std::isfinite(value) || !(value > 0))
      throw base::UserError("a value of {:g} where a logarithm is taken; expected a finite positive number", value);
}

}  // namespace

double ComputeCost::of(double N, double D) const { return k * std::pow(N, n_power) * D; }
double ComputeCost::data(double N, double C) const { return C / (k * std::pow(N, n_power)); }

CostFit fit_cost(std::span<const CostPoint> points) {
  std::vector<double> sizes, per_d, ratios;
  for (const CostPoint& p : points) {
    require_positive(std::array{p.N, p.D, p.C});
    sizes.push_back(p.N), per_d.push_back(p.C / p.D), ratios.push_back(p.C / p.D / p.N);
  }
  VARSCALE_CHECK(!points.empty(), "a cost of no points");
  std::ranges::sort(ratios);
  CostFit fit;
  fit.least = ratios.front(), fit.most = ratios.back();
  const size_t half = ratios.size() / 2;
  fit.median = ratios.size() % 2 == 1 ? ratios[half] : (ratios[half - 1] + ratios[half]) / 2;
  if (const auto line = fit_power_line(sizes, per_d))
    fit.cost = {.k = line->coefficient, .n_power = line->exponent};
  else
    fit.cost = {.k = fit.median, .n_power = 1};
  for (const CostPoint& p : points)
    fit.largest_deviation = std::max(fit.largest_deviation, std::abs(std::log(p.C / fit.cost.of(p.N, p.D))));
  return fit;
}

Optimum Frontier::at(double C) const {
  const double x = C / cost.k;
  const double N = std::pow(G, 1 / cost.n_power) * std::pow(x, a);
  return {N, cost.data(N, C), E + above_e * std::pow(x, -loss_exponent)};
}

Frontier analytic_frontier(const SurfaceLaw& law, const ComputeCost& cost) {
  if (law.form != Form::kChinchilla)
    throw base::UserError("a frontier of the form {}; expected {}", name(law.form), name(Form::kChinchilla));
  const double A = law.constant("A"), B = law.constant("B"), beta = law.constant("beta");
  if (!(A > 0) || !(B > 0))
    throw base::UserError("a law with {} = 0 has no compute-optimal size: the loss depends on one of N and D alone",
                          A > 0 ? "B" : "A");
  const double alpha = law.constant("alpha") / cost.n_power, sum = alpha + beta;
  Frontier f;
  f.cost = cost, f.E = law.constant("E");
  f.G = std::pow(alpha * A / (beta * B), 1 / sum);
  f.a = beta / sum / cost.n_power;
  f.b = alpha / sum;
  f.above_e = A * std::pow(f.G, -alpha) + B * std::pow(f.G, beta);
  f.loss_exponent = alpha * beta / sum;
  return f;
}

double PowerLine::at(double x) const { return coefficient * std::pow(x, exponent); }

std::optional<PowerLine> fit_power_line(std::span<const double> x, std::span<const double> y) {
  VARSCALE_CHECK(x.size() == y.size(), "{} x and {} y", x.size(), y.size());
  require_positive(x);
  require_positive(y);
  if (std::set<double>(x.begin(), x.end()).size() < 2) return std::nullopt;
  const double count = static_cast<double>(x.size());
  double mean_x = 0, mean_y = 0, xx = 0, xy = 0, squares = 0;
  for (size_t i = 0; i < x.size(); ++i) mean_x += std::log(x[i]) / count, mean_y += std::log(y[i]) / count;
  for (size_t i = 0; i < x.size(); ++i) {
    const double t = std::log(x[i]) - mean_x;
    xx += t * t, xy += t * (std::log(y[i]) - mean_y);
  }
  PowerLine line;
  line.exponent = xy / xx;
  line.coefficient = std::exp(mean_y - line.exponent * mean_x);
  for (size_t i = 0; i < x.size(); ++i) squares += std::pow(std::log(y[i] / line.at(x[i])), 2);
  line.rmse = std::sqrt(squares / count);
  return line;
}

}  // namespace varscale::fit
