// The least sum of magnitudes of ln y - ln law. It meets as many points as the law has unknowns: from the points nearest
// to a least Huber loss, one met point is exchanged for another as in a linear programme, until no exchange helps.
#include <Eigen/Dense>
#include <algorithm>
#include <limits>
#include <numeric>

#include "fit/terms/log_law.hpp"

namespace varscale::fit {
namespace {

constexpr double kSmallestThreshold = 1e-8;  // of the Huber losses, where exchanges do not settle it
constexpr int kMostExchanges = 200, kMostMeetingSteps = 20;
constexpr double kIndependent = 1e-6;  // share of a point's slope that the other met points' slopes do not make up

// Points of a bootstrap are there several times; each counts once here, with how often.
struct Counted {
  std::vector<size_t> point;
  std::vector<double> times;
};

Counted count_points(const Terms& terms) {
  const auto key = [&terms](size_t i) {
    std::array<double, 1 + kMostTerms> key{terms.log_y[i]};
    for (size_t j = 0; j < terms.t.size(); ++j) key[1 + j] = terms.t[j][i];
    return key;
  };
  std::vector<size_t> order(terms.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, key);
  Counted counted;
  for (const size_t i : order) {
    if (counted.point.empty() || key(counted.point.back()) != key(i)) counted.point.push_back(i), counted.times.push_back(0);
    counted.times.back() += 1;
  }
  return counted;
}

// Newton's method through the points `met`; false where it may not be trusted.
bool meet(const LogLaw& law, std::span<const size_t> met, Unknowns& p) {
  const int count = law.count();
  std::array<double, 1 + kMostTerms> share{};
  Unknowns slope = Unknowns::Zero(count), left(count);
  Square slopes(count, count);
  for (int step = 0; step < kMostMeetingSteps; ++step) {
    for (int k = 0; k < count; ++k) {
      if (!law.residual(p.data(), met[k], left[k], share)) return false;
      law.slope(share, met[k], slope.data());
      slopes.row(k) = slope.transpose();
    }
    const Eigen::FullPivLU<Square> factor(slopes);
    if (!factor.isInvertible()) return false;
    const Unknowns by = factor.solve(left);
    if (!(by.norm() < 1)) return false;
    p += by;
    if (by.norm() < 1e-15) break;
  }
  return true;
}

// The nearest points whose slopes are independent; fewer than the unknowns where there are no more.
std::vector<size_t> nearest_points(const Terms& terms, const LogLaw& law, const Unknowns& p) {
  std::array<double, 1 + kMostTerms> share{};
  Unknowns slope = Unknowns::Zero(law.count());
  std::vector<double> distance(terms.size());
  for (size_t i = 0; i < terms.size(); ++i) {
    if (!law.residual(p.data(), i, distance[i], share)) return {};
    distance[i] = std::abs(distance[i]);
  }
  std::vector<size_t> order(terms.size()), met;
  std::iota(order.begin(), order.end(), size_t{0});
  std::ranges::stable_sort(order, {}, [&](size_t i) { return distance[i]; });
  std::vector<Unknowns> basis;
  for (const size_t i : order) {
    double r = 0;
    law.residual(p.data(), i, r, share);
    law.slope(share, i, slope.data());
    const double length = slope.norm();
    for (const Unknowns& each : basis) slope -= each.dot(slope) * each;
    if (slope.norm() <= kIndependent * length) continue;
    basis.push_back(slope.normalized());
    met.push_back(i);
    if (std::ssize(met) == law.count()) break;
  }
  return met;
}

// Puts the law through the points nearest to it where that is better.
void through_nearest(const Terms& terms, const LogLaw& law, Unknowns& p) {
  const std::vector<size_t> met = nearest_points(terms, law, p);
  Unknowns through = p;
  if (std::ssize(met) == law.count() && meet(law, met, through) && (through - p).norm() < 1e-2 &&
      law.magnitudes(through) <= law.magnitudes(p))
    p = through;
}

// True where p has become a minimum: no direction along which all but one of the met points stay met goes down.
bool exchange(const Terms& terms, const LogLaw& law, Unknowns& p) {
  const int count = law.count();
  const Counted counted = count_points(terms);
  const size_t points = counted.point.size();
  std::vector<size_t> met = nearest_points(terms, law, p);
  if (std::ssize(met) < count || !meet(law, met, p)) return false;
  // In places of `counted` from here on.
  for (size_t& m : met)
    m = static_cast<size_t>(std::ranges::find_if(counted.point,
                                                 [&](size_t i) {
                                                   return terms.log_y[i] == terms.log_y[m] &&
                                                          std::ranges::all_of(terms.t,
                                                                              [&](const auto& t) { return t[i] == t[m]; });
                                                 }) -
                            counted.point.begin());
  std::array<double, 1 + kMostTerms> share{};
  std::vector<double> r(points);
  std::vector<Unknowns> slope(points, Unknowns::Zero(count));
  double now = law.magnitudes(p);
  for (int step = 0; step < kMostExchanges; ++step) {
    Unknowns pull = Unknowns::Zero(count);  // of the points that are not met
    for (size_t k = 0; k < points; ++k) {
      if (!law.residual(p.data(), counted.point[k], r[k], share)) return false;
      law.slope(share, counted.point[k], slope[k].data());
      if (std::ranges::find(met, k) == met.end()) pull += std::copysign(counted.times[k], r[k]) * slope[k];
    }
    Square slopes(count, count);
    for (int k = 0; k < count; ++k) slopes.row(k) = slope[met[k]].transpose();
    const Eigen::FullPivLU<Square> factor(slopes);
    if (!factor.isInvertible()) return false;
    const Square directions = factor.inverse();  // column k leaves point k alone
    int leaving = 0;
    double steepest = -std::numeric_limits<double>::infinity(), sign = 1;
    for (int k = 0; k < count; ++k) {
      const double along = pull.dot(directions.col(k)), gain = std::abs(along) - counted.times[met[k]];
      if (gain > steepest) steepest = gain, leaving = k, sign = along < 0 ? -1 : 1;
    }
    if (steepest <= 1e-9) return true;
    // On along that direction to the point at which the sum would rise.
    const Unknowns direction = sign * directions.col(leaving);
    std::vector<std::pair<double, size_t>> crossings;
    for (size_t k = 0; k < points; ++k) {
      const double rate = slope[k].dot(direction);
      if (std::ranges::find(met, k) == met.end() && r[k] * rate > 0 && std::abs(rate) > 1e-12)
        crossings.emplace_back(r[k] / rate, k);
    }
    std::ranges::sort(crossings);
    double descent = steepest;
    const auto entering = std::ranges::find_if(crossings, [&](const auto& crossing) {
      descent -= 2 * counted.times[crossing.second] * std::abs(slope[crossing.second].dot(direction));
      return descent <= 0;
    });
    if (entering == crossings.end()) return false;
    met[leaving] = entering->second;
    std::vector<size_t> places;
    for (const size_t m : met) places.push_back(counted.point[m]);
    Unknowns there = p + entering->first * direction;
    if (!meet(law, places, there)) return false;
    const double sum = law.magnitudes(there);
    if (!(sum < now)) return false;
    p = there, now = sum;
  }
  return false;
}

}  // namespace

double to_magnitudes(const Terms& terms, const LogLaw& law, Unknowns& p) {
  Unknowns exchanged = p;
  if (exchange(terms, law, exchanged)) {
    p = exchanged;
    return law.magnitudes(p);
  }
  // Several laws fit equally well, or the law bends too much between its points: by a falling threshold.
  for (double threshold = kFirstThreshold; threshold > 0.5 * kSmallestThreshold; threshold /= 10) by_newton(law, threshold, p);
  through_nearest(terms, law, p);
  return law.magnitudes(p);
}

}  // namespace varscale::fit
