#include <fmt/format.h>

#include <algorithm>

#include "base/progress.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

// "d1–d5", or "12 depths from d8 to d30".
std::string span_of_depths(const Page& page) {
  const std::vector<int64_t> all = depths(page.main);
  if (all.size() < 6) return depth_words(all);
  return fmt::format("{} depths from d{} to d{}", all.size(), all.front(), all.back());
}

// "14,000", or "3,500 to 28,000" where the law was asked for across different data.
std::string images_words(const Page& page) {
  const auto& across = page.analysis.across;
  return across ? fmt::format("{} to {}", grouped(across->least->budget_images), grouped(across->most->budget_images))
                : grouped(page.main.front()->budget_images);
}

std::string law_sentence(const Page& page) {
  const auto [least, most] = std::ranges::minmax(page.main, {}, &Run::params_total);
  const std::string sizes = fmt::format("Over {}, {} to {} parameters at {} images each, ", span_of_depths(page),
                                        base::format_count(least->params_total), base::format_count(most->params_total),
                                        images_words(page));
  const fit::PowerLaw& law = page.law->fit.law;
  if (law.B == 0) return sizes + "the validation loss does not fall with the number of parameters N.";
  const auto& boot = page.law->bootstrap;
  return sizes + fmt::format("the validation loss falls as {} nats per token ({}).", law_html(law, "L", "N"),
                             boot ? fmt::format("{} intervals: exponent {}, irreducible loss {}", percent(boot->level),
                                                range(boot->alpha()), range(boot->E(), 4))
                                  : "no interval: one seed a size");
}

std::string gain_sentence(const Page& page) {
  const std::optional<Gain> gain = headline_gain(page);
  if (!gain || (!gain->registered && depths(page.main).size() < kSizesForAClaim))
    return fmt::format("{} sizes are too few to test it by a prediction.", page.law->fit.distinct_sizes);
  std::string text = fmt::format("From the smaller depths alone {} that d{} gains {} nats over d{}{}",
                                 gain->registered ? "it was predicted, in writing," : "it predicts", gain->depth,
                                 digits(gain->predicted, 3), gain->previous_depth,
                                 gain->interval ? fmt::format(" ({})", range(*gain->interval)) : "");
  if (!gain->verdict) return text + "; that run is not finished.";
  const std::string seen = digits(gain->verdict->observed_gain, 3);
  if (!gain->verdict->covers) return text + fmt::format("; it gained {}.", seen);
  return text + fmt::format("; it gained {}, {} the interval.", seen, *gain->verdict->covers ? "inside" : "outside");
}

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
  html.add("<p class=\"lead\">{} {}</p></header>", law_sentence(page), gain_sentence(page));
  tiles(html, page);
  const double passes = std::ranges::max(page.main, {}, &Run::passes)->passes;
  const bool tuned = page.results.rates.state == LearningRates::State::kTuned;
  const bool one_lr =
      std::all_of(page.main.begin(), page.main.end(), [&](const Run* run) { return run->lr == first.lr; });
  html.add(
      "<p>Visual autoregressive models ({}) were each trained on {} images of {} tokens ({} over the same "
      "data), and scored on the same {} validation images. Along the law {}.</p>",
      span_of_depths(page), images_words(page), first.tokens_per_image,
      passes > 1 ? digits(passes, 2) + " passes" : std::string("at most one pass"),
      grouped(first.val_images),
      page.analysis.across ? "size and images differ"
      : tuned ? "the size differs, and at each size the peak learning rate is the best of several"
      : one_lr ? "only the size differs"
               : "the size differs, and with it the peak learning rate, as the table of runs shows");
  return std::move(html.text);
}

}  // namespace varscale::analysis
