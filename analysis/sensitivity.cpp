#include "sensitivity.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/file.hpp"
#include "report_text.hpp"
#include "six_digits.hpp"

namespace varscale::analysis {
namespace {

using nlohmann::ordered_json;

double constant(const fit::SurfaceLaw& law, std::string_view name) {
  return name == "E" && law.form == fit::Form::kPower ? 0 : law.constant(name);
}

// 6 N D, with D the tokens seen.
std::vector<fit::SurfacePoint> six_n_d(const LawFit& law, NRule rule) {
  std::vector<fit::SurfacePoint> points;
  for (size_t i = 0; i < law.runs.size(); ++i)
    points.push_back({{6 * law.runs[i]->n(rule) * law.runs[i]->final.tokens}, law.points[i].y});
  return points;
}

LawSensitivity sensitivity_of(const LawFit& law, const Analysis& analysis) {
  const std::vector<fit::SurfacePoint> points = fit::surface_points(law.points);
  const fit::SurfaceSpec spec = fit::surface_spec(law.fit.e_rule, law.fit.space);
  const fit::SurfaceFit fit = fit::fit_surface(points, spec);
  const std::vector<std::string> variable = {"size"};
  const fit::Sensitivity varied = fit::vary(points, fit, variable);

  LawSensitivity result;
  result.law = law.law, result.metric = law.metric, result.headline = law.fit.law;
  for (const fit::Variant& v : varied.variants) result.rows.push_back({v.group, v.change, v.fit.law, false});
  result.not_done = varied.not_done;
  const auto count = [&](const std::string& change, std::span<const fit::SurfacePoint> counted) {
    result.rows.push_back({"counting", change, fit::fit_surface(counted, spec).law, false});
  };
  if (law.law == "L(N)") {
    for (const NRule rule : {NRule::kBlocks, NRule::kPaper})
      if (const LawFit* other = analysis.find("L(N)", name(rule), law.metric, law.e_rule))
        count("N " + name(rule), fit::surface_points(other->points));
  } else {
    for (const NRule rule : kNRules) count(fmt::format("C = 6 N D, N {}", name(rule)), six_n_d(law, rule));
  }
  if (law.bootstrap) {
    result.alpha = law.bootstrap->alpha();
    const std::vector<fit::NamedInterval> intervals = {{"E", law.bootstrap->E()}, {"alpha", *result.alpha}};
    result.disagreements = fit::disagreements(varied, intervals);
    for (Moved& row : result.rows) row.outside = !result.alpha->contains(row.law.constant("alpha"));
  }
  return result;
}

}  // namespace

std::string LawSensitivity::id() const { return fmt::format("{} {}", law, name(metric)); }

std::string LawSensitivity::sentence() const {
  const auto by_alpha = [](const Moved& row) { return row.law.constant("alpha"); };
  const auto [least, most] = std::ranges::minmax(rows, {}, by_alpha);
  return fmt::format("Over {} other choices the exponent of {} ({}) lies between {} ({}) and {} ({}); as fitted it is {}.",
                     rows.size(), law, words(metric), digits(by_alpha(least), 3), least.change, digits(by_alpha(most), 3),
                     most.change, digits(headline.alpha, 3));
}

std::vector<LawSensitivity> sweep_sensitivity(const Analysis& analysis) {
  std::vector<LawSensitivity> result;
  for (const auto& [law, x_rule] : {std::pair{"L(N)", "total"}, std::pair{"L(C)", "flops"}})
    for (const Metric metric : {Metric::kLossMean, Metric::kLossTail})
      if (const LawFit* found = analysis.find(law, x_rule, metric, "free"); found != nullptr && found->fit.law.B > 0)
        result.push_back(sensitivity_of(*found, analysis));
  return result;
}

std::vector<std::string> disagreement_sentences(const std::vector<fit::Disagreement>& disagreements) {
  std::vector<std::string> sentences;
  std::string of;
  for (const fit::Disagreement& each : disagreements) {
    const std::string value = fmt::format("{} = {} (outside {} to {})", each.constant, digits(each.value),
                                          digits(each.interval.low), digits(each.interval.high));
    if (each.change == of) {
      sentences.back() += ", " + value;
    } else {
      sentences.push_back(fmt::format("{} gives {}", each.change, value));
      of = each.change;
    }
  }
  return sentences;
}

void write_sensitivity_csv(const std::vector<LawSensitivity>& sensitivities, const std::filesystem::path& out) {
  std::string text = "law,metric,group,change,E,B,alpha,outside_interval\n";
  for (const LawSensitivity& s : sensitivities) {
    text += fmt::format("{},{},fitted,as fitted,{:.10g},{:.10g},{:.10g},0\n", s.law, name(s.metric), s.headline.E, s.headline.B,
                        s.headline.alpha);
    for (const Moved& row : s.rows)
      text += fmt::format("{},{},{},\"{}\",{:.10g},{:.10g},{:.10g},{}\n", s.law, name(s.metric), row.group, row.change,
                          constant(row.law, "E"), row.law.constant("B"), row.law.constant("alpha"), row.outside ? 1 : 0);
  }
  base::write_file_atomic(out / "sensitivity.csv", text);
}

ordered_json sensitivity_json(const std::vector<LawSensitivity>& sensitivities) {
  ordered_json all = ordered_json::array();
  for (const LawSensitivity& s : sensitivities) {
    ordered_json json = {{"law", s.law}, {"metric", name(s.metric)}, {"sentence", s.sentence()}};
    json["rows"] = ordered_json::array();
    for (const Moved& row : s.rows)
      json["rows"].push_back({{"group", row.group},
                              {"change", row.change},
                              {"E", six(constant(row.law, "E"))},
                              {"B", six(row.law.constant("B"))},
                              {"alpha", six(row.law.constant("alpha"))},
                              {"outside_interval", row.outside}});
    json["not_done"] = ordered_json::array();
    for (const fit::NotVaried& each : s.not_done) json["not_done"].push_back({{"change", each.change}, {"reason", each.reason}});
    json["disagreements"] = disagreement_sentences(s.disagreements);
    all.push_back(std::move(json));
  }
  return all;
}

namespace {

// What the page's table calls a choice of counting, which differs between the laws.
std::string cell_of(const Moved* row) {
  if (row == nullptr) return "<td>–</td><td>–</td>";
  const std::string alpha = digits(row->law.constant("alpha"), 3);
  return fmt::format("<td>{}</td><td>{}</td>", row->outside ? "<strong>" + alpha + "</strong>" : alpha,
                     digits(constant(row->law, "E")));
}

const Moved* row_of(const LawSensitivity& s, const std::string& change) {
  const auto found = std::ranges::find(s.rows, change, &Moved::change);
  return found == s.rows.end() ? nullptr : &*found;
}

}  // namespace

std::string sensitivity_html(const std::vector<LawSensitivity>& sensitivities) {
  if (sensitivities.empty()) return {};
  std::string text = "<h2>What else it could have been</h2>\n";
  text += fmt::format("<p>{} The exponents that lie outside the interval of the law are bold.</p>\n",
                      typeset(sensitivities.front().sentence()));
  for (const LawSensitivity& s : sensitivities)
    for (const std::string& sentence : disagreement_sentences(s.disagreements))
      text += fmt::format("<p class=\"note\">Estimators disagree on {} ({}): {}.</p>\n", s.law, escape(words(s.metric)),
                          escape(sentence));
  text += "<div class=\"scroll\"><table><thead><tr><th class=\"text\" rowspan=\"2\">choice</th>";
  for (const LawSensitivity& s : sensitivities)
    text += fmt::format("<th colspan=\"2\">{}, {}</th>", s.law, escape(words(s.metric)));
  text += "</tr><tr>";
  for (size_t i = 0; i < sensitivities.size(); ++i) text += "<th>α</th><th>E</th>";
  text += "</tr></thead><tbody>\n<tr class=\"headline\"><td class=\"text\">as fitted</td>";
  for (const LawSensitivity& s : sensitivities)
    text += fmt::format("<td>{}</td><td>{}</td>", digits(s.headline.alpha, 3), digits(s.headline.E));
  text += "</tr>\n";
  std::vector<std::string> changes;
  for (const LawSensitivity& s : sensitivities)
    for (const Moved& row : s.rows)
      if (std::ranges::find(changes, row.change) == changes.end()) changes.push_back(row.change);
  for (const std::string& change : changes) {
    text += fmt::format("<tr><td class=\"text\">{}</td>", escape(change));
    for (const LawSensitivity& s : sensitivities) text += cell_of(row_of(s, change));
    text += "</tr>\n";
  }
  text += "</tbody></table></div>\n";
  for (const LawSensitivity& s : sensitivities)
    for (const fit::NotVaried& each : s.not_done)
      text += fmt::format("<p>Not done for {} ({}): {}, as {}.</p>\n", s.law, escape(words(s.metric)), escape(each.change),
                          escape(each.reason));
  return text;
}

}  // namespace varscale::analysis
