// A form and its points, as the estimators see them: law_i = E + sum_j c_j exp(-theta[exponent[j]] t_j[i]), where t_j is
// a combination of the logarithms of the variables with its mean taken off, so that all c_j have the size of y.
#pragma once

#include <array>
#include <cmath>
#include <span>
#include <vector>

#include "fit/surface.hpp"

namespace varscale::fit {

inline constexpr int kMostTerms = 2;
inline constexpr int kMostExponents = 2;
inline constexpr int kMostConstants = 1 + kMostTerms + kMostExponents;

// Of a form: which exponent each coefficient's term has, and its t in the logarithms of the variables.
struct TermShape {
  int exponent = 0;
  std::array<double, 2> of_log_x{};
};
struct FormShape {
  bool has_e = true;
  int exponents = 1;
  std::vector<TermShape> terms;
  bool repeats = false;  // the second variable is made effective by the third, and the last constant is R
};
const FormShape& shape_of(Form form);

// Fresh data that are worth as much as `seen` of which `distinct` are distinct.
double effective_data(double seen, double distinct, double repeats);
double log_slope_of_effective_data(double seen, double distinct, double repeats);  // d ln D' / d R

// One set of constants, coefficients as of the centred t.
struct Constants {
  double E = 0;
  std::array<double, kMostTerms> c{};
  std::array<double, kMostExponents> theta{};
};

struct Terms {
  Terms(std::span<const SurfacePoint> points, const SurfaceSpec& spec, double repeats = 0);

  Form form;
  bool free_e;     // searched
  double given_e;  // else
  int exponents;
  std::vector<int> exponent;           // of each term
  std::vector<std::vector<double>> t;  // [term][point]
  std::vector<double> mean_t;          // what was taken off
  std::vector<double> y, log_y;
  double repeats;  // R, where the form has it

  size_t size() const noexcept { return y.size(); }
  SurfaceLaw law(const Constants& constants) const;
  Constants constants(const SurfaceLaw& law) const;
};

// Where an estimator ended from one start.
struct EndPoint {
  Constants constants;
  double objective = 0;
};

// In the order of their starts; at least one.
std::vector<EndPoint> project(const Terms& terms, Space space);
std::vector<EndPoint> search_grid(const Terms& terms, Estimator estimator, double delta);
std::vector<EndPoint> search_from(const Terms& terms, Estimator estimator, double delta,
                                  std::span<const Constants> starts);

// The same of a form with R: at each minimum over R, the best of the others.
struct EndLaw {
  SurfaceLaw law;
  double objective = 0;
};
std::vector<EndLaw> project_repeats(std::span<const SurfacePoint> points, const SurfaceSpec& spec);

}  // namespace varscale::fit
