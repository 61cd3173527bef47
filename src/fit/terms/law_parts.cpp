#include "fit/terms/law_parts.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.hpp"
#include "fit/terms/smooth_break.hpp"

namespace varscale::fit {
namespace {

constexpr double kVanished = 1e-8;  // E or a term below this share of the smallest y is on its bound

}  // namespace

Parts parts_of(const SurfaceLaw& law, std::span<const double> x) {
  if (law.form == Form::kBnsl) return {.E = law.constants[0], .term = {broken_power(law, x[0])}};
  const FormShape& shape = shape_of(law.form);
  const size_t first = shape.has_e ? 1 : 0, count = shape.terms.size(), exponents = first + count;
  VARSCALE_CHECK(law.constants.size() == exponents + static_cast<size_t>(shape.exponents) + (shape.repeats ? 1 : 0),
                 "{} constants of {}", law.constants.size(), name(law.form));
  Parts parts{.E = shape.has_e ? law.constants[0] : 0};
  std::array<double, 2> log_x{std::log(x[0]), 0};
  if (x.size() > 1) log_x[1] = std::log(shape.repeats ? effective_data(x[1], x[2], law.constants.back()) : x[1]);
  for (size_t j = 0; j < count; ++j) {
    const TermShape& term = shape.terms[j];
    double t = term.of_log_x[0] * log_x[0];
    if (term.of_log_x[1] != 0) t += term.of_log_x[1] * log_x[1];
    parts.term[j] = law.constants[first + j] * std::exp(-law.constants[exponents + static_cast<size_t>(term.exponent)] * t);
  }
  return parts;
}

double SurfaceLaw::at(std::span<const double> x) const {
  const Parts parts = parts_of(*this, x);
  return parts.E + parts.term[0] + parts.term[1];
}

std::string bound_of(const SurfaceLaw& law, const SurfaceSpec& spec, std::span<const SurfacePoint> points) {
  const FormShape& shape = shape_of(law.form);
  const std::vector<std::string_view> names = constant_names(law.form);
  const size_t first = shape.has_e ? 1 : 0, count = shape.terms.size();
  double lowest = std::numeric_limits<double>::infinity();
  std::array<double, kMostTerms> largest{};
  for (const SurfacePoint& p : points) {
    lowest = std::min(lowest, p.y);
    const Parts parts = parts_of(law, p.x);
    for (size_t j = 0; j < count; ++j) largest[j] = std::max(largest[j], parts.term[j]);
  }
  for (size_t j = 0; j < count; ++j)
    if (largest[j] <= kVanished * lowest) return fmt::format("{} = 0", names[first + j]);
  if (law.form == Form::kBnsl) {
    if (const std::string bound = bound_of_break(law, points); !bound.empty()) return bound;
    return !spec.given_e && law.constants[0] <= kVanished * lowest ? "E = 0" : "";
  }
  for (size_t k = first + count; k < first + count + static_cast<size_t>(shape.exponents); ++k)
    if (const double theta = law.constants[k]; theta <= kSmallestAlpha || theta >= kLargestAlpha)
      return fmt::format("{} = {:.6g}", names[k], theta);
  if (const double r = law.constants.back(); shape.repeats && (r < kSmallestRepeats * 1.000001 || r > kLargestRepeats / 1.000001))
    return fmt::format("R = {:.6g}", r);
  if (shape.has_e && !spec.given_e && law.constants[0] <= kVanished * lowest) return "E = 0";
  return "";
}

}  // namespace varscale::fit
