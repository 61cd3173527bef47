#include "fit/terms/terms.hpp"

#include <numeric>

namespace varscale::fit {

FormShape shape_of(Form form) {
  switch (form) {
    case Form::kPower:
      return {false, 1, {{0, {1, 0}}}};
    case Form::kPowerE:
      return {true, 1, {{0, {1, 0}}}};
    case Form::kChinchilla:
      return {true, 2, {{0, {1, 0}}, {1, {0, 1}}}};
    case Form::kOvertrain:  // C^-eta M^eta and C^-eta M^-eta
      return {true, 1, {{0, {1, -1}}, {0, {1, 1}}}};
  }
  return {};
}

Terms::Terms(std::span<const SurfacePoint> points, const SurfaceSpec& spec) : form(spec.form) {
  const FormShape shape = shape_of(form);
  free_e = shape.has_e && !spec.given_e;
  given_e = spec.given_e.value_or(0);
  exponents = shape.exponents;
  for (const TermShape& term : shape.terms) {
    exponent.push_back(term.exponent);
    std::vector<double>& values = t.emplace_back();
    values.reserve(points.size());
    for (const SurfacePoint& p : points) {
      double value = 0;
      for (size_t v = 0; v < 2; ++v)
        if (term.of_log_x[v] != 0) value += term.of_log_x[v] * std::log(p.x[v]);
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
