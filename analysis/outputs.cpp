#include "outputs.hpp"

#include <fmt/format.h>

#include <cmath>

#include "kinds.hpp"
#include "published.hpp"
#include "scales.hpp"
#include "six_digits.hpp"
#include "table.hpp"

namespace varscale::analysis {
namespace {

using nlohmann::ordered_json;

constexpr int kCurvePoints = 80;  // of a drawn law
constexpr double kMargin = 1.5;   // beyond the fitted sizes, as a factor

ordered_json law_json(const LawFit& law) {
  using Kind = std::optional<fit::Interval>;
  const auto& boot = law.bootstrap;
  ordered_json json;
  json["id"] = law.id();
  json["law"] = law.law;
  json["x"] = law.x_rule;
  json["metric"] = name(law.metric);
  json["form"] = fit::form_name(law.fit.e_rule);
  json["E_rule"] = law.e_rule;
  if (const auto* given = std::get_if<fit::EGiven>(&law.fit.e_rule))
    json["E_source"] = given->source;
  json["estimator"] = "vpnls";
  json["space"] = law.fit.space == fit::Space::kLinear ? "linear" : "log";
  const bool free = law.e_rule == "free";
  json["parameters"]["E"] = constant(law.fit.law.E, boot && free ? Kind(boot->E()) : std::nullopt);
  json["parameters"]["B"] = constant(law.fit.law.B, boot ? Kind(boot->B()) : std::nullopt);
  json["parameters"]["alpha"] =
      constant(law.fit.law.alpha, boot ? Kind(boot->alpha()) : std::nullopt);
  if (law.profile) {
    for (const fit::ProfileEnds& ends : law.profile->constants) {
      ordered_json& parameter = json["parameters"][ends.name];
      parameter["profile_low"] = ends.low ? six(*ends.low) : ordered_json();
      parameter["profile_high"] = ends.high ? six(*ends.high) : ordered_json();
    }
    json["profile"] = {{"level", law.profile->level}, {"rise", six(law.profile->rise)}, {"noise", noise_json(law.profile->noise)}};
  }
  json["runs"] = law.runs.size();
  json["distinct_sizes"] = law.fit.distinct_sizes;
  json["objective"] = six(law.fit.objective);
  json["residuals"] = {
      {"rmse", six(law.fit.rmse)}, {"r2", six(law.fit.r2)}, {"max", six(law.fit.max_residual)}};
  json["noise"] = boot ? noise_json(boot->noise) : ordered_json();
  if (boot) {
    json["bootstrap"] = {
        {"method", boot->method == fit::BootstrapMethod::kParametric ? "parametric" : "by run"},
        {"resamples", boot->laws.size()},
        {"redrawn", boot->redrawn},
        {"level", boot->level}};
  }
  if (law.check) {
    const fit::HuberCheck& check = *law.check;
    json["log_huber"] = {{"E", six(check.law.E)},
                         {"B", six(check.law.B)},
                         {"alpha", six(check.law.alpha)},
                         {"delta", check.delta},
                         {"objective", six(check.objective)},
                         {"starts", check.starts},
                         {"starts_at_best", check.starts_at_best}};
  }
  if (!law.caveat.empty()) json["caveat"] = law.caveat;
  return json;
}

ordered_json verdict_json(const fit::Verdict& v) {
  ordered_json json = {{"observed", six(v.observed_y)},
                       {"runs", v.runs},
                       {"observed_gain", six(v.observed_gain)},
                       {"relative_error", six(v.relative_error)}};
  json["gain_interval_covers"] = v.covers ? ordered_json(*v.covers) : ordered_json();
  json["gain_interval_excludes_zero"] =
      v.excludes_zero ? ordered_json(*v.excludes_zero) : ordered_json();
  return json;
}

ordered_json held_json(const Held& held) {
  const fit::Prediction& p = held.result.prediction;
  ordered_json json;
  json["law"] = "L(N)";
  json["x"] = held.x_rule;
  json["metric"] = name(held.metric);
  json["E_rule"] = held.e_rule;
  json["depth"] = held.depth;
  json["previous_depth"] = held.previous_depth;
  json["sizes_fitted"] = p.fit.distinct_sizes;
  json["parameters"] = {
      {"E", six(p.fit.law.E)}, {"B", six(p.fit.law.B)}, {"alpha", six(p.fit.law.alpha)}};
  json["noise"] = noise_json(p.noise);
  json["predicted"] = six(p.y);
  json["interval"] = six(p.y_interval);
  json["predicted_gain"] = six(p.gain);
  json["gain_interval"] = six(p.gain_interval);
  json["seen"] = verdict_json(held.result.verdict);
  return json;
}

ordered_json comparison_json(const Comparison& comparison) {
  const Registration& r = comparison.registration;
  ordered_json json = {{"written", r.written},
                       {"depth", r.depth},
                       {"law", r.law},
                       {"deepest_had_rows", r.deepest_had_rows},
                       {"inputs_unchanged", comparison.inputs_unchanged}};
  for (const auto& [metric, m] : r.metrics) {
    ordered_json entry = {{"predicted", six(m.y)},
                          {"interval", six(m.y_interval)},
                          {"predicted_gain", six(m.gain)},
                          {"gain_interval", six(m.gain_interval)}};
    const auto verdict = comparison.verdicts.find(metric);
    entry["seen"] =
        verdict == comparison.verdicts.end() ? ordered_json() : verdict_json(verdict->second);
    json["metrics"][metric] = entry;
  }
  return json;
}

ordered_json rates_json(const LearningRates& rates) {
  ordered_json json = {{"state", rates.word()}, {"sentence", rates.sentence()}};
  if (!rates.checked_in.empty()) {
    json["checked_in"] = rates.checked_in;
    json["budget_share"] = six(rates.budget_share);
  }
  json["points"] = ordered_json::array();
  for (const RateFinding& each : rates.findings) {
    ordered_json point = {{"depth", each.depth},
                          {"images", each.images},
                          {"best", six(each.best.x)},
                          {"loss", six(each.best.y)},
                          {"at_edge", each.best.at_edge}};
    if (each.rule) {
      point["rule"] = six(*each.rule);
      point["best_over_rule"] = six(each.best.x / *each.rule);
    }
    point["tried"] = ordered_json::array();
    for (const fit::Observation& p : each.losses) point["tried"].push_back({{"lr", six(p.x)}, {"loss", six(p.y)}});
    json["points"].push_back(point);
  }
  return json;
}

void write_points(const SweepRuns& sweep, const std::filesystem::path& out) {
  Csv csv(
      "run,role,depth,width,seed,data_seed,params_total,params_blocks,params_paper,budget_images,"
      "images,tokens,"
      "unique_tokens,passes,flops,flop_formula,batch,lr,precision,steps,val_images,tokens_"
      "fingerprint,loss_mean,"
      "loss_tail,err_mean,err_tail");
  for (const Run& r : sweep.runs)
    csv.row(r.id, r.role, r.depth, r.width, r.seed, r.data_seed, r.params_total, r.params_blocks,
            r.params_paper, r.budget_images, r.final.images, r.final.tokens, r.unique_tokens,
            r.passes, r.final.flops, r.flop_formula, r.batch, r.lr, r.precision, r.final.step,
            r.val_images, r.tokens.tokens, r.final.loss_mean, r.final.loss_tail,
            r.final.err_mean, r.final.err_tail);
  csv.save(out / "points.csv");
}

void write_fits(const Analysis& analysis, const std::filesystem::path& out) {
  Csv csv(
      "law,x,metric,E_rule,E,E_low,E_high,B,B_low,B_high,alpha,alpha_low,alpha_high,runs,sizes,"
      "rmse,r2,noise_sd,"
      "noise_df,caveat");
  for (const LawFit& l : analysis.fits) {
    std::optional<double> edges[6], sd, df;
    if (const auto& b = l.bootstrap) {
      const fit::Interval E = b->E(), B = b->B(), alpha = b->alpha();
      const double values[] = {E.low, E.high, B.low, B.high, alpha.low, alpha.high};
      for (int i = 0; i < 6; ++i) edges[i] = values[i];
      sd = b->noise.sd, df = static_cast<double>(b->noise.degrees_of_freedom);
    }
    csv.row(l.law, l.x_rule, name(l.metric), l.e_rule, l.fit.law.E, edges[0], edges[1], l.fit.law.B,
            edges[2], edges[3], l.fit.law.alpha, edges[4], edges[5],
            static_cast<int64_t>(l.runs.size()), l.fit.distinct_sizes, l.fit.rmse, l.fit.r2, sd, df,
            l.caveat);
  }
  csv.save(out / "fits.csv");
}

void write_curves(const SweepRuns& sweep, const std::filesystem::path& out) {
  Csv csv(
      "run,role,depth,seed,budget_images,step,images,flops,loss_mean,loss_tail,err_mean,err_tail,"
      "whole_set");
  for (const Run& r : sweep.runs)
    for (const records::EvalRow& e : r.tables.eval)
      csv.row(r.id, r.role, r.depth, r.seed, r.budget_images, e.step, e.images, e.flops,
              e.loss_mean, e.loss_tail, e.err_mean, e.err_tail, e.whole_set);
  csv.save(out / "curves.csv");
}

// Log-spaced places for a drawn law.
std::vector<double> places(double low, double high) {
  std::vector<double> result;
  for (int k = 0; k < kCurvePoints; ++k)
    result.push_back(low * std::pow(high / low, static_cast<double>(k) / (kCurvePoints - 1)));
  return result;
}

// Points and laws of one kind: what law_n, law_c and law_d are drawn from.
void write_law(const Analysis& analysis, const std::optional<TokenEntropies>& entropies, const std::string& law,
               const std::string& x_rule, const std::filesystem::path& path) {
  Csv csv("kind,x_rule,metric,E_rule,run,depth,x,y,low,high");
  bool any = false;
  for (const LawFit& l : analysis.fits) {
    if (l.law != law || (!x_rule.empty() && l.x_rule != x_rule)) continue;
    any = true;
    if (l.e_rule == "free") {
      for (size_t i = 0; i < l.points.size(); ++i)
        csv.row("point", l.x_rule, name(l.metric), "", l.runs[i]->id, l.runs[i]->depth,
                l.points[i].x, l.points[i].y, "", "");
    }
    const std::vector<double> sizes = fit::distinct_sizes(l.points);
    for (double x : places(sizes.front() / kMargin, sizes.back() * kMargin)) {
      std::optional<double> low, high;
      if (l.bootstrap) {
        const fit::Interval band = l.bootstrap->law_at(x);
        low = band.low, high = band.high;
      }
      csv.row("law", l.x_rule, name(l.metric), l.e_rule, "", "", x, l.fit.law.at(x), low, high);
    }
  }
  if (any && entropies)
    for (const Metric metric : kMetrics)
      for (const UpperBound& bound : entropies->of(metric)) csv.row("bound", "", name(metric), "", bound.name, "", "", bound.nats, "", "");
  if (any) csv.save(path);
}

void write_residuals(const Analysis& analysis, const std::filesystem::path& out) {
  Csv csv("metric,E_rule,run,depth,x,residual,noise_sd");
  for (const LawFit& l : analysis.fits) {
    if (l.law != "L(N)" || l.x_rule != "total" || !is_loss(l.metric)) continue;
    for (size_t i = 0; i < l.points.size(); ++i)
      csv.row(name(l.metric), l.e_rule, l.runs[i]->id, l.runs[i]->depth, l.points[i].x,
              l.fit.residuals[i],
              l.bootstrap ? std::optional<double>(l.bootstrap->noise.sd) : std::nullopt);
  }
  csv.save(out / "residuals.csv");
}

// The fit on the smaller sizes, its prediction, and what was seen.
void write_held_out(const Analysis& analysis, const std::filesystem::path& out) {
  Csv csv("kind,metric,depth,x,y,low,high");
  bool any = false;
  for (Metric metric : {Metric::kLossMean, Metric::kLossTail}) {
    const LawFit* full = analysis.find("L(N)", "total", metric, "free");
    const Held* first = analysis.find_held("total", metric, "free");
    if (full == nullptr || first == nullptr) continue;
    any = true;
    const fit::PowerFit& smaller = first->result.prediction.fit;
    for (size_t i = 0; i < full->points.size(); ++i)
      csv.row(full->points[i].x <= first->result.prediction.previous_x ? "fitted" : "seen",
              name(metric), full->runs[i]->depth, full->points[i].x, full->points[i].y, "", "");
    const std::vector<double> sizes = fit::distinct_sizes(full->points);
    for (double x : places(sizes.front() / kMargin, sizes.back() * kMargin))
      csv.row("law", name(metric), "", x, smaller.law.at(x), "", "");
    for (const Held& held : analysis.held_out) {
      if (held.x_rule != "total" || held.metric != metric || held.e_rule != "free") continue;
      const fit::Prediction& p = held.result.prediction;
      std::optional<double> low, high;
      if (p.y_interval) low = p.y_interval->low, high = p.y_interval->high;
      csv.row("predicted", name(metric), held.depth, p.x, p.y, low, high);
    }
  }
  if (any) csv.save(out / "held_out.csv");
}

}  // namespace

ordered_json tokens_json(const SweepRuns& sweep) {
  const TokenKind kind = described(sweep);
  return {{"name", sweep.kind},
          {"tokenizer", kind.tokenizer},
          {"scales", kind.scales},
          {"tokens_fingerprint", kind.tokens},
          {"data_tokens", kind.source}};
}

ordered_json fit_json(const Results& results) {
  ordered_json json;
  json["schema_version"] = 1;
  json["sweep"] = results.sweep.name;
  json["tokens"] = tokens_json(results.sweep);
  json["sentence"] = results.sentence;
  json["seed"] = results.options.bootstrap.seed;
  json["definitions"] = {
      {"loss_mean", "validation cross-entropy, nats per token, mean over all tokens"},
      {"loss_tail", "the same over the tokens of the last scale"},
      {"err_mean", "1 - top-1 accuracy over all validation tokens"},
      {"err_tail", "the same over the tokens of the last scale"},
      {"N total", definition(NRule::kTotal)},
      {"N blocks", definition(NRule::kBlocks)},
      {"N paper", definition(NRule::kPaper)},
      {"C", results.sweep.runs.front().flop_formula},
      {"D", "training images seen, repeats counted"},
      {"E", "the loss that no size reaches; free: searched with B and alpha"}};
  json["across_data"] = nullptr;
  if (const auto& across = results.analysis.across)
    json["across_data"] = {{"caveat", across->sentence()},
                           {"images_least", across->least->budget_images},
                           {"images_most", across->most->budget_images}};
  json["runs"] = ordered_json::array();
  for (const Run& run : results.sweep.runs)
    json["runs"].push_back({{"id", run.id},
                            {"role", run.role},
                            {"interpolated", run.interpolated},
                            {"depth", run.depth},
                            {"seed", run.seed},
                            {"sha256", run.sha256}});
  json["left_out"] = results.sweep.left_out;
  json["fits"] = ordered_json::array();
  for (const LawFit& law : results.analysis.fits) json["fits"].push_back(law_json(law));
  json["held_out"] = ordered_json::array();
  for (const Held& held : results.analysis.held_out) json["held_out"].push_back(held_json(held));
  json["registered_prediction"] =
      results.comparison ? comparison_json(*results.comparison) : ordered_json();
  json["learning_rate"] = rates_json(results.rates);
  json["scores"] = results.scores ? scores_json(*results.scores) : ordered_json();
  json["token_entropies"] = results.entropies ? entropies_json(*results.entropies) : ordered_json();
  json["beside_the_paper"] = paper_json(results.analysis);
  json["sensitivity"] = sensitivity_json(results.sensitivity);
  json["frontier"] = frontier_json(results.frontier);
  json["notes"] = results.analysis.notes;
  return json;
}

// What an earlier fit left must not pass for this one's.
void remove_tables(const std::filesystem::path& out) {
  for (const char* figure : kFigures)
    for (const char* end : {".csv", ".png", ".pdf", ".svg", "_narrow.svg"})
      std::filesystem::remove(out / fmt::format("{}{}", figure, end));
  for (const char* table : {"points.csv", "fits.csv", "sensitivity.csv"}) std::filesystem::remove(out / table);
}

void write_tables(const Results& results, const std::filesystem::path& out) {
  remove_tables(out);
  write_points(results.sweep, out);
  write_fits(results.analysis, out);
  write_curves(results.sweep, out);
  write_residuals(results.analysis, out);
  write_law(results.analysis, results.entropies, "L(N)", "total", out / "law_n.csv");
  write_law(results.analysis, results.entropies, "L(C)", "flops", out / "law_c.csv");
  write_law(results.analysis, std::nullopt, "L(D)", "", out / "law_d.csv");
  write_held_out(results.analysis, out);
  write_paper_csv(results.analysis, out);
  write_scales_csv(results.sweep, out / "scales.csv");
  if (results.scores) write_scores_csv(*results.scores, out);
  if (!results.sensitivity.empty()) write_sensitivity_csv(results.sensitivity, out);
  write_frontier_csv(results.frontier, out);
}

}  // namespace varscale::analysis
