#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "kinds.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

// All of a fit's page but what frames a document. A folder of several fits shows the sweep's pictures itself.
std::string body(const Results& results, const std::filesystem::path& out) {
  const Page page = page_of(results, out);
  std::string text;
  text += summary_section(page);
  text += law_section(page);
  text += prediction_section(page);
  text += curves_section(page);
  text += scales_section(page);
  text += other_laws_section(page);
  text += frontier_section(page);
  text += scores_section(page);
  text += learning_rate_section(page);
  text += residuals_section(page);
  text += sensitivity_html(results.sensitivity);
  text += paper_section(page);
  if (results.folder.empty()) text += pictures_html(page.sweep.folder);
  text += samples_by_depth_section(page);
  text += runs_section(page);
  text += limits_section(page);
  text += definitions_section(page);
  text += origin_section(page);
  text += files_section(page);
  return text;
}

}  // namespace

std::string report_html(const Results& results, const std::filesystem::path& out) {
  return document_begin(results.sweep.name) + body(results, out) + document_end();
}

std::string kinds_html(const SweepKinds& sweep, const std::vector<Results>& fits, const std::filesystem::path& out) {
  std::string text = document_begin(sweep.name);
  text += fmt::format(
      "<header><p class=\"kicker\">VARscale · sweep {}</p>\n<h1>{} kinds of tokens, {} fit{} apart</h1></header>\n",
      escape(sweep.name), sweep.kinds.size(), fits.size(), fits.size() == 1 ? "" : "s");
  text += "<h2>Why they are apart</h2>\n<ul>\n";
  for (const std::string& reason : why_apart(sweep.kinds)) text += fmt::format("<li>{}</li>\n", escape(reason));
  text +=
      "</ul>\n<div class=\"scroll\"><table><thead><tr><th class=\"text\">tokens</th><th class=\"text\">what they "
      "are</th><th>runs</th><th class=\"text\">law</th></tr></thead><tbody>\n";
  for (const SweepRuns& kind : sweep.kinds) {
    const auto fit = std::ranges::find(fits, &kind, [](const Results& each) { return &each.sweep; });
    text += fmt::format(
        "<tr><td class=\"text\">{}</td><td class=\"text wrap\">{}</td><td>{}</td><td class=\"text "
        "wrap\">{}</td></tr>\n",
        escape(kind.kind), escape(kind_words(kind)), kind.runs.size(),
        fit == fits.end() ? "not fitted: " + escape(*why_not_fitted(kind)) : typeset(fit->sentence));
  }
  text += "</tbody></table></div>\n";
  for (const LeftOut& run : sweep.left_out)
    text += fmt::format("<p>Left out: <code>{}</code>, {}.</p>\n", escape(run.id), escape(run.reason));
  text += pictures_html(sweep.folder);
  for (const Results& fit : fits)
    text += fmt::format("<section>\n<h1>Tokens {}</h1>\n<p>{}.</p>\n", escape(fit.sweep.kind),
                        escape(kind_words(fit.sweep))) +
            body(fit, out / fit.folder) + "</section>\n";
  return text + document_end();
}

}  // namespace varscale::analysis
