#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "published.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

constexpr size_t kMostDataLaws = 3;  // of which the page shows the drawings at once

void law_row(Html& html, const LawFit& law, bool headline, bool with_note) {
  const auto& boot = law.bootstrap;
  using Maybe = std::optional<fit::Interval>;
  const bool free = law.e_rule == "free";
  std::string e = free ? with_range(law.fit.law.E, boot ? Maybe(boot->E()) : Maybe(), 4)
                       : fmt::format("{} <span class=\"range\">given</span>", digits(law.fit.law.E, 3));
  std::string x = law.law == "L(N)" ? "N " + law.x_rule : law.law == "L(C)" ? "C" : "D, " + law.x_rule.substr(8);
  html.add("<tr{}><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td>{}<td>{}</td><td>{}</td>{}</tr>",
           headline ? " class=\"headline\"" : "", escape(words(law.metric)), escape(x), e,
           cell_by(law.fit.law.B, coefficient(law.fit.law.B)),
           with_range(law.fit.law.alpha, boot ? Maybe(boot->alpha()) : Maybe(), 3), digits(law.fit.rmse, 2),
           with_note ? fmt::format("<td class=\"text wrap\">{}</td>", escape(law.caveat)) : "");
}

std::string ends_words(const fit::ProfileEnds& ends, int significant) {
  const auto end = [&](const std::optional<double>& value) { return value ? digits(*value, significant) : std::string("open"); };
  return fmt::format("{} – {}", end(ends.low), end(ends.high));
}

// How far the headline's constants may go with the others searched anew.
std::string profile_sentence(const LawFit& law) {
  if (!law.profile) return {};
  return fmt::format(
      "<p>Profile intervals of the first row, at {}: α {}, E {} nats; an end is where the least sum of squares over all other constants has "
      "risen by the noise ({}) times the square of Student's t.</p>\n",
      percent(law.profile->level), ends_words(law.profile->of("alpha"), 3), ends_words(law.profile->of("E"), 4),
      escape(law.profile->noise.source));
}

std::string law_table(const Page& page, const std::string& law, bool errors) {
  Html html;
  std::vector<const LawFit*> rows;
  for (const LawFit& fit : page.analysis.fits)
    if (fit.law == law && (is_loss(fit.metric) || (errors && fit.x_rule == "total"))) rows.push_back(&fit);
  const bool notes = std::any_of(rows.begin(), rows.end(), [](const LawFit* fit) { return !fit->caveat.empty(); });
  html.add(
      "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th class=\"text\">value</th><th "
      "class=\"text\">against</th><th>E</th><th>B</th><th>α</th><th>rms residual</th>{}</tr></thead><tbody>",
      notes ? "<th class=\"text\">note</th>" : "");
  for (const LawFit* fit : rows) law_row(html, *fit, fit == page.law, notes);
  html.add("</tbody></table></div>");
  return std::move(html.text);
}

}  // namespace

std::string law_section(const Page& page) {
  Html html;
  html.add("<h2>The law</h2>");
  html.text += figure_html(page, "law_n",
                           std::string("Final validation value of every run against its number of parameters; one point a run. ") +
                               (page.analysis.across ? "The runs saw different numbers of images."
                                                     : "All runs saw the same number of images."));
  html.text += law_table(page, "L(N)", true);
  if (page.results.entropies) html.text += entropies_html(*page.results.entropies, page.sweep);
  html.text += profile_sentence(*page.law);
  if (page.law->check) {
    const fit::HuberCheck& check = *page.law->check;
    html.add(
        "<p>Brackets are {} intervals by {} bootstrap over {} resamples. A second estimator, the Huber loss (δ = {}) "
        "of the log residuals from {} starts ({} of them reached the best), gives α = {} and E = {} for the first "
        "row.</p>",
        percent(page.results.options.bootstrap.level),
        page.law->bootstrap && page.law->bootstrap->method == fit::BootstrapMethod::kByRun ? "a by-run"
                                                                                           : "a parametric",
        page.results.options.bootstrap.resamples, check.delta, check.starts, check.starts_at_best,
        digits(check.law.alpha, 3), digits(check.law.E));
  }
  return std::move(html.text);
}

std::string other_laws_section(const Page& page) {
  Html html;
  html.add("<h2>Against compute</h2>");
  html.add("<p>The same final losses against training FLOPs{}.</p>",
           page.analysis.across              ? ", of runs whose images differ, too"
           : page.results.frontier.fitted() ? ". Every run ends at the same number of images, so this is L(N) on another "
                                              "axis; the compute-optimal frontier is another section"
                                            : ". Every run ends at the same number of images, so this is L(N) on another "
                                              "axis, and no compute-optimal frontier");
  html.text += figure_html(page, "law_c", "Final validation loss against the training FLOPs of the whole run.");
  html.text += law_table(page, "L(C)", false);
  const bool data = std::any_of(page.analysis.fits.begin(), page.analysis.fits.end(),
                                [](const LawFit& f) { return f.law == "L(D)"; });
  if (!data) return std::move(html.text);
  html.add("<h2>Against data</h2>");
  std::set<std::string> depths;
  for (const LawFit& fit : page.analysis.fits)
    if (fit.law == "L(D)") depths.insert(fit.x_rule);
  const bool folded = depths.size() > kMostDataLaws;
  if (folded) html.add("<details><summary>The laws of {} depths, each at its budgets</summary>", depths.size());
  html.text += figure_html(page, "law_d",
                           "Final validation loss of one depth at several budgets, each with its own full schedule.");
  html.text += law_table(page, "L(D)", false);
  if (folded) html.add("</details>");
  return std::move(html.text);
}

std::string frontier_section(const Page& page) {
  const ComputeFrontier& frontier = page.results.frontier;
  const std::string caption =
      std::string("Loss and best size against compute: training curves thin, the ends of schedules as points, and the frontier by "
                  "each way.") +
      (frontier.isoflop ? " Then the families of equal compute with their parabolas, and the best data." : "");
  return frontier_html(frontier, figure_html(page, "frontier", caption));
}

std::string residuals_section(const Page& page) {
  Html html;
  html.add("<h2>Residuals</h2>");
  html.text += figure_html(page, "residuals",
                           "What each form leaves over, of the loss over all tokens. A bend that all seeds share is "
                           "misfit; scatter within the shaded band is the noise of single runs.");
  return std::move(html.text);
}

std::string paper_section(const Page& page) {
  return paper_html(page.analysis,
                    figure_html(page, "paper",
                                "This sweep and the paper's laws, both axes logarithmic. Points and solid lines: here; "
                                "dashed: the paper, faint beyond the sizes it has."));
}

}  // namespace varscale::analysis
