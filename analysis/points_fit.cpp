#include "points_fit.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "laws.hpp"
#include "sensitivity.hpp"
#include "six_digits.hpp"

namespace varscale::analysis {
namespace {

using nlohmann::ordered_json;

// What is reported of a law: its constants, and for chinchilla the exponents of N and D at the least loss for compute.
struct Reported {
  std::string name;
  double value = 0;
  bool searched = true;
  std::vector<double> resampled;
};

std::vector<Reported> reported(const PointsResult& result) {
  const fit::SurfaceFit& fit = result.fit;
  std::vector<Reported> all;
  const auto add = [&](std::string name, bool searched, const std::function<double(const fit::SurfaceLaw&)>& of) {
    Reported one{std::move(name), of(fit.law), searched, {}};
    if (result.bootstrap) one.resampled = result.bootstrap->values(of);
    all.push_back(std::move(one));
  };
  for (const std::string_view name : fit::constant_names(fit.spec.form))
    add(std::string(name), name != "E" || !fit.spec.given_e, [name](const fit::SurfaceLaw& law) { return law.constant(name); });
  if (fit.spec.form == fit::Form::kChinchilla) {
    add("a", true, fit::compute_exponent);
    add("b", true, [](const fit::SurfaceLaw& law) { return 1 - fit::compute_exponent(law); });
  }
  return all;
}

ordered_json predicted_json(const Predicted& p, const PointsRequest& request) {
  ordered_json json;
  for (size_t v = 0; v < request.variables.size(); ++v) json[request.variables[v]] = six(p.x[v]);
  json["value"] = six(p.value);
  if (p.interval) json["low"] = six(p.interval->low), json["high"] = six(p.interval->high);
  return json;
}

Predicted predict_at(const PointsResult& result, std::vector<double> x) {
  Predicted p{std::move(x)};
  p.value = result.fit.law.at(p.x);
  if (result.bootstrap)
    p.interval = result.bootstrap->interval([&p](const fit::SurfaceLaw& law) { return law.at(p.x); });
  return p;
}

std::vector<double> place_of(const PointRow& row, const PointsRequest& request) {
  std::vector<double> x;
  for (const std::string& name : request.variables) x.push_back(row.values.at(name));
  return x;
}

HeldOutRows judge(const std::vector<PointRow>& rows, const PointsResult& result, const PointsRequest& request) {
  HeldOutRows held;
  const double n = static_cast<double>(rows.size());
  double mean = 0, squares = 0, about_mean = 0;
  for (const PointRow& row : rows) {
    held.rows.push_back(predict_at(result, place_of(row, request)));
    held.seen.push_back(row.values.at("loss"));
    held.lines.push_back(row.line);
    const double error = held.rows.back().value - held.seen.back(), relative = std::abs(error / held.seen.back());
    held.mean_relative_error += relative / n;
    held.max_relative_error = std::max(held.max_relative_error, relative);
    held.mean_absolute_error += std::abs(error) / n;
    squares += error * error;
    mean += held.seen.back() / n;
  }
  for (const double seen : held.seen) about_mean += (seen - mean) * (seen - mean);
  held.r2 = about_mean > 0 ? 1 - squares / about_mean : 0;
  return held;
}

ordered_json held_out_json(const HeldOutRows& held, const PointsRequest& request) {
  ordered_json json = {{"points", held.rows.size()},
                       {"mean_relative_error", six(held.mean_relative_error)},
                       {"max_relative_error", six(held.max_relative_error)},
                       {"mean_absolute_error", six(held.mean_absolute_error)},
                       {"r2", six(held.r2)},
                       {"rows", ordered_json::array()}};
  for (size_t i = 0; i < held.rows.size(); ++i) {
    ordered_json row = {{"line", held.lines[i]}};
    row.update(predicted_json(held.rows[i], request));
    row["seen"] = six(held.seen[i]);
    json["rows"].push_back(row);
  }
  return json;
}

ordered_json covariance_json(const PointsResult& result) {
  ordered_json json = {{"names", ordered_json::array()}, {"matrix", ordered_json::array()}};
  for (const std::string_view name : fit::constant_names(result.fit.spec.form)) json["names"].push_back(name);
  for (const std::vector<double>& row : result.bootstrap->spread().covariance) {
    ordered_json values = ordered_json::array();
    for (const double value : row) values.push_back(six(value));
    json["matrix"].push_back(values);
  }
  return json;
}

ordered_json bootstrap_json(const PointsResult& result, const PointsRequest& request) {
  if (!result.bootstrap) return nullptr;
  const fit::SurfaceBootstrap& boot = *result.bootstrap;
  ordered_json json = {{"method", boot.noise ? "parametric" : "by run"},
                       {"runs", boot.runs},
                       {"resamples", boot.laws.size()},
                       {"redrawn", boot.redrawn},
                       {"level", boot.level},
                       {"seed", request.bootstrap->seed}};
  if (boot.noise)
    json["noise"] = {{"sd", six(boot.noise->sd)},
                     {"degrees_of_freedom", boot.noise->degrees_of_freedom},
                     {"source", boot.noise->source}};
  return json;
}

ordered_json sensitivity_json(const PointsResult& result) {
  ordered_json json = {{"rows", ordered_json::array()}, {"not_done", ordered_json::array()}};
  for (const fit::Variant& variant : result.sensitivity.variants) {
    ordered_json row = {{"group", variant.group}, {"change", variant.change}};
    for (const std::string_view name : fit::constant_names(variant.fit.spec.form))
      row["parameters"][std::string(name)] = six(variant.fit.law.constant(name));
    json["rows"].push_back(std::move(row));
  }
  for (const fit::NotVaried& each : result.sensitivity.not_done)
    json["not_done"].push_back({{"change", each.change}, {"reason", each.reason}});
  json["disagreements"] = disagreement_sentences(result.disagreements);
  return json;
}

// Between which values the exponents lie under other choices.
std::string sensitivity_words(const PointsResult& result) {
  std::string text;
  for (const std::string_view name : fit::exponent_names(result.fit.spec.form)) {
    const auto value = [name](const fit::Variant& variant) { return variant.fit.law.constant(name); };
    const auto [least, most] = std::ranges::minmax_element(result.sensitivity.variants, {}, value);
    text += fmt::format("{} lies between {} ({}) and {} ({}) over {} other choices\n", name, digits(value(*least)), least->change,
                        digits(value(*most)), most->change, result.sensitivity.variants.size());
  }
  for (const std::string& sentence : disagreement_sentences(result.disagreements))
    text += fmt::format("estimators disagree: {}\n", sentence);
  return text;
}

// An end that is open is null.
ordered_json end_json(const std::optional<double>& end) { return end ? six(*end) : ordered_json(); }

const fit::ProfileEnds* profile_of(const PointsResult& result, const Reported& one) {
  return result.profile && one.searched ? &result.profile->of(one.name) : nullptr;
}

ordered_json profile_json(const PointsResult& result) {
  if (!result.profile) return nullptr;
  return {{"level", result.profile->level},
          {"rise", six(result.profile->rise)},
          {"noise",
           {{"sd", six(result.profile->noise.sd)},
            {"degrees_of_freedom", result.profile->noise.degrees_of_freedom},
            {"source", result.profile->noise.source}}}};
}

std::string profile_words(const fit::ProfileEnds& ends) {
  const auto words = [](const std::optional<double>& end) { return end ? digits(*end, 5) : std::string("unbounded"); };
  return fmt::format("[{}, {}]", words(ends.low), words(ends.high));
}

std::string law_line(const PointsResult& result, const PointsRequest& request) {
  const fit::SurfaceLaw& law = result.fit.law;
  const auto of = [&](std::string_view name) { return fmt::format("{:.6g}", law.constant(name)); };
  const std::vector<std::string>& x = request.variables;
  switch (law.form) {
    case fit::Form::kPower:
      return fmt::format("{} {}^-{}", of("B"), x[0], of("alpha"));
    case fit::Form::kPowerE:
      return fmt::format("{} + {} {}^-{}", of("E"), of("B"), x[0], of("alpha"));
    case fit::Form::kChinchilla:
      return fmt::format("{} + {} / {}^{} + {} / {}^{}", of("E"), of("A"), x[0], of("alpha"), of("B"), x[1], of("beta"));
    case fit::Form::kDataConstrained:
      return fmt::format("{0} + {1} / {2}^{3} + {4} / D'^{5}, D' = {6} (1 + {7} (1 - exp(-({8} / {6} - 1) / {7})))", of("E"), of("A"),
                         x[0], of("alpha"), of("B"), of("beta"), x[2], of("R"), x[1]);
    case fit::Form::kBnsl:
      return fmt::format("{} + {} {}^-{} (1 + ({} / {})^(1 / {}))^(-{} {})", of("E"), of("B"), x[0], of("c0"), x[0], of("d"), of("f"), of("c1"),
                         of("f"));
    case fit::Form::kOvertrain:
      break;
  }
  return fmt::format("{} + ({} {}^{} + {} {}^-{}) {}^-{}", of("E"), of("a"), x[1], of("eta"), of("b"), x[1], of("eta"), x[0],
                     of("eta"));
}

std::string place_words(const Predicted& p, const PointsRequest& request) {
  std::string words;
  for (size_t v = 0; v < p.x.size(); ++v) words += fmt::format("{}{} = {:.6g}", v == 0 ? "" : ", ", request.variables[v], p.x[v]);
  return words;
}

std::string interval_words(const std::optional<fit::Interval>& interval) {
  return interval ? fmt::format(" [{}, {}]", digits(interval->low, 5), digits(interval->high, 5)) : "";
}

}  // namespace

PointsResult fit_points(const PointTable& table, const PointsRequest& request) {
  std::vector<fit::SurfacePoint> points;
  std::map<std::string, int64_t> runs;
  for (const PointRow& row : table.fitted) {
    fit::SurfacePoint& point = points.emplace_back();
    const std::vector<double> x = place_of(row, request);
    std::copy(x.begin(), x.end(), point.x.begin());
    point.y = row.values.at("loss");
    if (const auto weight = row.values.find("weight"); weight != row.values.end()) point.weight = weight->second;
    if (!row.run.empty()) point.run = runs.try_emplace(row.run, static_cast<int64_t>(runs.size())).first->second;
  }
  PointsResult result;
  result.rows = table.rows;
  result.fitted = static_cast<int64_t>(points.size());
  result.fit = fit::fit_surface(points, request.spec);
  if (request.bootstrap) result.bootstrap = fit::bootstrap_surface(points, result.fit, *request.bootstrap);
  result.sensitivity = fit::vary(points, result.fit, request.variables);
  if (result.bootstrap) {
    std::vector<fit::NamedInterval> intervals;
    for (const std::string_view name : fit::constant_names(request.spec.form))
      if (name != "E" || !request.spec.given_e) intervals.push_back({name, result.bootstrap->interval(name)});
    result.disagreements = fit::disagreements(result.sensitivity, intervals);
  }
  if (request.profile) result.profile = fit::profile_intervals(points, result.fit, *request.profile);
  for (const std::vector<double>& x : request.predictions) result.predictions.push_back(predict_at(result, x));
  if (!table.held_out.empty()) result.held_out = judge(table.held_out, result, request);
  return result;
}

ordered_json points_json(const PointsResult& result, const PointsRequest& request) {
  const fit::SurfaceFit& fit = result.fit;
  ordered_json json;
  json["schema_version"] = 1;
  json["form"] = fit::name(fit.spec.form);
  json["estimator"] = fit::name(fit.spec.estimator);
  json["space"] = fit.spec.space == fit::Space::kLinear ? "linear" : "log";
  json["law"] = law_line(result, request);
  if (fit.spec.estimator == fit::Estimator::kHuber) json["delta"] = fit.spec.delta;
  json["E_rule"] = fit.spec.form == fit::Form::kPower ? "zero" : fit.spec.given_e ? "given" : "free";
  if (fit.spec.given_e) json["E_source"] = request.e_source;
  for (const Reported& one : reported(result)) {
    ordered_json value = {{"value", six(one.value)}};
    if (one.searched && !one.resampled.empty()) {
      const fit::Interval interval = fit::central_interval(one.resampled, result.bootstrap->level);
      value["se"] = six(fit::deviation(one.resampled));
      value["low"] = six(interval.low);
      value["high"] = six(interval.high);
    }
    if (const fit::ProfileEnds* ends = profile_of(result, one)) {
      value["profile_low"] = end_json(ends->low);
      value["profile_high"] = end_json(ends->high);
    }
    json["parameters"][one.name] = value;
  }
  json["objective"] = six(fit.objective);
  json["starts"] = fit.starts;
  json["starts_at_best"] = fit.starts_at_best;
  json["bound"] = fit.bound.empty() ? ordered_json() : ordered_json(fit.bound);
  json["residuals"] = {
      {"rmse", six(fit.rmse)}, {"r2", six(fit.r2)}, {"max", six(fit.max_residual)}};
  json["sensitivity"] = sensitivity_json(result);
  json["predictions"] = ordered_json::array();
  for (const Predicted& p : result.predictions) json["predictions"].push_back(predicted_json(p, request));
  json["held_out"] = result.held_out ? held_out_json(*result.held_out, request) : ordered_json();
  json["bootstrap"] = bootstrap_json(result, request);
  if (request.profile) json["profile"] = profile_json(result);
  json["covariance"] = result.bootstrap ? covariance_json(result) : ordered_json();
  json["data"] = {{"file", request.file}, {"rows", result.rows}, {"fitted", result.fitted}, {"columns", request.columns}};
  if (!request.where.empty()) json["data"]["where"] = request.where;
  if (!request.hold_out.empty()) json["data"]["hold_out"] = request.hold_out;
  return json;
}

std::string points_words(const PointsResult& result, const PointsRequest& request) {
  const fit::SurfaceFit& fit = result.fit;
  std::string text = fmt::format("{}: {} of {} rows fitted; {} by {} in {} space\nloss = {}\n", request.file, result.fitted,
                                 result.rows, fit::name(fit.spec.form), fit::name(fit.spec.estimator),
                                 fit.spec.space == fit::Space::kLinear ? "linear" : "log", law_line(result, request));
  for (const Reported& one : reported(result)) {
    text += fmt::format("  {:<6}{:<12.6g}", one.name, one.value);
    if (!one.searched) {
      text += fmt::format(" given: {}", request.e_source);
    } else if (!one.resampled.empty()) {
      text += fmt::format(" se {:<10} {:g} % interval{}", digits(fit::deviation(one.resampled), 3), 100 * result.bootstrap->level,
                          interval_words(fit::central_interval(one.resampled, result.bootstrap->level)));
    }
    if (const fit::ProfileEnds* ends = profile_of(result, one)) text += fmt::format(" profile {}", profile_words(*ends));
    text += "\n";
  }
  text += fmt::format("objective {:.6g}, reached from {} of {} starts; residuals: rmse {}, largest {}, R2 {:.6g}\n", fit.objective,
                      fit.starts_at_best, fit.starts, digits(fit.rmse, 3), digits(fit.max_residual, 3), fit.r2);
  if (!fit.bound.empty()) text += fmt::format("a constant lies on its bound: {}\n", fit.bound);
  if (result.bootstrap) {
    const fit::SurfaceBootstrap& boot = *result.bootstrap;
    text += boot.noise ? fmt::format("{} refits with runs drawn around the law, noise {} from {}\n", boot.laws.size(),
                                     digits(boot.noise->sd, 3), boot.noise->source)
                       : fmt::format("{} refits of {} runs drawn with replacement, {} drawn again\n", boot.laws.size(), boot.runs,
                                     boot.redrawn);
  } else if (request.bootstrap) {
    text += "no intervals: there are as many constants as points, and no repeated ones, so nothing tells the noise\n";
  }
  text += sensitivity_words(result);
  if (result.profile)
    text += fmt::format("profile intervals of {:g} %: the objective rises by {:.6g}, noise {} from {} with {} degrees of freedom\n",
                        100 * result.profile->level, result.profile->rise, digits(result.profile->noise.sd, 3),
                        result.profile->noise.source, result.profile->noise.degrees_of_freedom);
  else if (request.profile)
    text += "no profile intervals: there are as many constants as points, so nothing tells the noise\n";
  for (const Predicted& p : result.predictions)
    text += fmt::format("predicted at {}: {:.6g}{}\n", place_words(p, request), p.value, interval_words(p.interval));
  if (result.held_out) {
    const HeldOutRows& held = *result.held_out;
    text += fmt::format("{} rows held out: relative error {} % in the mean, {} % at most; R2 {:.4g}\n", held.rows.size(),
                        digits(100 * held.mean_relative_error, 3), digits(100 * held.max_relative_error, 3), held.r2);
  }
  return text;
}

}  // namespace varscale::analysis
