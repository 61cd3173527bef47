// Least squares of a form with one of its constants held at a value, from near the minimum.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include "fit/surface.hpp"
#include "fit/terms/bounded_squares.hpp"
#include "fit/terms/terms.hpp"

namespace varscale::fit {

using Unbound = std::array<double, kMostUnknowns>;  // E, c (of the centred t), theta, ln R

// A constant of the law, or a = beta / (alpha + beta), as it is held: by its logarithm, E by itself, a by ln(beta / alpha).
struct HeldConstant {
  enum class Kind { kE, kCoefficient, kExponent, kRepeats, kRatio };
  std::string name;
  Kind kind = Kind::kE;
  int index = 0;  // of the coefficient or exponent
  double of_law(const SurfaceLaw& law) const;
};

class HeldFit {
 public:
  HeldFit(std::span<const SurfacePoint> points, const SurfaceFit& fit);

  const Unbound& start() const noexcept { return start_; }  // the fit
  std::vector<HeldConstant> constants() const;
  double coordinate(const HeldConstant& held, const Unbound& p) const;
  double coordinate_of(const HeldConstant& held, double value) const;
  double value(const HeldConstant& held, double coordinate) const;
  double unit(const HeldConstant& held) const;                  // of a coordinate
  double limit(const HeldConstant& held, int direction) const;  // of a coordinate
  bool vanished() const;                                        // a term of the fit
  bool on_search_bound(const Unbound& p) const;                 // an exponent or R

  // From p, which becomes the end; the objective there.
  double minimise(const HeldConstant& held, double coordinate, Unbound& p) const;

 private:
  void hold(const HeldConstant& held, double coordinate, Unbound& p) const;
  double objective(const Unbound& p, Squares* squares) const;
  int coefficient(int j) const { return 1 + j; }
  int exponent(int e) const { return 1 + terms_ + e; }
  int repeats() const { return 1 + terms_ + exponents_; }

  std::span<const SurfacePoint> points_;
  SurfaceSpec spec_;
  Terms centred_;  // at the fit's R
  bool has_repeats_;
  int terms_, exponents_, count_;
  double largest_ = 0;
  std::array<double, kMostUnknowns> low_{}, high_{};
  Unbound start_{};
};

}  // namespace varscale::fit
