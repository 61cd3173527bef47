// A law taken apart: its terms at a place, and which of its constants lies on a bound.
#pragma once

#include <array>
#include <span>
#include <string>

#include "fit/surface.hpp"
#include "fit/terms/terms.hpp"

namespace varscale::fit {

// E and each term of a law at a place.
struct Parts {
  double E = 0;
  std::array<double, kMostTerms> term{};
};
Parts parts_of(const SurfaceLaw& law, std::span<const double> x);

// Empty, or as SurfaceFit::bound.
std::string bound_of(const SurfaceLaw& law, const SurfaceSpec& spec, std::span<const SurfacePoint> points);

}  // namespace varscale::fit
