#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.hpp"
#include "base/progress.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {

std::string curves_section(const Page& page) {
  Html html;
  html.add("<h2>Every run</h2>");
  html.text +=
      figure_html(page, "curves", "Validation loss while training. The curves end with the learning rate's decay.");
  return std::move(html.text);
}

std::string scores_section(const Page& page) {
  if (!page.results.scores) return {};
  return scores_html(
      *page.results.scores,
      figure_html(page, "scores",
                  "Distance of each run's samples from the reference against the training FLOPs of the run."));
}

std::string learning_rate_section(const Page& page) {
  Html html;
  const LearningRates& rates = page.results.rates;
  html.add("<h2>Learning rate</h2>\n<p>{}.</p>", escape(rates.sentence()));
  if (rates.findings.empty()) return std::move(html.text);
  const bool checked = rates.state == LearningRates::State::kChecked;
  html.add(
      "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th>depth</th><th>images</th><th "
      "class=\"text\">rates tried: "
      "loss</th><th>best rate</th><th>loss there</th>{}<th class=\"text\">enclosed</th></tr></thead><tbody>",
      checked ? "<th>over the rule's</th>" : "");
  for (const RateFinding& each : rates.findings) {
    std::string tried;
    for (const fit::Observation& p : each.losses)
      tried += fmt::format("{}{:.3g}: {:.4f}", tried.empty() ? "" : ", ", p.x, p.y);
    html.add(
        "<tr><td>d{}</td><td>{}</td><td class=\"text\">{}</td><td>{:.3g}</td><td>{:.4f}</td>{}<td "
        "class=\"text\">{}</td></tr>",
        each.depth, each.images, tried, each.best.x, each.best.y,
        each.rule ? fmt::format("<td>{}</td>", digits(each.best.x / *each.rule, 3)) : "",
        each.best.at_edge ? "no: the edge is the best" : "yes");
  }
  html.add("</tbody></table></div>");
  if (!checked)
    html.add(
        "<p>A point is the vertex of the parabola through the lowest loss and its neighbours in the log of the rate; "
        "its other values are read at the same rate. Intervals draw every run of every grid anew with the noise of one "
        "run and take the vertices again, where repeated seeds or spare rates tell that noise.</p>");
  return std::move(html.text);
}

std::string runs_section(const Page& page) {
  Html html;
  html.add("<h2>Table of runs</h2>");
  html.add(
      "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th class=\"text\">run</th><th "
      "class=\"text\">role</th>"
      "<th>depth</th><th>seed</th><th>N total</th><th>N blocks</th><th>images</th><th>passes</th><th>FLOPs</th>"
      "<th>peak lr</th><th>loss</th><th>tail loss</th><th>error</th><th>tail error</th></tr></thead><tbody>");
  for (const Run& run : page.sweep.runs)
    html.add(
        "<tr><td class=\"text\"><code>{}</code></td><td class=\"text\">{}</td><td>{}</td><td>{}</td>{}{}{}<td>{}</td>{}"
        "<td>{:.3g}</td><td>{:.4f}</td><td>{:.4f}</td><td>{:.4f}</td><td>{:.4f}</td></tr>",
        escape(run.id), escape(run.role) + (run.interpolated ? "*" : ""), run.depth, run.seed,
        cell_by(run.params_total, base::format_count(run.params_total)),
        cell_by(run.params_blocks, base::format_count(run.params_blocks)),
        cell_by(run.final.images, grouped(std::llround(run.final.images))), digits(run.passes, 2),
        cell_by(run.final.flops, scientific(run.final.flops)), run.lr, run.final.loss_mean, run.final.loss_tail,
        run.final.err_mean, run.final.err_tail);
  html.add("</tbody></table></div>\n<p>tail: over the tokens of the last scale.</p>");
  if (std::ranges::any_of(page.sweep.runs, &Run::interpolated))
    html.add("<p>*: settings between published ones, not published ones.</p>");
  for (const LeftOut& run : page.sweep.left_out)
    html.add("<p>Left out: <code>{}</code>, {}.</p>", escape(run.id), escape(run.reason));
  return std::move(html.text);
}

}  // namespace varscale::analysis
