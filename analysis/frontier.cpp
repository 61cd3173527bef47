#include "frontier.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>

namespace varscale::analysis {
namespace {

constexpr size_t kSizesAtBudgets = 3, kBudgetsOfSize = 2;
constexpr double kRoughCost = 0.05;  // of ln C about C = k N^p D, from which on it is said

double data_of(const Run& run) { return run.final.images * static_cast<double>(run.tokens_per_image); }

// Why these runs make no frontier; empty where they do.
std::string why_not(const std::vector<const Run*>& runs) {
  std::map<double, std::set<int64_t>> budgets;
  for (const Run* run : runs) {
    budgets[run->n(NRule::kTotal)].insert(run->budget_images);
    const Run& first = *runs.front();
    if (run->flop_formula != first.flop_formula)
      return fmt::format("{} and {} count FLOPs by different formulas ({}; {}).", first.id, run->id, first.flop_formula,
                         run->flop_formula);
    if (run->val_images != first.val_images)
      return fmt::format("{} and {} were scored on {} and {} validation images.", first.id, run->id, first.val_images,
                         run->val_images);
  }
  const auto with_several =
      std::ranges::count_if(budgets, [](const auto& size) { return size.second.size() >= kBudgetsOfSize; });
  if (static_cast<size_t>(with_several) >= kSizesAtBudgets) return "";
  return fmt::format("A compute-optimal frontier needs {} sizes with runs of {} budgets each; there {} {}.", kSizesAtBudgets,
                     kBudgetsOfSize, with_several == 1 ? "is" : "are", with_several);
}

// A number for all runs that share steps: those of one trunk, and tuned points of one depth where rates have trunks.
class Groups {
 public:
  explicit Groups(const SweepRuns& sweep) : sweep_(sweep) {
    if (sweep.plan)
      for (const PlannedRun& run : sweep.plan->runs)
        if (!run.branch_of.empty()) trunk_of_[run.id] = run.branch_of;
  }
  int64_t of(const Run& run) {
    std::string key = trunk_of(run.id);
    for (const TunedPoint& point : sweep_.tuned)
      if (&point.run == &run && !trunk_of(sweep_.runs[point.members.front()].id).empty())
        key = fmt::format("tuned d{}", run.depth);
    if (key.empty()) key = "run " + run.id;
    return number_.try_emplace(key, static_cast<int64_t>(number_.size())).first->second;
  }

 private:
  std::string trunk_of(const std::string& id) const {
    const auto found = trunk_of_.find(id);
    return found == trunk_of_.end() ? std::string() : "trunk " + found->second;
  }
  const SweepRuns& sweep_;
  std::map<std::string, std::string> trunk_of_;
  std::map<std::string, int64_t> number_;
};

class Study {
 public:
  Study(const SweepRuns& sweep, const Options& options) : sweep_(sweep), options_(options), groups_(sweep) {}

  ComputeFrontier run() {
    for (const Run* run : sweep_.points())
      if (run->role == "main" || run->role == "data") result_.runs.push_back(run);
    result_.not_fitted = why_not(result_.runs);
    if (!result_.not_fitted.empty()) return std::move(result_);
    cost();
    laws();
    envelope_of_ends();
    envelope_of_checkpoints();
    isoflop();
    if (!result_.fitted())
      result_.not_fitted = "Neither a law L(N, D) nor an envelope nor isoFLOP parabolas gave a compute-optimal frontier.";
    return std::move(result_);
  }

 private:
  template <class... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    result_.notes.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  void cost() {
    std::vector<fit::CostPoint> points;
    double passes = 0;
    for (const Run* run : result_.runs) {
      points.push_back({run->n(NRule::kTotal), data_of(*run), run->final.flops});
      passes = std::max(passes, run->passes);
    }
    result_.cost = fit::fit_cost(points);
    if (result_.cost.largest_deviation > kRoughCost)
      note("The FLOPs of a run are up to {:.0f} % off C = k N^p D, along which L(N, D) was minimised.",
           100 * std::expm1(result_.cost.largest_deviation));
    if (passes > 1)
      note("Runs saw their images up to {} times; the frontier takes a repeated image for a fresh one.", digits(passes, 2));
  }

  void laws() {
    for (const Metric metric : {Metric::kLossMean, Metric::kLossTail}) {
      const std::optional<double>& given = metric == Metric::kLossMean ? options_.e_mean : options_.e_tail;
      law(metric, "free", std::nullopt);
      if (given) law(metric, "given", given);
    }
  }

  void law(Metric metric, const std::string& e_rule, std::optional<double> e) {
    std::vector<fit::SurfacePoint> points;
    for (const Run* run : result_.runs)
      points.push_back({.x = {run->n(NRule::kTotal), data_of(*run)}, .y = run->value(metric), .run = groups_.of(*run)});
    const fit::SurfaceSpec spec{.form = fit::Form::kChinchilla, .given_e = e};
    if (const std::string reason = fit::too_few(points, spec); !reason.empty()) {
      if (metric == Metric::kLossMean) note("L(N, D) with E {} was not fitted: {}.", e_rule, reason);
      return;
    }
    FrontierLaw law{.metric = metric, .e_rule = e_rule, .fit = fit::fit_surface(points, spec)};
    const std::string& bound = law.fit.bound;
    if (bound.empty() || bound == "E = 0") {
      law.frontier = fit::analytic_frontier(law.fit.law, result_.cost.cost);
      law.bootstrap = fit::bootstrap_surface(points, law.fit, options_.bootstrap);
      if (law.bootstrap)
        for (const fit::SurfaceLaw& each : law.bootstrap->laws)
          if (each.constant("A") > 0 && each.constant("B") > 0)
            law.resampled.push_back(fit::analytic_frontier(each, result_.cost.cost));
    } else {
      note("L(N, D) of the {} with E {} has {} on its bound: it has no frontier.", words(metric), e_rule, bound);
    }
    result_.laws.push_back(std::move(law));
  }

  // Of one run: from repeated seeds, else from what L(N, D) leaves over.
  std::optional<fit::Noise> noise() const {
    std::map<std::pair<double, double>, double> number;  // of a size and its data, for an x that seed_noise() can pool by
    std::vector<fit::Observation> repeats;
    for (const Run* run : result_.runs) {
      const auto [place, fresh] = number.try_emplace({run->n(NRule::kTotal), run->final.images},
                                                     static_cast<double>(number.size() + 1));
      repeats.push_back({place->second, run->final.loss_mean});
    }
    if (auto seeds = fit::seed_noise(repeats)) return seeds;
    const FrontierLaw* law = result_.headline();
    if (!law) return std::nullopt;
    const int64_t degrees = static_cast<int64_t>(result_.runs.size()) - fit::constant_count(law->fit.spec);
    if (degrees <= 0) return std::nullopt;
    return fit::Noise{std::sqrt(law->fit.objective / static_cast<double>(degrees)), degrees, "residuals of L(N, D)"};
  }

  void add_envelope(const std::vector<fit::Curve>& curves, std::vector<const Run*> runs, const fit::EnvelopeRules& rules) {
    FrontierEnvelope each{.runs = std::move(runs), .rules = rules, .envelope = fit::envelope_of(curves, rules)};
    each.noise = noise();
    each.intervals = fit::bootstrap_envelope(curves, rules, options_.bootstrap, each.noise);
    if (const fit::Envelope& e = each.envelope; !e.why_no_exponents.empty())
      note("No exponents from the envelope of {}: {}. Of {} budgets {} were reached by too few sizes, and at {} the "
           "best was the smallest or largest of them.",
           each.points(), e.why_no_exponents, e.budgets, e.too_few_sizes, e.at_smallest + e.at_largest);
    result_.envelopes.push_back(std::move(each));
  }

  void envelope_of_ends() {
    std::vector<fit::Curve> curves;
    for (const Run* run : result_.runs)
      curves.push_back({.N = run->n(NRule::kTotal),
                        .points = {{run->final.flops, data_of(*run), run->final.loss_mean}},
                        .group = groups_.of(*run)});
    add_envelope(curves, result_.runs, {});
  }

  // Of the runs themselves, also where rates are tuned: each is a curve.
  void envelope_of_checkpoints() {
    std::vector<fit::Curve> curves;
    std::vector<const Run*> runs;
    for (const Run& run : sweep_.runs) {
      if (run.role != "main" && run.role != "data") continue;
      fit::Curve curve{.N = run.n(NRule::kTotal), .points = {}, .group = groups_.of(run)};
      for (const records::EvalRow& row : run.tables.eval)
        if (row.whole_set == 1 && std::isfinite(row.loss_mean) &&
            row.flops > (curve.points.empty() ? 0 : curve.points.back().C))
          curve.points.push_back({row.flops, row.images * static_cast<double>(run.tokens_per_image), row.loss_mean});
      curves.push_back(std::move(curve));
      runs.push_back(&run);
    }
    if (std::ranges::all_of(curves, [](const fit::Curve& curve) { return curve.points.size() == 1; })) return;
    add_envelope(curves, std::move(runs), {.checkpoints = fit::Checkpoints{}});
  }

  void isoflop() {
    FrontierIsoFlop result;
    for (const Run* run : result_.runs)
      result.points.push_back({run->n(NRule::kTotal), data_of(*run), run->final.flops, run->final.loss_mean});
    result.iso = fit::isoflop(result.points);
    std::erase_if(result.iso.groups, [](const fit::IsoFlopGroup& group) { return !group.parabola; });
    const auto groups = static_cast<int64_t>(result.iso.groups.size());
    if (groups == 0) {
      note("No isoFLOP parabola: no three sizes have equal FLOPs (within {:.0f} %); runs with a budget in train.flops do.",
           100 * fit::kEqualCompute);
      return;
    }
    for (const fit::IsoFlopGroup& group : result.iso.groups)
      if (!group.left_out.empty()) note("The isoFLOP family at C = {:.3g} has no vertex: {}.", group.C, group.left_out);
    if (!result.iso.N)
      note("No exponents from isoFLOP parabolas: {} of {} famil{} a vertex, and a line needs two.", result.iso.vertices(),
           groups, groups == 1 ? "y has" : "ies have");
    result.intervals = fit::bootstrap_isoflop(result.points, result.iso, options_.bootstrap);
    if (const FrontierLaw* law = result_.headline())
      result.bias = fit::isoflop_bias(result.points, result.iso, law->fit.law, result_.cost.cost);
    result_.isoflop = std::move(result);
  }

  const SweepRuns& sweep_;
  const Options& options_;
  Groups groups_;
  ComputeFrontier result_;
};

FrontierLaw::Interval interval_of(const FrontierLaw& law, const std::function<double(const fit::Frontier&)>& of) {
  if (law.resampled.empty()) return std::nullopt;
  std::vector<double> values;
  for (const fit::Frontier& each : law.resampled) values.push_back(of(each));
  return fit::central_interval(std::move(values), law.bootstrap->level);
}

std::string exponent_words(double value, const std::optional<fit::Interval>& interval) {
  return fmt::format("C^{}{}", digits(value, 3),
                     interval ? fmt::format(" [{}, {}]", digits(interval->low, 3), digits(interval->high, 3)) : "");
}

std::optional<fit::Interval> a_of(const std::optional<fit::ExponentIntervals>& intervals) {
  return intervals ? std::optional(intervals->a) : std::nullopt;
}

}  // namespace

FrontierLaw::Interval FrontierLaw::a() const {
  return interval_of(*this, [](const fit::Frontier& f) { return f.a; });
}
FrontierLaw::Interval FrontierLaw::b() const {
  return interval_of(*this, [](const fit::Frontier& f) { return f.b; });
}
FrontierLaw::Interval FrontierLaw::size_at(double C) const {
  return interval_of(*this, [C](const fit::Frontier& f) { return f.at(C).N; });
}
FrontierLaw::Interval FrontierLaw::data_at(double C) const {
  return interval_of(*this, [C](const fit::Frontier& f) { return f.at(C).D; });
}

const FrontierLaw* ComputeFrontier::headline() const {
  for (const FrontierLaw& law : laws)
    if (law.metric == Metric::kLossMean && law.e_rule == "free" && law.frontier) return &law;
  return nullptr;
}

bool ComputeFrontier::fitted() const {
  return headline() || (isoflop && isoflop->iso.N) || std::ranges::any_of(envelopes, [](const FrontierEnvelope& each) {
           return each.envelope.N && !each.rules.checkpoints;
         });
}

std::string ComputeFrontier::sentence() const {
  std::string text;
  const auto add = [&](const std::string& way, double value, const std::optional<fit::Interval>& interval) {
    text += fmt::format("{}{} by {}", text.empty() ? "" : ", ", exponent_words(value, interval), way);
  };
  if (const FrontierLaw* law = headline()) add("L(N, D)", law->frontier->a, law->a());
  for (const FrontierEnvelope& each : envelopes)
    if (each.envelope.N && !each.rules.checkpoints)
      add("the envelope", each.envelope.N->exponent, a_of(each.intervals));
  if (isoflop && isoflop->iso.N)
    add(isoflop->bias ? fmt::format("isoFLOP parabolas (bias {:+.3f})", isoflop->bias->a_shift) : "isoFLOP parabolas",
        isoflop->iso.N->exponent, a_of(isoflop->intervals));
  return "compute-optimal N* grows as " + text;
}

double ComputeFrontier::least_compute() const {
  return std::ranges::min(runs, {}, [](const Run* run) { return run->final.flops; })->final.flops;
}
double ComputeFrontier::most_compute() const {
  return std::ranges::max(runs, {}, [](const Run* run) { return run->final.flops; })->final.flops;
}

ComputeFrontier compute_frontier(const SweepRuns& sweep, const Options& options) { return Study(sweep, options).run(); }

}  // namespace varscale::analysis
