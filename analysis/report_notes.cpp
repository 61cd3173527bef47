#include <fmt/format.h>

#include <map>
#include <set>

#include "kinds.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {

std::string limits_section(const Page& page) {
  Html html;
  std::map<int64_t, std::set<std::pair<int64_t, int64_t>>> seeds;
  for (const Run* run : page.main) seeds[run->depth].insert({run->seed, run->data_seed});
  std::vector<int64_t> single;
  std::set<int64_t> data_seeds;
  for (const auto& [depth, used] : seeds)
    if (used.size() == 1) single.push_back(depth);
  for (const Run* run : page.main) data_seeds.insert(run->data_seed);
  html.add("<h2>Limits</h2>\n<ul>");
  if (page.analysis.across)
    html.add("<li>L(N) was fitted {}.</li>", escape(page.analysis.across->sentence()));
  else
    html.add(
        "<li>L(N) at fixed data says what size buys at this budget of images. It says nothing about how to divide compute between size and "
        "data{}</li>",
        page.results.frontier.fitted() ? "; the compute-optimal frontier does."
                                       : ": no point here is compute-optimal. " + escape(page.results.frontier.not_fitted));
  html.add(
      "<li>E is where the fit extrapolates to at this budget; it holds what more data would still remove, and is not "
      "the entropy of the tokens. The exponent stands and falls with it: the rows with E given show by how much.</li>");
  html.add("<li>{} distinct sizes.{}</li>", page.law->fit.distinct_sizes,
           page.results.rates.state == LearningRates::State::kTuned ? ""
           : single.empty()                                         ? " Every depth has repeated seeds."
                            : fmt::format(" One seed only at {}: the noise there is taken from the other depths.",
                                          depth_words(single)));
  if (data_seeds.size() == 1)
    html.add(
        "<li>All runs share the order of the images{}. The noise of a run is that of its initial weights and dropped "
        "labels.</li>",
        page.main.front()->passes > 1 ? "" : ", each seen at most once");
  html.add(
      "<li>One tokenizer and one validation set of {} images: their own sampling errors are shared by all runs and are "
      "not in the intervals.</li>",
      grouped(page.main.front()->val_images));
  for (const std::string& note : page.analysis.notes) html.add("<li>{}</li>", escape(note));
  html.add("</ul>");
  return std::move(html.text);
}

std::string definitions_section(const Page& page) {
  Html html;
  html.add("<h2>Definitions</h2>\n<dl>");
  html.add(
      "<dt>L, loss</dt><dd>Cross-entropy on the validation set after the last step, natural logarithm, nats per token: "
      "the mean over all {} tokens of an image, or over the last scale's alone. Centre crop, no label drop, no drop "
      "path.</dd>",
      page.main.front()->tokens_per_image);
  html.add(
      "<dt>error rate</dt><dd>Share of tokens whose most probable code is not the true one (1 − top-1 accuracy).</dd>");
  html.add("<dt>N</dt><dd>total: {}. blocks: {}. paper: {}.</dd>", escape(definition(NRule::kTotal)),
           escape(definition(NRule::kBlocks)), escape(definition(NRule::kPaper)));
  html.add("<dt>C</dt><dd>Training FLOPs of the run by the formula <code>{}</code>.</dd>",
           escape(page.main.front()->flop_formula));
  html.add("<dt>tokens</dt><dd>{}: {}.</dd>", escape(page.sweep.kind), escape(kind_words(page.sweep)));
  html.add("<dt>D</dt><dd>Training images seen, repeats counted.</dd>");
  html.add(
      "<dt>E, B, α</dt><dd>Constants of L = E + B x<sup>−α</sup>. E free: searched with the others. E given: stated, "
      "with the others searched{}.</dd>",
      page.results.options.e_source.empty() ? "" : " (" + escape(page.results.options.e_source) + ")");
  html.add(
      "<dt>fit</dt><dd>Least squares of the loss, one point a run: exponent by a full scan and bisection, E and B by "
      "non-negative least squares inside it.</dd>");
  html.add(
      "<dt>intervals</dt><dd>{} percentiles of {} refits. Below {} sizes each refit draws the runs anew around the law "
      "with the noise pooled over repeated seeds, whose own uncertainty is drawn too; from {} sizes on, runs are "
      "resampled.</dd>",
      percent(page.results.options.bootstrap.level), page.results.options.bootstrap.resamples, fit::kFewSizes,
      fit::kFewSizes);
  html.add("</dl>");
  return std::move(html.text);
}

std::string files_section(const Page& page) {
  Html html;
  html.add(
      "<footer>{}: <code>fit.json</code> (six digits), <code>points.csv</code>, <code>fits.csv</code>, and each figure "
      "as PNG, PDF, SVG and CSV.</footer>",
      page.results.folder.empty() ? "Beside this page"
                                  : fmt::format("In <code>{}</code>", escape(page.results.folder)));
  return std::move(html.text);
}

}  // namespace varscale::analysis
