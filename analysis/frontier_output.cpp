// frontier.csv, the part `frontier` of fit.json, and the part of the page.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "frontier.hpp"
#include "report_text.hpp"
#include "table.hpp"

namespace varscale::analysis {
namespace {

using nlohmann::ordered_json;
using Interval = std::optional<fit::Interval>;

constexpr int kLinePlaces = 60;      // of a drawn line
constexpr double kExactCost = 1e-6;  // deviation that is rounding

std::vector<double> spaced(double low, double high, int count) {
  std::vector<double> result;
  for (int k = 0; k < count; ++k) result.push_back(low * std::pow(high / low, static_cast<double>(k) / (count - 1)));
  return result;
}

// Where frontiers are compared: the least compute of the points, the middle in logs, the most.
std::vector<double> compared_at(const ComputeFrontier& f) { return spaced(f.least_compute(), f.most_compute(), 3); }

struct Way {
  std::string name;
  bool headline = false;
  fit::PowerLine N, D;  // against C
  Interval a;
  std::string note = {};
};

fit::PowerLine line_of(const fit::Frontier& f, bool of_size) {
  fit::PowerLine line;
  const fit::Optimum one = f.at(1);
  line.coefficient = of_size ? one.N : one.D;
  line.exponent = of_size ? f.a : f.b;
  return line;
}

std::string bias_words(const fit::IsoFlopBias& bias) {
  return fmt::format("by the law, these parabolas find N* times {} and a {}{}", digits(bias.n_factor, 3),
                     bias.a_shift < 0 ? "−" : "+", digits(std::abs(bias.a_shift), 2));
}

// The ways that have exponents, in the order in which they are shown.
std::vector<Way> ways_of(const ComputeFrontier& f) {
  std::vector<Way> ways;
  const auto intervals = [](Way& way, const std::optional<fit::ExponentIntervals>& of) {
    if (of) way.a = of->a;
  };
  for (const FrontierLaw& law : f.laws) {
    if (!law.frontier) continue;
    Way way{.name = fmt::format("L(N, D), {}, E {}", words(law.metric),
                                law.e_rule == "free" ? "free" : digits(law.fit.law.constant("E"), 3)),
            .headline = &law == f.headline(),
            .N = line_of(*law.frontier, true),
            .D = line_of(*law.frontier, false),
            .a = law.a()};
    if (!law.fit.bound.empty()) way.note = law.fit.bound + " lies on its bound";
    ways.push_back(std::move(way));
  }
  for (const FrontierEnvelope& each : f.envelopes) {
    if (!each.envelope.N) continue;
    Way way{.name = "envelope of " + each.points(), .N = *each.envelope.N, .D = *each.envelope.D, .a = {}};
    intervals(way, each.intervals);
    if (each.rules.checkpoints) way.note = "undecayed losses are too high: for comparison";
    ways.push_back(std::move(way));
  }
  if (f.isoflop && f.isoflop->iso.N) {
    Way way{.name = fmt::format("isoFLOP, {} families", f.isoflop->iso.vertices()),
            .N = *f.isoflop->iso.N,
            .D = *f.isoflop->iso.D,
            .a = {}};
    intervals(way, f.isoflop->intervals);
    if (f.isoflop->bias) way.note = bias_words(*f.isoflop->bias);
    ways.push_back(std::move(way));
  }
  return ways;
}

ordered_json exponents_json(const std::optional<fit::PowerLine>& N, const std::optional<fit::PowerLine>& D,
                            const std::optional<fit::ExponentIntervals>& intervals) {
  if (!N) return nullptr;
  ordered_json json = {{"a", constant(N->exponent, intervals ? Interval(intervals->a) : std::nullopt)},
                       {"b", constant(D->exponent, intervals ? Interval(intervals->b) : std::nullopt)},
                       {"N_coefficient", six(N->coefficient)},
                       {"D_coefficient", six(D->coefficient)}};
  if (intervals)
    json["bootstrap"] = {{"resamples", intervals->resamples}, {"redrawn", intervals->redrawn}, {"level", intervals->level}};
  return json;
}

ordered_json law_json(const FrontierLaw& law, const std::vector<double>& at) {
  ordered_json json = {{"metric", name(law.metric)}, {"form", fit::name(law.fit.spec.form)}, {"E_rule", law.e_rule},
                       {"estimator", fit::name(law.fit.spec.estimator)}, {"space", "linear"}};
  const auto names = fit::constant_names(law.fit.spec.form);
  for (size_t k = 0; k < names.size(); ++k) {
    const bool searched = law.bootstrap && !(names[k] == "E" && law.fit.spec.given_e);
    json["parameters"][std::string(names[k])] =
        constant(law.fit.law.constants[k], searched ? Interval(law.bootstrap->interval(names[k])) : std::nullopt);
  }
  json["objective"] = six(law.fit.objective);
  json["residuals"] = {{"rmse", six(law.fit.rmse)}, {"r2", six(law.fit.r2)}, {"max", six(law.fit.max_residual)}};
  json["bound"] = law.fit.bound;
  if (law.bootstrap)
    json["bootstrap"] = {{"method", law.bootstrap->method == fit::BootstrapMethod::kParametric ? "parametric" : "by run"},
                         {"runs", law.bootstrap->runs},
                         {"resamples", law.bootstrap->laws.size()},
                         {"redrawn", law.bootstrap->redrawn},
                         {"without_frontier", law.bootstrap->laws.size() - law.resampled.size()},
                         {"level", law.bootstrap->level}};
  json["frontier"] = nullptr;
  if (!law.frontier) return json;
  const fit::Frontier& f = *law.frontier;
  json["frontier"] = {{"G", six(f.G)},          {"a", constant(f.a, law.a())},     {"b", constant(f.b, law.b())},
                      {"E", six(f.E)},          {"above_E", six(f.above_e)},       {"loss_exponent", six(f.loss_exponent)},
                      {"at", ordered_json::array()}};
  for (const double C : at) {
    const fit::Optimum best = f.at(C);
    json["frontier"]["at"].push_back({{"C", six(C)},
                                      {"N", constant(best.N, law.size_at(C))},
                                      {"D", constant(best.D, law.data_at(C))},
                                      {"loss", six(best.loss)}});
  }
  return json;
}

ordered_json envelope_json(const FrontierEnvelope& each) {
  const fit::Envelope& e = each.envelope;
  ordered_json crossings = ordered_json::array();
  for (const fit::Crossing& c : e.crossings)
    crossings.push_back({{"C", six(c.C)}, {"N", six(c.N)}, {"D", six(c.D)}, {"between", {six(c.smaller), six(c.larger)}}});
  return {{"points", each.points()},
          {"rules", fit::words(each.rules)},
          {"budgets", e.budgets},
          {"best_is_smallest", e.at_smallest},
          {"best_is_largest", e.at_largest},
          {"too_few_sizes", e.too_few_sizes},
          {"crossings", crossings},
          {"exponents", exponents_json(e.N, e.D, each.intervals)},
          {"noise", noise_json(each.noise)}};
}

ordered_json isoflop_json(const FrontierIsoFlop& isoflop) {
  ordered_json json = {{"equal_within", fit::kEqualCompute}, {"families", ordered_json::array()}};
  for (const fit::IsoFlopGroup& group : isoflop.iso.groups) {
    ordered_json family = {{"C", six(group.C)}, {"runs", group.points.size()}, {"sizes", group.sizes}};
    if (group.left_out.empty())
      family["N"] = six(group.vertex.N), family["D"] = six(group.vertex.D), family["loss"] = six(group.vertex.loss);
    else
      family["left_out"] = group.left_out;
    json["families"].push_back(family);
  }
  json["exponents"] = exponents_json(isoflop.iso.N, isoflop.iso.D, isoflop.intervals);
  json["bias"] = nullptr;
  if (const auto& bias = isoflop.bias)
    json["bias"] = {{"families", bias->C.size()},
                    {"N_factor", six(bias->n_factor)},
                    {"a_shift", six(bias->a_shift)},
                    {"b_shift", six(bias->b_shift)}};
  return json;
}

}  // namespace

ordered_json frontier_json(const ComputeFrontier& f) {
  ordered_json json;
  if (!f.not_fitted.empty()) json["not_fitted"] = f.not_fitted;
  if (!f.fitted()) {
    json["notes"] = f.notes;
    return json;
  }
  json["sentence"] = f.sentence();
  json["N"] = definition(NRule::kTotal);
  json["D"] = "training tokens seen: images times tokens an image, repeats counted";
  json["C"] = f.runs.front()->flop_formula;
  json["runs"] = f.runs.size();
  json["cost"] = {{"form", "C = k N^p D"},
                  {"k", six(f.cost.cost.k)},
                  {"p", six(f.cost.cost.n_power)},
                  {"largest_deviation", six(std::expm1(f.cost.largest_deviation))},
                  {"C_over_ND", {{"least", six(f.cost.least)}, {"median", six(f.cost.median)}, {"most", six(f.cost.most)}}}};
  json["laws"] = ordered_json::array();
  for (const FrontierLaw& law : f.laws) json["laws"].push_back(law_json(law, compared_at(f)));
  json["envelopes"] = ordered_json::array();
  for (const FrontierEnvelope& each : f.envelopes) json["envelopes"].push_back(envelope_json(each));
  json["isoflop"] = f.isoflop ? isoflop_json(*f.isoflop) : ordered_json();
  json["notes"] = f.notes;
  return json;
}

void write_frontier_csv(const ComputeFrontier& f, const std::filesystem::path& out) {
  if (!f.fitted()) return;
  Csv csv("kind,family,run,depth,C,N,D,loss,N_low,N_high");
  const auto optima = [&](const char* kind, double C, double N, double D, const std::string& loss) {
    csv.row(kind, "", "", "", C, N, D, loss, "", "");
  };
  for (const FrontierEnvelope& each : f.envelopes) {
    if (each.rules.checkpoints) {
      for (const Run* run : each.runs)
        for (const records::EvalRow& row : run->tables.eval)
          if (row.flops > 0 && row.whole_set == 1)
            csv.row("curve", "", run->id, run->depth, row.flops, run->n(NRule::kTotal), row.images * f.tokens_per_image(),
                    row.loss_mean, "", "");
      continue;
    }
    for (const Run* run : each.runs)
      csv.row("end", "", run->id, run->depth, run->final.flops, run->n(NRule::kTotal),
              run->final.images * f.tokens_per_image(), run->final.loss_mean, "", "");
    for (const fit::EnvelopeRow& row : each.envelope.rows)
      csv.row("envelope", "", each.runs[row.curve]->id, each.runs[row.curve]->depth, row.C, row.N, row.D, row.loss, "", "");
    for (const fit::Crossing& c : each.envelope.crossings) optima("crossing", c.C, c.N, c.D, "");
    if (each.envelope.N)
      for (const double C : {each.envelope.crossings.front().C, each.envelope.crossings.back().C})
        optima("envelope_line", C, each.envelope.N->at(C), each.envelope.D->at(C), "");
  }
  if (const FrontierLaw* law = f.headline()) {
    for (const double C : spaced(f.least_compute(), f.most_compute(), kLinePlaces)) {
      const fit::Optimum best = law->frontier->at(C);
      const Interval band = law->size_at(C);
      csv.row("law", "", "", "", C, best.N, best.D, best.loss, band ? std::optional(band->low) : std::nullopt,
              band ? std::optional(band->high) : std::nullopt);
    }
  }
  if (f.isoflop) {
    for (const fit::IsoFlopGroup& group : f.isoflop->iso.groups) {
      const std::string family = fmt::format("{:.4g}", group.C);
      for (const size_t i : group.points) {
        const fit::RunPoint& p = f.isoflop->points[i];
        csv.row("isoflop", family, f.runs[i]->id, f.runs[i]->depth, p.C, p.N, p.D, p.loss, "", "");
      }
      const double least = f.isoflop->points[group.points.front()].N, most = f.isoflop->points[group.points.back()].N;
      for (const double N : spaced(least, most, kLinePlaces))
        csv.row("parabola", family, "", "", group.C, N, "", group.parabola->at(N), "", "");
      if (group.left_out.empty())
        csv.row("vertex", family, "", "", group.C, group.vertex.N, group.vertex.D, group.vertex.loss, "", "");
    }
    if (f.isoflop->iso.N)
      for (const double C : {f.isoflop->iso.groups.front().C, f.isoflop->iso.groups.back().C})
        optima("isoflop_line", C, f.isoflop->iso.N->at(C), f.isoflop->iso.D->at(C), "");
  }
  csv.save(out / "frontier.csv");
}

std::string frontier_html(const ComputeFrontier& f, const std::string& figure) {
  if (!f.fitted()) return {};
  const std::vector<double> at = compared_at(f);
  std::string text =
      "<h2>Compute-optimal frontier</h2>\n<p>For a budget of compute C, the size N* and the training tokens D* of the least "
      "loss, by each way that the runs of this sweep allow. N is all parameters, D the tokens seen (images times " +
      fmt::format("{:.0f}), and C the training FLOPs of a run, on which C = {} N<sup>{}</sup> D holds {}. D* grows as "
                  "C<sup>b</sup> with b = 1 − {} a.</p>\n",
                  f.tokens_per_image(), digits(f.cost.cost.k, 3), digits(f.cost.cost.n_power, 3),
                  f.cost.largest_deviation < kExactCost
                      ? "exactly"
                      : fmt::format("to {} %", digits(100 * std::expm1(f.cost.largest_deviation), 2)),
                  digits(f.cost.cost.n_power, 3));
  text += figure;
  const std::vector<Way> ways = ways_of(f);
  text += "<div class=\"scroll\"><table><thead><tr><th class=\"text\">way</th><th>a: N* ∝ C<sup>a</sup></th>";
  for (size_t k = 1; k < at.size(); ++k)
    text += fmt::format("<th>N* at {}</th><th>images there</th>", scientific(at[k], 2));
  text += "<th class=\"text\">note</th></tr></thead><tbody>\n";
  for (const Way& way : ways) {
    text += fmt::format("<tr{}><td class=\"text\">{}</td><td>{}</td>", way.headline ? " class=\"headline\"" : "",
                        escape(way.name), with_range(way.N.exponent, way.a, 3));
    for (size_t k = 1; k < at.size(); ++k)
      text += fmt::format("<td>{}</td><td>{}</td>", scientific(way.N.at(at[k])),
                          scientific(way.D.at(at[k]) / f.tokens_per_image()));
    text += fmt::format("<td class=\"text wrap\">{}</td></tr>\n", escape(way.note));
  }
  text += "</tbody></table></div>\n";
  if (const FrontierLaw* law = f.headline()) {
    const fit::SurfaceLaw& l = law->fit.law;
    text += fmt::format(
        "<p><span class=\"math\"><i>L</i> = {} + {} <i>N</i><sup>−{}</sup> + {} <i>D</i><sup>−{}</sup></span>, rms "
        "residual {} nats, and along the frontier <span class=\"math\"><i>L</i>* = {} + {} <i>C</i><sup>−{}</sup></span>.</p>\n",
        digits(l.constant("E")), coefficient(l.constant("A")), digits(l.constant("alpha"), 3), coefficient(l.constant("B")),
        digits(l.constant("beta"), 3), digits(law->fit.rmse, 2), digits(law->frontier->E),
        coefficient(law->frontier->above_e * std::pow(law->frontier->cost.k, law->frontier->loss_exponent)),
        digits(law->frontier->loss_exponent, 3));
  }
  text += "<ul>\n<li>L(N, D) assumes that size and data act apart; its frontier reaches as far as its form holds.</li>\n";
  for (const FrontierEnvelope& each : f.envelopes)
    text += fmt::format("<li>Envelope of {}: {} Of {} budgets {} are on it; at {} the best size was an edge.{}</li>\n",
                        each.points(), each.rules.checkpoints ? fit::points_words(each.rules) : fit::words(each.rules),
                        each.envelope.budgets, each.envelope.rows.size(),
                        each.envelope.at_smallest + each.envelope.at_largest,
                        each.rules.checkpoints ? ""
                                               : " It lies at or above the true frontier, the more so the coarser the sizes, "
                                                 "which no interval shows.");
  if (f.isoflop)
    text += fmt::format("<li>isoFLOP: a parabola in ln N through the runs of equal FLOPs (within {:.0f} %), its vertex between "
                        "their smallest and largest size. A true valley is no parabola: its bias is what parabolas through "
                        "the same sizes find on L(N, D) itself.</li>\n",
                        100 * fit::kEqualCompute);
  for (const std::string& each : f.notes) text += fmt::format("<li>{}</li>\n", escape(each));
  return text + "</ul>\n";
}

}  // namespace varscale::analysis
