#include "laws.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "base/error.hpp"
#include "fit/sensitivity.hpp"
#include "repetition.hpp"
#include "tuning.hpp"

namespace varscale::analysis {
namespace {

constexpr int64_t kBudgetsForLaw = 3;
constexpr double kEstimatorsAgree = 0.05;  // of the exponent

struct NamedERule {
  std::string name;
  fit::ERule rule;
};

std::vector<NamedERule> e_rules(Metric metric, const Options& options) {
  std::vector<NamedERule> rules = {{"free", fit::EFree{}},
                                   {"0", fit::EGiven{0, "no irreducible part assumed"}}};
  const std::optional<double>& given = metric == Metric::kLossMean   ? options.e_mean
                                       : metric == Metric::kLossTail ? options.e_tail
                                                                     : std::nullopt;
  if (given) rules.push_back({"given", fit::EGiven{*given, options.e_source}});
  return rules;
}

std::string caveat_of(const LawFit& law) {
  std::vector<std::string> parts;
  if (law.fit.bound == "B = 0")
    parts.push_back("the values do not fall: no power law");
  else if (!law.fit.bound.empty())
    parts.push_back(law.fit.bound + " lies on its bound");
  const int64_t constants = fit::constant_count(law.fit.e_rule);
  if (law.fit.distinct_sizes == constants)
    parts.push_back(
        fmt::format("{} sizes for {} constants: the law goes through every point and is untested",
                    law.fit.distinct_sizes, constants));
  if (!law.bootstrap) parts.push_back("one seed a size and no residual freedom: no interval");
  if (law.check &&
      std::abs(law.check->law.alpha - law.fit.law.alpha) > kEstimatorsAgree * law.fit.law.alpha)
    parts.push_back(
        fmt::format("the log-Huber check gives the exponent {}", digits(law.check->law.alpha, 3)));
  std::string result;
  for (const std::string& part : parts) result += (result.empty() ? "" : "; ") + part;
  return result;
}

// Under across_data, runs of one size at several budgets take the place of repeated seeds.
void name_noise(std::optional<fit::Noise>& noise, std::span<const Run* const> runs) {
  std::map<double, int64_t> budget;
  for (const Run* run : runs)
    if (budget.try_emplace(run->n(NRule::kTotal), run->budget_images).first->second != run->budget_images && noise &&
        noise->source == "repeated seeds")
      noise->source = "runs of one size at several budgets";
}

void add_caveat(LawFit& law, const std::string& text) { law.caveat += (law.caveat.empty() ? "" : "; ") + text; }

// With the noise of repeated seeds where there are some, else that of the residuals.
std::optional<fit::ProfileIntervals> profile_of(const LawFit& law) {
  const std::vector<fit::SurfacePoint> points = fit::surface_points(law.points);
  const fit::SurfaceFit fit = fit::fit_surface(points, fit::surface_spec(law.fit.e_rule, law.fit.space));
  fit::ProfileOptions options;
  if (law.bootstrap) {
    options.level = law.bootstrap->level;
    if (law.bootstrap->noise.source == "repeated seeds" && law.bootstrap->noise.sd > 0) options.noise = law.bootstrap->noise;
  }
  return fit::profile_intervals(points, fit, options);
}

class Analyst {
 public:
  Analyst(const SweepRuns& sweep, const Options& options) : sweep_(sweep), options_(options) {}

  Analysis run() {
    const std::vector<const Run*> main = sweep_.main_runs();
    if (main.empty())
      throw base::UserError("no finished run of role main");
    require_same_data(main, options_.across_data);
    if (options_.across_data) find_budgets(main);
    fit_size_and_compute(main);
    fit_data();
    hold_out(main);
    for (std::string& note : repetition_notes(main)) result_.notes.push_back(std::move(note));
    return std::move(result_);
  }

 private:
  void find_budgets(const std::vector<const Run*>& main) {
    const auto [least, most] = std::ranges::minmax_element(main, {}, &Run::budget_images);
    if ((*least)->budget_images == (*most)->budget_images)
      throw base::UserError("--across-data has no effect: all {} runs of role main saw {} images", main.size(),
                            (*least)->budget_images);
    result_.across = AcrossData{*least, *most};
  }

  void add(LawFit law, const NamedERule& rule, bool with_check,
           std::optional<fit::Noise> noise = {}) {
    law.e_rule = rule.name;
    law.fit = fit::fit_power_law(law.points, rule.rule);
    std::optional<fit::Redraw> redraw = redraw_of(sweep_, law.runs, law.metric);
    if (!redraw && !noise) {
      noise = fit::estimate_noise(law.points, law.fit);
      name_noise(noise, law.runs);
    }
    if (!redraw && noise) redraw = fit::Redraw{*noise, {}};
    if (redraw) law.bootstrap = fit::bootstrap_fit(law.points, law.fit, *redraw, options_.bootstrap);
    if (law.fit.bound.empty() && !(redraw && redraw->deviation)) law.profile = profile_of(law);
    if (with_check) law.check = fit::fit_log_huber(law.points, rule.rule);
    law.caveat = caveat_of(law);
    if (result_.across && law.law != "L(D)") add_caveat(law, "across data: what size does and what data do are not told apart");
    std::vector<const Run*> at_edge;
    for (const TunedPoint& point : sweep_.tuned)
      if (point.best.at_edge && std::ranges::find(law.runs, &point.run) != law.runs.end())
        at_edge.push_back(&point.run);
    if (!at_edge.empty())
      add_caveat(law, fmt::format("the best rate of {} is the edge of its grid", depth_words(depths(at_edge))));
    result_.fits.push_back(std::move(law));
  }

  void fit_size_and_compute(const std::vector<const Run*>& main) {
    for (Metric metric : kMetrics) {
      for (const NamedERule& rule : e_rules(metric, options_)) {
        for (NRule n_rule : kNRules) {
          LawFit law;
          law.law = "L(N)", law.x_rule = name(n_rule), law.metric = metric, law.runs = main;
          law.points = size_points(main, n_rule, metric);
          add(std::move(law), rule, n_rule == NRule::kTotal && is_loss(metric));
        }
        LawFit law;
        law.law = "L(C)", law.x_rule = "flops", law.metric = metric, law.runs = main;
        for (const Run* run : main) law.points.push_back({run->final.flops, run->value(metric)});
        add(std::move(law), rule, false);
      }
    }
  }

  // The runs of one depth that differ in budget only, where some have role data.
  void fit_data() {
    std::set<int64_t> data_depths;
    const std::vector<const Run*> points = sweep_.points();
    for (const Run* run : points)
      if (run->role == "data") data_depths.insert(run->depth);
    for (int64_t depth : data_depths) {
      std::vector<const Run*> runs;
      std::set<int64_t> budgets;
      for (const Run* run : points) {
        if (run->depth != depth || (run->role != "data" && run->role != "main")) continue;
        runs.push_back(run);
        budgets.insert(run->budget_images);
      }
      if (static_cast<int64_t>(budgets.size()) < kBudgetsForLaw) {
        result_.notes.push_back(fmt::format("L(D) at d{} needs {} budgets; there are {}.", depth,
                                            kBudgetsForLaw, budgets.size()));
        continue;
      }
      for (Metric metric : kMetrics) {
        LawFit law;
        law.law = "L(D)", law.x_rule = fmt::format("images, d{}", depth), law.metric = metric,
        law.runs = runs;
        for (const Run* run : runs) law.points.push_back({run->final.images, run->value(metric)});
        std::optional<fit::Noise> noise = fit::seed_noise(law.points);
        if (!noise && !result_.across) noise = fit::seed_noise(size_points(sweep_.main_runs(), NRule::kTotal, metric));
        for (const NamedERule& rule : e_rules(metric, options_)) add(law, rule, false, noise);
      }
    }
  }

  void hold_out(const std::vector<const Run*>& main) {
    for (Metric metric : kMetrics) {
      for (const NamedERule& rule : e_rules(metric, options_)) {
        for (NRule n_rule : kNRules) {
          const auto points = size_points(main, n_rule, metric);
          const int64_t left =
              static_cast<int64_t>(fit::distinct_sizes(points).size()) - options_.hold_out;
          if (left < fit::constant_count(rule.rule)) {
            if (metric == Metric::kLossMean && n_rule == NRule::kTotal)
              result_.notes.push_back(
                  fmt::format("Without its {} largest, the sweep has {} sizes; E {} has {} "
                              "constants, so nothing was predicted.",
                              options_.hold_out, std::max<int64_t>(left, 0), rule.name,
                              fit::constant_count(rule.rule)));
            continue;
          }
          for (fit::HeldOut& held :
               fit::hold_out_largest(points, rule.rule, options_.bootstrap, options_.hold_out,
                                     redraw_of(sweep_, main, metric))) {
            name_noise(held.prediction.noise, main);
            Held entry{name(n_rule),
                       rule.name,
                       metric,
                       depth_of(main, n_rule, held.prediction.x),
                       depth_of(main, n_rule, held.prediction.previous_x),
                       std::move(held)};
            result_.held_out.push_back(std::move(entry));
          }
        }
      }
    }
  }

  static int64_t depth_of(const std::vector<const Run*>& runs, NRule rule, double n) {
    for (const Run* run : runs)
      if (run->n(rule) == n) return run->depth;
    return 0;
  }

  const SweepRuns& sweep_;
  const Options& options_;
  Analysis result_;
};

}  // namespace

std::string AcrossData::sentence() const {
  return fmt::format("across data: {} saw {} images and {} saw {}, so that what size does and what data do are not told apart",
                     least->id, least->budget_images, most->id, most->budget_images);
}

std::string LawFit::id() const {
  return fmt::format("{} {} {} E {}", law, x_rule, name(metric),
                     e_rule == "given" ? fmt::format("{:g}", fit.law.E) : e_rule);
}

const LawFit* Analysis::find(const std::string& law, const std::string& x_rule, Metric metric,
                             const std::string& e_rule) const {
  for (const LawFit& fit : fits)
    if (fit.law == law && fit.x_rule == x_rule && fit.metric == metric && fit.e_rule == e_rule)
      return &fit;
  return nullptr;
}

const Held* Analysis::find_held(const std::string& x_rule, Metric metric,
                                const std::string& e_rule) const {
  for (const Held& held : held_out)
    if (held.x_rule == x_rule && held.metric == metric && held.e_rule == e_rule) return &held;
  return nullptr;
}

Analysis analyse(const SweepRuns& sweep, const Options& options) {
  return Analyst(sweep, options).run();
}

std::vector<fit::Observation> size_points(std::span<const Run* const> runs, NRule rule,
                                          Metric metric) {
  std::vector<fit::Observation> points;
  for (const Run* run : runs) points.push_back({run->n(rule), run->value(metric)});
  return points;
}

std::string digits(double value, int significant) {
  const double size = std::abs(value);
  if (size == 0) return "0";
  if (size >= 1e5 || size < 1e-4) return fmt::format("{:.{}g}", value, significant);
  const int before = size >= 1 ? static_cast<int>(std::log10(size)) + 1 : 0;
  const int leading_zeros = size < 0.1 ? static_cast<int>(-std::log10(size)) : 0;
  return fmt::format("{:.{}f}", value, std::max(0, significant - before + leading_zeros));
}

std::string law_words(const fit::PowerFit& fit, std::string_view x) {
  const std::string power =
      fmt::format("{} {}^-{}", digits(fit.law.B, 3), x, digits(fit.law.alpha, 3));
  if (fit.law.B == 0) return fmt::format("L = {}", digits(fit.law.E));
  return fit.law.E == 0 ? fmt::format("L = {}", power)
                        : fmt::format("L = {} + {}", digits(fit.law.E), power);
}

std::string headline(const Analysis& analysis, const SweepRuns& sweep) {
  const LawFit* law = analysis.find("L(N)", "total", Metric::kLossMean, "free");
  VARSCALE_CHECK(law != nullptr, "an analysis without its headline fit");
  const std::string what = analysis.across ? "L(N) across data" : "L(N) at fixed data";
  std::string over = depth_words(depths(sweep.main_runs()));
  if (analysis.across)
    over += fmt::format(", whose runs saw {} to {} images", analysis.across->least->budget_images,
                        analysis.across->most->budget_images);
  if (law->fit.law.B == 0)
    return fmt::format(
        "{}: the validation loss does not fall with N over {}; no power law", what, over);
  std::string interval = "no interval: one seed a size";
  if (law->bootstrap) {
    const fit::Interval alpha = law->bootstrap->alpha();
    interval = fmt::format("{:.0f} % interval of the exponent {}-{}", 100 * law->bootstrap->level,
                           digits(alpha.low, 3), digits(alpha.high, 3));
  }
  return fmt::format("{}: {} ({}) over {}", what, law_words(law->fit, "N"), interval, over);
}

}  // namespace varscale::analysis
