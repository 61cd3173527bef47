#include "fit/held_out.hpp"

#include "base/error.hpp"

namespace varscale::fit {

Prediction predict(std::span<const Observation> points, double x, const ERule& e_rule,
                   const BootstrapOptions& options, int64_t runs,
                   const std::optional<Redraw>& redraw) {
  check_points(points, e_rule);
  const double previous = distinct_sizes(points).back();
  if (!(x > previous))
    throw base::UserError("the predicted size {:.6g} is not above the largest fitted size {:.6g}",
                          x, previous);

  Prediction p;
  p.fit = fit_power_law(points, e_rule);
  p.noise = redraw ? redraw->noise : estimate_noise(points, p.fit);
  p.x = x;
  p.runs = runs;
  p.previous_x = previous;
  int64_t count = 0;
  for (const Observation& point : points)
    if (point.x == previous) p.previous_y += point.y, ++count;
  p.previous_y /= static_cast<double>(count);
  p.y = p.fit.law.at(x);
  p.gain = p.previous_y - p.y;
  if (p.noise) {
    const Bootstrap bootstrap = bootstrap_fit(points, p.fit, redraw.value_or(Redraw{*p.noise, {}}), options);
    p.y_interval = bootstrap.new_runs_at(x, runs, p.fit.law);
    p.gain_interval = Interval{p.previous_y - p.y_interval->high, p.previous_y - p.y_interval->low};
  }
  return p;
}

Verdict judge(const Prediction& prediction, std::span<const double> observed) {
  VARSCALE_CHECK(!observed.empty(), "a prediction is judged without an observation");
  Verdict v;
  v.runs = static_cast<int64_t>(observed.size());
  for (double y : observed) v.observed_y += y / static_cast<double>(observed.size());
  v.observed_gain = prediction.previous_y - v.observed_y;
  v.relative_error = (prediction.y - v.observed_y) / v.observed_y;
  if (prediction.gain_interval) {
    v.covers = prediction.gain_interval->contains(v.observed_gain);
    v.excludes_zero = prediction.gain_interval->low > 0;
  }
  return v;
}

std::vector<HeldOut> hold_out_largest(std::span<const Observation> points, const ERule& e_rule,
                                      const BootstrapOptions& options, int64_t count,
                                      const std::optional<Redraw>& redraw) {
  const std::vector<double> sizes = distinct_sizes(points);
  const int64_t left = static_cast<int64_t>(sizes.size()) - count;
  if (count < 1 || left < constant_count(e_rule))
    throw base::UserError(
        "holding {} of {} sizes out leaves {}; the form {} with {} constants needs {}", count,
        sizes.size(), left < 0 ? 0 : left, form_name(e_rule), constant_count(e_rule),
        constant_count(e_rule));
  std::vector<Observation> smaller;
  std::vector<size_t> number;  // of each among all points
  for (size_t i = 0; i < points.size(); ++i)
    if (points[i].x < sizes[left]) smaller.push_back(points[i]), number.push_back(i);
  std::optional<Redraw> of_smaller = redraw;
  if (redraw)
    of_smaller->deviation = [&redraw, number](size_t i, double sd, const base::RandomStream& random) {
      return redraw->deviation(number.at(i), sd, random);
    };
  std::vector<HeldOut> result;
  for (size_t k = static_cast<size_t>(left); k < sizes.size(); ++k) {
    std::vector<double> observed;
    for (const Observation& p : points)
      if (p.x == sizes[k]) observed.push_back(p.y);
    HeldOut held;
    held.prediction =
        predict(smaller, sizes[k], e_rule, options, static_cast<int64_t>(observed.size()), of_smaller);
    held.verdict = judge(held.prediction, observed);
    result.push_back(std::move(held));
  }
  return result;
}

}  // namespace varscale::fit
