#include <fmt/format.h>

#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

std::string verdict_words(const fit::Verdict& v) {
  if (!v.covers) return "Without repeated seeds or spare sizes there is no interval to judge it by.";
  if (!*v.covers) return "The interval does not hold the gain that was seen: the law did not carry to this size.";
  return *v.excludes_zero ? "The interval holds the gain that was seen, and lies above zero: the law predicted an "
                            "improvement, and the right one."
                          : "The interval holds the gain that was seen, but also zero: it claims little.";
}

std::string registration_words(const Page& page) {
  if (!page.results.comparison) return {};
  const Registration& reg = page.results.comparison->registration;
  return fmt::format(
      " The prediction was written down at {} {}{}.", escape(reg.written),
      reg.deepest_had_rows
          ? "from the smaller depths' rows alone; the rows of the deepest run existed and were not opened"
          : "before the deepest run had any rows",
      page.results.comparison->inputs_unchanged ? "" : "; the smaller runs have changed since then");
}

}  // namespace

std::optional<Gain> headline_gain(const Page& page) {
  if (page.results.comparison) {
    const Registration& reg = page.results.comparison->registration;
    const RegisteredMetric& m = reg.metrics.at("loss_mean");
    const auto verdict = page.results.comparison->verdicts.find("loss_mean");
    Gain gain{reg.depth, reg.previous_depth, m.gain, m.gain_interval, std::nullopt, true};
    if (verdict != page.results.comparison->verdicts.end()) gain.verdict = verdict->second;
    return gain;
  }
  if (const Held* held = page.analysis.find_held("total", Metric::kLossMean, "free"))
    return Gain{held->depth,
                held->previous_depth,
                held->result.prediction.gain,
                held->result.prediction.gain_interval,
                held->result.verdict,
                false};
  return std::nullopt;
}

std::string prediction_section(const Page& page) {
  Html html;
  const auto gain = headline_gain(page);
  html.add("<h2>Does it predict a larger model?</h2>");
  if (!gain) {
    for (const std::string& note : page.analysis.notes) html.add("<p>{}</p>", escape(note));
    return std::move(html.text);
  }
  html.add(
      "<p>The law was fitted again without d{}, and asked for it. That the loss of the next model is nearly the last "
      "one's makes a small percent error no test, so what is judged is the <em>gain</em>: the loss of d{} less that of "
      "d{}.</p>",
      gain->depth, gain->previous_depth, gain->depth);
  const bool good = gain->verdict && gain->verdict->covers.value_or(false) && *gain->verdict->excludes_zero;
  const bool bad = gain->verdict && gain->verdict->covers && !*gain->verdict->covers;
  std::string text =
      fmt::format("Gain of d{} predicted <strong>{}</strong> nats", gain->depth, digits(gain->predicted, 3));
  if (gain->interval)
    text += fmt::format(", {} interval {}", percent(page.results.options.bootstrap.level), range(*gain->interval));
  if (gain->verdict)
    text += fmt::format("; seen <strong>{}</strong>. {}", digits(gain->verdict->observed_gain, 3),
                        verdict_words(*gain->verdict));
  else
    text += "; not seen yet.";
  html.add("<div class=\"verdict{}\">{}{}</div>", good ? " good" : bad ? " bad" : "", text, registration_words(page));
  html.text += figure_html(page, "held_out",
                           "The fit on the smaller depths alone, its prediction with the uncertainty of the constants "
                           "and of the runs, and what was seen.");
  html.add(
      "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th class=\"text\">value</th><th "
      "class=\"text\">against</th><th "
      "class=\"text\">E</th><th>depth</th><th>predicted</th><th>seen</th><th>gain predicted</th><th>gain seen</th><th "
      "class=\"text\">covered</th></tr></thead><tbody>");
  for (const Held& held : page.analysis.held_out) {
    if (held.x_rule != "total" && held.metric != Metric::kLossMean) continue;
    const fit::Prediction& p = held.result.prediction;
    const fit::Verdict& v = held.result.verdict;
    html.add(
        "<tr{}><td class=\"text\">{}</td><td class=\"text\">N {}</td><td "
        "class=\"text\">{}</td><td>d{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>",
        held.x_rule == "total" && held.e_rule == "free" && held.metric == Metric::kLossMean ? " class=\"headline\""
                                                                                            : "",
        escape(words(held.metric)), held.x_rule, held.e_rule == "free" ? "free" : digits(p.fit.law.E, 3), held.depth,
        digits(p.y, 5), digits(v.observed_y, 5), with_range(p.gain, p.gain_interval, 3), digits(v.observed_gain, 3),
        !v.covers   ? "–"
        : *v.covers ? "yes"
                    : "no");
  }
  html.add("</tbody></table></div>");
  return std::move(html.text);
}

}  // namespace varscale::analysis
