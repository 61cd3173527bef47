#include <fmt/format.h>

#include <algorithm>

#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

void tile(Html& html, const std::string& what, const std::string& value, const std::string& below) {
  html.add(
      "<div class=\"tile\"><div class=\"what\">{}</div><div class=\"value\">{}</div><div "
      "class=\"range\">{}</div></div>",
      what, value, below);
}

void tiles(Html& html, const Page& page) {
  const std::string level =
      percent(page.law->bootstrap ? page.law->bootstrap->level : page.results.options.bootstrap.level);
  const std::string none = "no interval: one seed a size";
  html.add("<div class=\"tiles\">");
  tile(html, "exponent α", digits(page.law->fit.law.alpha, 3),
       page.law->bootstrap ? fmt::format("{}: {}", level, range(page.law->bootstrap->alpha())) : none);
  tile(html, "irreducible loss E, nats", digits(page.law->fit.law.E),
       page.law->bootstrap ? fmt::format("{}: {}", level, range(page.law->bootstrap->E(), 4)) : none);
  if (const auto gain = headline_gain(page)) {
    tile(html, fmt::format("gain of d{} over d{}, nats", gain->depth, gain->previous_depth),
         gain->verdict ? digits(gain->verdict->observed_gain, 3) : std::string("not seen yet"),
         fmt::format("predicted {}{}", digits(gain->predicted, 3),
                     gain->interval ? fmt::format(" [{}]", range(*gain->interval)) : ""));
  }
  if (page.law->bootstrap) {
    const fit::Noise& noise = page.law->bootstrap->noise;
    tile(html, "noise of one run, nats", digits(noise.sd, 2),
         fmt::format("from {}, {} degrees of freedom", escape(noise.source), noise.degrees_of_freedom));
  }
  html.add("</div>");
}

}  // namespace

std::string summary_section(const Page& page) {
  Html html;
  const Run& first = *page.main.front();
  html.add("<header><p class=\"kicker\">VARscale · sweep {} · {}{} finished runs</p>", escape(page.sweep.name),
           page.results.folder.empty() ? "" : fmt::format("tokens {} · ", escape(page.sweep.kind)),
           page.sweep.runs.size());
  if (page.law->fit.law.B > 0)
    html.add("<h1>{}</h1>", law_html(page.law->fit.law, "L", "N"));
  else
    html.add("<h1>The validation loss does not fall with size in this sweep</h1>");
  html.add("<p class=\"lead\">{}</p></header>", typeset(page.results.sentence));
  tiles(html, page);
  const bool tuned = page.results.rates.state == LearningRates::State::kTuned;
  const bool one_lr =
      std::all_of(page.main.begin(), page.main.end(), [&](const Run* run) { return run->lr == first.lr; });
  html.add(
      "<p>Visual autoregressive models of depth {} were each trained on {} images of {} tokens ({} over the same "
      "data), and scored on the same {} validation images. Along the law {}.</p>",
      escape(depth_words(depths(page.main))), first.budget_images, first.tokens_per_image,
      first.passes > 1 ? digits(first.passes, 2) + " passes" : std::string("at most one pass"), first.val_images,
      tuned    ? "the size differs, and at each size the peak learning rate is the best of several"
      : one_lr ? "only the size differs"
               : "the size differs, and with it the peak learning rate, as the table of runs shows");
  return std::move(html.text);
}

}  // namespace varscale::analysis
