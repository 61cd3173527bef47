#include "tuning.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "base/error.hpp"
#include "base/file.hpp"
#include "laws.hpp"

namespace varscale::analysis {
namespace {

using base::UserError;

constexpr size_t kFewestRates = 3;

std::vector<fit::Observation> values_of(const SweepRuns& sweep, const std::vector<size_t>& members, Metric metric) {
  std::vector<fit::Observation> grid;
  for (size_t i : members) grid.push_back({sweep.runs[i].lr, sweep.runs[i].value(metric)});
  return grid;
}

TunedPoint point_of(const SweepRuns& sweep, const std::vector<size_t>& members, bool many_budgets) {
  TunedPoint point{{}, members, fit::vertex_of(values_of(sweep, members, Metric::kLossMean))};
  const Run& first = sweep.runs[members.front()];
  Run& run = point.run;
  run = first;
  run.tables = {};
  run.id = many_budgets ? fmt::format("d{}-{}-tuned", first.depth, first.budget_images)
                        : fmt::format("d{}-tuned", first.depth);
  run.lr = point.best.x;
  std::string hashes;
  for (size_t i : members) hashes += sweep.runs[i].sha256;
  run.sha256 = base::sha256_hex(hashes);
  const auto at_best = [&](Metric metric) { return point.best.read(values_of(sweep, members, metric)); };
  run.final.loss_mean = point.best.y;
  run.final.loss_tail = at_best(Metric::kLossTail);
  run.final.err_mean = at_best(Metric::kErrMean);
  run.final.err_tail = at_best(Metric::kErrTail);
  return point;
}

RateFinding finding_of(const SweepRuns& sweep, const TunedPoint& point) {
  RateFinding finding{point.run.depth, point.run.budget_images, values_of(sweep, point.members, Metric::kLossMean),
                      point.best, std::nullopt};
  std::ranges::sort(finding.losses, {}, &fit::Observation::x);
  return finding;
}

// The one rate that the sweep gives this depth.
double rule_at(const SweepRuns& sweep, int64_t depth, const SweepRuns& check) {
  std::set<double> rates;
  for (const Run* run : sweep.main_runs())
    if (run->depth == depth) rates.insert(run->lr);
  if (rates.empty() && sweep.plan)
    for (const PlannedRun& run : sweep.plan->runs)
      if (run.role == "main" && run.depth == depth && run.lr > 0) rates.insert(run.lr);
  if (rates.empty())
    throw UserError("{}: checks the rate of d{}, which {} does not have", check.folder.string(), depth,
                    sweep.folder.string());
  if (rates.size() > 1)
    throw UserError("{}: has several rates at d{} and declares no tune: [optimizer.lr]; there is no rule to check",
                    sweep.folder.string(), depth);
  return *rates.begin();
}

void require_same_batch(const SweepRuns& sweep, const Run& checked) {
  for (const Run* run : sweep.main_runs())
    if (run->depth == checked.depth && run->batch != checked.batch)
      throw UserError("{} has a batch of {} and {} one of {}; the rate of one says nothing of the other", checked.id,
                      checked.batch, run->id, run->batch);
}

// "d4", or "d4 at 14000 images" where that depth has several budgets.
std::string name_of(const RateFinding& finding, const std::vector<RateFinding>& all) {
  const auto same_depth = [&](const RateFinding& other) { return other.depth == finding.depth; };
  return std::ranges::count_if(all, same_depth) == 1 ? fmt::format("d{}", finding.depth)
                                                     : fmt::format("d{} at {} images", finding.depth, finding.images);
}

}  // namespace

std::vector<TunedPoint> tuned_points(SweepRuns& sweep) {
  std::map<std::tuple<int64_t, int64_t, std::string>, std::vector<size_t>> groups;
  std::map<int64_t, std::set<int64_t>> budgets;
  for (size_t i = 0; i < sweep.runs.size(); ++i) {
    const Run& run = sweep.runs[i];
    if (run.role != "main" && run.role != "data") continue;
    groups[{run.depth, run.budget_images, run.role}].push_back(i);
    budgets[run.depth].insert(run.budget_images);
  }
  std::vector<TunedPoint> points;
  for (const auto& [key, members] : groups) {
    const auto& [depth, images, role] = key;
    std::set<double> rates;
    std::vector<const Run*> runs;
    for (size_t i : members) rates.insert(sweep.runs[i].lr), runs.push_back(&sweep.runs[i]);
    if (rates.size() >= kFewestRates) {
      require_same_data(runs);
      points.push_back(point_of(sweep, members, budgets.at(depth).size() > 1));
    } else if (role == "main") {
      sweep.left_out.push_back({fmt::format("d{} at {} images", depth, images),
                                fmt::format("{} of its rates finished, and a parabola needs {}", rates.size(),
                                            kFewestRates)});
    }
  }
  return points;
}

std::optional<fit::Redraw> redraw_of(const SweepRuns& sweep, std::span<const Run* const> runs, Metric metric) {
  std::vector<std::vector<fit::Observation>> grids;
  std::vector<fit::Vertex> vertices;
  std::map<size_t, size_t> grid_of;  // by number in `runs`
  for (size_t i = 0; i < runs.size(); ++i) {
    for (const TunedPoint& point : sweep.tuned) {
      if (&point.run != runs[i]) continue;
      grid_of[i] = grids.size();
      grids.push_back(values_of(sweep, point.members, metric));
      vertices.push_back(point.best);
    }
  }
  const auto noise = fit::grid_noise(grids);
  if (!noise) return std::nullopt;
  fit::Redraw redraw = metric == Metric::kLossMean ? fit::redraw_vertices(std::move(grids), *noise)
                                                   : fit::redraw_read(std::move(grids), std::move(vertices), *noise);
  redraw.deviation = [grid_of, of_grid = redraw.deviation](size_t i, double sd, const base::RandomStream& random) {
    const auto found = grid_of.find(i);
    return found == grid_of.end() ? sd * random.normal(i) : of_grid(found->second, sd, random);
  };
  return redraw;
}

LearningRates learning_rates(const SweepRuns& sweep, const std::optional<SweepRuns>& check) {
  LearningRates rates;
  if (!sweep.tune.empty()) {
    if (check)
      throw UserError("{}: its rates are tuned; it needs no --lr-check", sweep.folder.string());
    rates.state = LearningRates::State::kTuned;
    for (const TunedPoint& point : sweep.tuned) rates.findings.push_back(finding_of(sweep, point));
  } else if (check) {
    if (check->tune.empty())
      throw UserError("{}: declares no tune: [optimizer.lr]; expected a sweep such as sweeps/lr_check.yaml",
                      check->folder.string());
    rates.state = LearningRates::State::kChecked;
    rates.checked_in = check->folder.string();
    const double budget = static_cast<double>(sweep.main_runs().front()->budget_images);
    for (const TunedPoint& point : check->tuned) {
      RateFinding finding = finding_of(*check, point);
      finding.rule = rule_at(sweep, finding.depth, *check);
      require_same_batch(sweep, point.run);
      rates.budget_share = std::max(rates.budget_share, static_cast<double>(finding.images) / budget);
      rates.findings.push_back(std::move(finding));
    }
    if (rates.findings.empty())
      throw UserError("{}: no depth has three finished rates yet", check->folder.string());
  }
  return rates;
}

std::string LearningRates::word() const {
  switch (state) {
    case State::kTuned:
      return "lr tuned";
    case State::kChecked:
      return "lr rule checked";
    case State::kUnchecked:
      return "lr unchecked";
  }
  return {};
}

std::string LearningRates::sentence() const {
  if (state == State::kUnchecked) return word() + ": one rate a size, and no run says whether it is the best";
  std::vector<std::string> points, at_edge;
  std::vector<double> off;
  for (const RateFinding& each : findings) {
    points.push_back(name_of(each, findings));
    if (each.best.at_edge)
      at_edge.push_back(points.back());
    else if (each.rule)
      off.push_back(each.best.x / *each.rule);
  }
  std::string text = word();
  if (state == State::kTuned) {
    text += ": each point is the vertex of a parabola over its rates";
    if (!at_edge.empty())
      text += fmt::format("; at {} the best rate is the edge of the grid, and the best run seen stands in for the vertex",
                          fmt::join(at_edge, ", "));
    return text;
  }
  text += fmt::format(" at {} with {:.2g} % of the images: ", fmt::join(points, ", "), 100 * budget_share);
  if (!off.empty()) {
    const auto [low, high] = std::ranges::minmax(off);
    text += low == high ? fmt::format("the best rate is {} times the rule's", digits(low, 3))
                        : fmt::format("the best rate is {} to {} times the rule's", digits(low, 3), digits(high, 3));
  }
  for (const RateFinding& each : findings)
    if (each.best.at_edge)
      text += fmt::format("{}at {} the best is {} times the rule's, the edge of the rates tried",
                          text.ends_with(": ") ? "" : "; ", name_of(each, findings),
                          digits(each.best.x / *each.rule, 3));
  return text;
}

}  // namespace varscale::analysis
