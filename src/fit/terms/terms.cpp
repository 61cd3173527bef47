#include "fit/terms/terms.hpp"

#include <numeric>

namespace varscale::fit {

const FormShape& shape_of(Form form) {
  static const FormShape kShapes[] = {
      {false, 1, {{0, {1, 0}}}},               // power
      {true, 1, {{0, {1, 0}}}},                // power_e
      {true, 2, {{0, {1, 0}}, {1, {0, 1}}}},   // chinchilla
      {true, 1, {{0, {1, -1}}, {0, {1, 1}}}},  // overtrain: C^-eta M^eta and C^-eta M^-eta
      {true, 2, {{0, {1, 0}}, {1, {0, 1}}}, true},  // data_constrained
      {true, 1, {{0, {1, 0}}}},                     // bnsl without its break, which smooth_break.cpp has
  };
  return kShapes[static_cast<size_t>(form)];
}

double effective_data(double seen, double distinct, double repeats) {
  const double more = seen / distinct - 1;
  return more <= 0 ? seen : distinct * (1 - repeats * std::expm1(-more / repeats));
}

double log_slope_of_effective_data(double seen, double distinct, double repeats) {
  const double share = (seen / distinct - 1) / repeats;
  if (share <= 0) return 0;
  return -distinct * (std::expm1(-share) + share * std::exp(-share)) / effective_data(seen, distinct, repeats);
}

Terms::Terms(std::span<const SurfacePoint> points, const SurfaceSpec& spec, double repeats)
    : form(spec.form), repeats(repeats) {
  const FormShape& shape = shape_of(form);
  free_e = shape.has_e && !spec.given_e;
  given_e = spec.given_e.value_or(0);
  exponents = shape.exponents;
  for (const TermShape& term : shape.terms) {
    exponent.push_back(term.exponent);
    std::vector<double>& values = t.emplace_back();
    values.reserve(points.size());
    for (const SurfacePoint& p : points) {
      const double second = shape.repeats ? effective_data(p.x[1], p.x[2], repeats) : p.x[1];
      double value = 0;
      if (term.of_log_x[0] != 0) value += term.of_log_x[0] * std::log(p.x[0]);
      if (term.of_log_x[1] != 0) value += term.of_log_x[1] * std::log(second);
      values.push_back(value);
    }
    mean_t.push_back(std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size()));
    for (double& value : values) value -= mean_t.back();
  }
  for (const SurfacePoint& p : points) y.push_back(p.y), log_y.push_back(std::log(p.y));
}

SurfaceLaw Terms::law(const Constants& constants) const {
  SurfaceLaw law{form, {}};
  if (shape_of(form).has_e) law.constants.push_back(free_e ? constants.E : given_e);
  for (size_t j = 0; j < t.size(); ++j)
    law.constants.push_back(constants.c[j] * std::exp(constants.theta[exponent[j]] * mean_t[j]));
  for (int p = 0; p < exponents; ++p) law.constants.push_back(constants.theta[p]);
  if (shape_of(form).repeats) law.constants.push_back(repeats);
  return law;
}

Constants Terms::constants(const SurfaceLaw& law) const {
  Constants constants;
  const size_t first = shape_of(form).has_e ? 1 : 0;
  constants.E = free_e ? law.constants[0] : given_e;
  for (int p = 0; p < exponents; ++p) constants.theta[p] = law.constants[first + t.size() + p];
  for (size_t j = 0; j < t.size(); ++j)
    constants.c[j] = law.constants[first + j] * std::exp(-constants.theta[exponent[j]] * mean_t[j]);
  return constants;
}

}  // namespace varscale::fit
