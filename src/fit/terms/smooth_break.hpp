// The form bnsl: E + B x^-c0 (1 + (x / d)^(1/f))^(-c1 f), arXiv 2210.14891 with one break.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "fit/surface.hpp"
#include "fit/terms/terms.hpp"

namespace varscale::fit {

inline constexpr size_t kSizesBeyondBreak = 2;  // at least so many distinct ones on each side, d between them

double broken_power(const SurfaceLaw& law, double x);  // without E

// At least one, in the order of their starts: the best places of a scan of c0, c1, d and f with E and B at their best
// there, or the given laws. Each goes on by Levenberg and Marquardt's method in all constants at once.
std::vector<EndLaw> search_break(std::span<const SurfacePoint> points, const SurfaceSpec& spec);
std::vector<EndLaw> search_break_from(std::span<const SurfacePoint> points, const SurfaceSpec& spec,
                                      std::span<const SurfaceLaw> starts);

// Which of c0, c1, d, f lies on its bound; "c1 = 0" where the break moves the law by less than a millionth.
std::string bound_of_break(const SurfaceLaw& law, std::span<const SurfacePoint> points);

}  // namespace varscale::fit
