#include "prediction.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "kinds.hpp"
#include "tuning.hpp"

namespace varscale::analysis {
namespace {

using base::UserError;
using nlohmann::ordered_json;

constexpr Metric kRegistered[] = {Metric::kLossMean, Metric::kLossTail};

ordered_json json_of(const std::optional<fit::Interval>& interval) {
  return interval ? ordered_json{interval->low, interval->high} : ordered_json();
}

std::optional<fit::Interval> interval_of(const ordered_json& json) {
  if (json.is_null()) return std::nullopt;
  return fit::Interval{json.at(0).get<double>(), json.at(1).get<double>()};
}

ordered_json json_of(const Registration& r) {
  ordered_json json;
  json["what"] = "loss and gain of the deepest model, from the runs of smaller depths alone";
  json["written"] = r.written;
  json["depth"] = r.depth;
  json["previous_depth"] = r.previous_depth;
  json["runs"] = r.runs;
  json["params_total"] = r.params_total;
  json["level"] = r.level;
  json["law"] = r.law;
  json["deepest_had_rows"] = r.deepest_had_rows;
  json["read"] = r.files;
  for (const auto& [metric, m] : r.metrics) {
    json["metrics"][metric] = {{"value", m.y},
                               {"interval", json_of(m.y_interval)},
                               {"previous", m.previous_y},
                               {"gain", m.gain},
                               {"gain_interval", json_of(m.gain_interval)}};
  }
  return json;
}

}  // namespace

Registration register_prediction(const std::filesystem::path& folder,
                                 const std::filesystem::path& out, const Options& options) {
  const auto plan = read_plan(folder);
  if (!plan)
    throw UserError("{}: has no plan.json, which names the deepest model; var_sweep writes it",
                    folder.string());
  Registration r;
  for (const PlannedRun& run : plan->runs)
    if (run.role == "main") r.depth = std::max(r.depth, run.depth);
  std::set<std::string> smaller;
  for (const PlannedRun& run : plan->runs) {
    if (run.depth < r.depth) smaller.insert(run.id);
    if (run.role != "main" || run.depth != r.depth) continue;
    ++r.runs;
    r.params_total = run.params_total;
    r.deepest_had_rows |= std::filesystem::exists(folder / "runs" / run.id / "run.h5");
  }
  if (!plan->tune.empty()) r.runs = 1;  // they make one point
  const PlannedRun* first = nullptr;
  for (const PlannedRun& run : plan->runs) {
    if (run.role != "main" || run.tokens.tokens.empty()) continue;
    if (first == nullptr) first = &run;
    if (!first->tokens.same(run.tokens))
      throw UserError(
          "{}: {} and {} are trained on different tokens ({}, {}); a prediction is registered for a sweep of one kind",
          folder.string(), first->id, run.id, plain_name(first->tokens), plain_name(run.tokens));
  }
  if (smaller.empty())
    throw UserError("{}: all its runs have depth {}; a prediction needs smaller depths",
                    folder.string(), r.depth);

  const SweepRuns sweep =
      load_runs(folder, [&](const std::string& id) { return smaller.contains(id); });
  const std::vector<const Run*> main = sweep.main_runs();
  if (main.empty())
    throw UserError("{}: no finished run of role main below d{}", folder.string(), r.depth);
  require_same_data(main);
  r.previous_depth = main.back()->depth;
  for (const Run* run : main) r.files[run->id] = run->sha256;
  for (Metric metric : kRegistered) {
    const fit::Prediction p = fit::predict(size_points(main, NRule::kTotal, metric), r.params_total,
                                           fit::EFree{}, options.bootstrap, r.runs,
                                           redraw_of(sweep, main, metric));
    r.metrics[name(metric)] = {p.y, p.gain, p.previous_y, p.y_interval, p.gain_interval};
    if (metric == Metric::kLossMean) r.law = law_words(p.fit, "N");
  }
  r.level = options.bootstrap.level;
  r.written = base::utc_now();
  base::write_file_atomic(out / "prediction.json", base::json_text(json_of(r), 2) + "\n");
  return r;
}

std::optional<Registration> read_registration(const std::filesystem::path& out) {
  const std::filesystem::path path = out / "prediction.json";
  if (!std::filesystem::exists(path)) return std::nullopt;
  try {
    const ordered_json json = base::parse_json(base::read_file(path));
    Registration r;
    r.depth = json.at("depth").get<int64_t>();
    r.previous_depth = json.at("previous_depth").get<int64_t>();
    r.runs = json.at("runs").get<int64_t>();
    r.params_total = json.at("params_total").get<double>();
    r.level = json.at("level").get<double>();
    r.law = json.at("law").get<std::string>();
    r.written = json.at("written").get<std::string>();
    r.deepest_had_rows = json.at("deepest_had_rows").get<bool>();
    r.files = json.at("read").get<std::map<std::string, std::string>>();
    for (const auto& [metric, m] : json.at("metrics").items())
      r.metrics[metric] = {m.at("value").get<double>(), m.at("gain").get<double>(),
                           m.at("previous").get<double>(), interval_of(m.at("interval")),
                           interval_of(m.at("gain_interval"))};
    return r;
  } catch (const ordered_json::exception& error) {
    throw UserError("{}: not a prediction that var_fit wrote ({}); delete it to go on without",
                    path.string(), error.what());
  }
}

Comparison compare(const Registration& registration, const SweepRuns& sweep) {
  Comparison result;
  result.registration = registration;
  std::map<std::string, std::string> now;
  for (const Run* run : sweep.main_runs())
    if (run->depth < registration.depth) now[run->id] = run->sha256;
  result.inputs_unchanged = now == registration.files;
  for (Metric metric : kRegistered) {
    const auto registered = registration.metrics.find(name(metric));
    std::vector<double> observed;
    for (const Run* run : sweep.main_runs())
      if (run->depth == registration.depth && run->params_total == registration.params_total)
        observed.push_back(run->value(metric));
    if (registered == registration.metrics.end() || observed.empty()) continue;
    fit::Prediction prediction;
    prediction.y = registered->second.y;
    prediction.previous_y = registered->second.previous_y;
    prediction.gain_interval = registered->second.gain_interval;
    result.verdicts[name(metric)] = fit::judge(prediction, observed);
  }
  return result;
}

std::string gain_words(int64_t depth, double predicted,
                       const std::optional<fit::Interval>& interval, std::optional<double> seen) {
  std::string text = fmt::format("d{}'s gain predicted {}", depth, digits(predicted, 3));
  if (interval)
    text += fmt::format(" [{}, {}]", digits(interval->low, 3), digits(interval->high, 3));
  else
    text += " (no interval: one seed a size)";
  if (seen) text += fmt::format(", seen {}", digits(*seen, 3));
  return text;
}

}  // namespace varscale::analysis
