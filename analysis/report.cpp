#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/progress.hpp"
#include "kinds.hpp"
#include "published.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

std::string document_begin(const std::string& title) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{}: scaling law</title>\n<style>{}</style>\n</head>\n<body>\n",
      escape(title), kReportStyle);
}

constexpr const char* kDocumentEnd = "</body>\n</html>\n";

// A picture of the sweep with its caption; empty where there is none.
std::string picture_html(const std::filesystem::path& folder, const std::string& name, const std::string& title,
                         const std::string& otherwise) {
  const std::filesystem::path path = folder / (name + ".png"), words = folder / (name + ".json");
  if (!std::filesystem::exists(path)) return {};
  std::string caption = otherwise;
  if (std::filesystem::exists(words)) {
    try {
      caption = base::parse_json(base::read_file(words)).value("caption", otherwise);
    } catch (const nlohmann::ordered_json::exception& error) {
      throw base::UserError("{}: expected an object with a text \"caption\" ({})", words.string(), error.what());
    }
  }
  return fmt::format(
      "<h2>{}</h2>\n<figure><img class=\"pixels\" alt=\"{}\" src=\"data:image/png;base64,{}\">\n"
      "<figcaption>{}</figcaption></figure>\n",
      title, name, base64(base::read_file(path)), escape(caption));
}

std::string pictures_html(const std::filesystem::path& folder) {
  return picture_html(folder, "samples", "Samples", "Samples of the sweep's models, one row or column a class.") +
         picture_html(folder, "reconstructions", "Tokenizer",
                      "Images and what the tokenizer makes of them: the ceiling of every sample above.");
}

class Page {
 public:
  Page(const Results& results, const std::filesystem::path& out)
      : r_(results),
        sweep_(results.sweep),
        analysis_(results.analysis),
        out_(out),
        main_(sweep_.main_runs()) {
    law_ = analysis_.find("L(N)", "total", Metric::kLossMean, "free");
    VARSCALE_CHECK(law_ != nullptr, "a report without its headline fit");
  }

  // All but what frames a document. A folder of several fits shows the sweep's pictures itself.
  std::string body() {
    head();
    law();
    prediction();
    curves();
    other_laws();
    frontier();
    scores();
    learning_rate();
    residuals();
    text_ += sensitivity_html(r_.sensitivity);
    paper();
    if (r_.folder.empty()) text_ += pictures_html(sweep_.folder);
    runs();
    limits();
    definitions();
    files();
    return std::move(text_);
  }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    text_ += fmt::format(format, std::forward<Args>(args)...);
    text_ += '\n';
  }

  // An embedded drawing of this fit; false where it was not drawn.
  bool figure(const std::string& name, const std::string& caption) {
    const std::filesystem::path path = out_ / (name + ".svg");
    if (!std::filesystem::exists(path)) return false;
    add("<figure><img class=\"plot\" alt=\"{}\" src=\"data:image/svg+xml;base64,{}\">",
        escape(name), base64(base::read_file(path)));
    add("<figcaption>{} Data: <code>{}{}.csv</code></figcaption></figure>", caption,
        r_.folder.empty() ? "" : r_.folder + "/", name);
    return true;
  }

  void head() {
    const Run& first = *main_.front();
    add("<header><p class=\"kicker\">VARscale · sweep {} · {}{} finished runs</p>",
        escape(sweep_.name), r_.folder.empty() ? "" : fmt::format("tokens {} · ", escape(sweep_.kind)),
        sweep_.runs.size());
    if (law_->fit.law.B > 0)
      add("<h1>{}</h1>", law_html(law_->fit.law, "L", "N"));
    else
      add("<h1>The validation loss does not fall with size in this sweep</h1>");
    add("<p class=\"lead\">{}</p></header>", typeset(r_.sentence));
    tiles();
    const bool tuned = r_.rates.state == LearningRates::State::kTuned;
    const double passes = std::ranges::max(main_, {}, &Run::passes)->passes;
    const bool one_lr = std::all_of(main_.begin(), main_.end(),
                                    [&](const Run* run) { return run->lr == first.lr; });
    add("<p>Visual autoregressive models of depth {} were each trained on {} images of {} tokens "
        "({} over the same data), "
        "and scored on the same {} validation images. Along the law {}.</p>",
        escape(depth_words(depths(main_))),
        analysis_.across ? fmt::format("{} to {}", analysis_.across->least->budget_images,
                                       analysis_.across->most->budget_images)
                         : std::to_string(first.budget_images),
        first.tokens_per_image, passes > 1 ? digits(passes, 2) + " passes" : std::string("at most one pass"),
        first.val_images,
        analysis_.across ? "size and images differ"
        : tuned    ? "the size differs, and at each size the peak learning rate is the best of several"
        : one_lr ? "only the size differs"
                 : "the size differs, and with it the peak learning rate, as the table of runs shows");
  }

  void tile(const std::string& what, const std::string& value, const std::string& below) {
    add("<div class=\"tile\"><div class=\"what\">{}</div><div class=\"value\">{}</div><div "
        "class=\"range\">{}</div></div>",
        what, value, below);
  }

  void tiles() {
    const std::string level =
        percent(law_->bootstrap ? law_->bootstrap->level : r_.options.bootstrap.level);
    const std::string none = "no interval: one seed a size";
    add("<div class=\"tiles\">");
    tile("exponent α", digits(law_->fit.law.alpha, 3),
         law_->bootstrap ? fmt::format("{}: {}", level, range(law_->bootstrap->alpha())) : none);
    tile("irreducible loss E, nats", digits(law_->fit.law.E),
         law_->bootstrap ? fmt::format("{}: {}", level, range(law_->bootstrap->E(), 4)) : none);
    if (const auto gain = headline_gain()) {
      tile(fmt::format("gain of d{} over d{}, nats", gain->depth, gain->previous_depth),
           gain->verdict ? digits(gain->verdict->observed_gain, 3) : std::string("not seen yet"),
           fmt::format("predicted {}{}", digits(gain->predicted, 3),
                       gain->interval ? fmt::format(" [{}]", range(*gain->interval)) : ""));
    }
    if (law_->bootstrap) {
      const fit::Noise& noise = law_->bootstrap->noise;
      tile("noise of one run, nats", digits(noise.sd, 2),
           fmt::format("from {}, {} degrees of freedom", escape(noise.source),
                       noise.degrees_of_freedom));
    }
    add("</div>");
  }

  void law_row(const LawFit& law, bool headline, bool with_note) {
    const auto& boot = law.bootstrap;
    using Maybe = std::optional<fit::Interval>;
    const bool free = law.e_rule == "free";
    std::string e =
        free ? with_range(law.fit.law.E, boot ? Maybe(boot->E()) : Maybe(), 4)
             : fmt::format("{} <span class=\"range\">given</span>", digits(law.fit.law.E, 3));
    std::string x = law.law == "L(N)"   ? "N " + law.x_rule
                    : law.law == "L(C)" ? "C"
                                        : "D, " + law.x_rule.substr(8);
    add("<tr{}><td class=\"text\">{}</td><td "
        "class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "{}</tr>",
        headline ? " class=\"headline\"" : "", escape(words(law.metric)), escape(x), e,
        coefficient(law.fit.law.B),
        with_range(law.fit.law.alpha, boot ? Maybe(boot->alpha()) : Maybe(), 3),
        digits(law.fit.rmse, 2),
        with_note ? fmt::format("<td class=\"text wrap\">{}</td>", escape(law.caveat)) : "");
  }

  void law_table(const std::string& law, bool errors) {
    std::vector<const LawFit*> rows;
    for (const LawFit& fit : analysis_.fits)
      if (fit.law == law && (is_loss(fit.metric) || (errors && fit.x_rule == "total")))
        rows.push_back(&fit);
    const bool notes = std::any_of(rows.begin(), rows.end(),
                                   [](const LawFit* fit) { return !fit->caveat.empty(); });
    add("<div class=\"scroll\"><table><thead><tr><th class=\"text\">value</th><th "
        "class=\"text\">against</th><th>E</th>"
        "<th>B</th><th>α</th><th>rms residual</th>{}</tr></thead><tbody>",
        notes ? "<th class=\"text\">note</th>" : "");
    for (const LawFit* fit : rows) law_row(*fit, fit == law_, notes);
    add("</tbody></table></div>");
  }

  void law() {
    add("<h2>The law</h2>");
    figure("law_n",
           std::string("Final validation value of every run against its number of parameters; one point a run. ") +
               (analysis_.across ? "The runs saw different numbers of images."
                                 : "All runs saw the same number of images."));
    law_table("L(N)", true);
    if (law_->check) {
      const fit::HuberCheck& check = *law_->check;
      add("<p>Brackets are {} intervals by {} bootstrap over {} resamples. A second estimator, the "
          "Huber loss (δ = {}) of "
          "the log residuals from {} starts ({} of them reached the best), gives α = {} and E = {} "
          "for the first row.</p>",
          percent(r_.options.bootstrap.level),
          law_->bootstrap && law_->bootstrap->method == fit::BootstrapMethod::kByRun
              ? "a by-run"
              : "a parametric",
          r_.options.bootstrap.resamples, check.delta, check.starts, check.starts_at_best,
          digits(check.law.alpha, 3), digits(check.law.E));
    }
  }

  struct Gain {
    int64_t depth, previous_depth;
    double predicted;
    std::optional<fit::Interval> interval;
    std::optional<fit::Verdict> verdict;
    bool registered;
  };

  // The registered prediction where there is one, else the refit without the largest size.
  std::optional<Gain> headline_gain() const {
    if (r_.comparison) {
      const Registration& reg = r_.comparison->registration;
      const RegisteredMetric& m = reg.metrics.at("loss_mean");
      const auto verdict = r_.comparison->verdicts.find("loss_mean");
      Gain gain{reg.depth, reg.previous_depth, m.gain, m.gain_interval, std::nullopt, true};
      if (verdict != r_.comparison->verdicts.end()) gain.verdict = verdict->second;
      return gain;
    }
    if (const Held* held = analysis_.find_held("total", Metric::kLossMean, "free"))
      return Gain{held->depth,
                  held->previous_depth,
                  held->result.prediction.gain,
                  held->result.prediction.gain_interval,
                  held->result.verdict,
                  false};
    return std::nullopt;
  }

  static std::string verdict_words(const fit::Verdict& v) {
    if (!v.covers)
      return "Without repeated seeds or spare sizes there is no interval to judge it by.";
    if (!*v.covers)
      return "The interval does not hold the gain that was seen: the law did not carry to this "
             "size.";
    return *v.excludes_zero
               ? "The interval holds the gain that was seen, and lies above zero: the law "
                 "predicted an "
                 "improvement, and the right one."
               : "The interval holds the gain that was seen, but also zero: it claims little.";
  }

  void prediction() {
    const auto gain = headline_gain();
    add("<h2>Does it predict a larger model?</h2>");
    if (!gain) {
      for (const std::string& note : analysis_.notes) add("<p>{}</p>", escape(note));
      return;
    }
    add("<p>The law was fitted again without d{}, and asked for it. That the loss of the next "
        "model is nearly the last "
        "one's makes a small percent error no test, so what is judged is the <em>gain</em>: the "
        "loss of d{} less that of "
        "d{}.</p>",
        gain->depth, gain->previous_depth, gain->depth);
    const bool good =
        gain->verdict && gain->verdict->covers.value_or(false) && *gain->verdict->excludes_zero;
    const bool bad = gain->verdict && gain->verdict->covers && !*gain->verdict->covers;
    std::string text = fmt::format("Gain of d{} predicted <strong>{}</strong> nats", gain->depth,
                                   digits(gain->predicted, 3));
    if (gain->interval)
      text += fmt::format(", {} interval {}", percent(r_.options.bootstrap.level),
                          range(*gain->interval));
    if (gain->verdict)
      text += fmt::format("; seen <strong>{}</strong>. {}", digits(gain->verdict->observed_gain, 3),
                          verdict_words(*gain->verdict));
    else
      text += "; not seen yet.";
    add("<div class=\"verdict{}\">{}{}</div>",
        good  ? " good"
        : bad ? " bad"
              : "",
        text, registration_words());
    figure("held_out",
           "The fit on the smaller depths alone, its prediction with the uncertainty of the "
           "constants and of the "
           "runs, and what was seen.");
    add("<div class=\"scroll\"><table><thead><tr><th class=\"text\">value</th><th "
        "class=\"text\">against</th>"
        "<th class=\"text\">E</th><th>depth</th><th>predicted</th><th>seen</th><th>gain "
        "predicted</th><th>gain seen</th>"
        "<th class=\"text\">covered</th></tr></thead><tbody>");
    for (const Held& held : analysis_.held_out) {
      if (held.x_rule != "total" && held.metric != Metric::kLossMean) continue;
      const fit::Prediction& p = held.result.prediction;
      const fit::Verdict& v = held.result.verdict;
      add("<tr{}><td class=\"text\">{}</td><td class=\"text\">N {}</td><td "
          "class=\"text\">{}</td><td>d{}</td><td>{}</td>"
          "<td>{}</td><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>",
          held.x_rule == "total" && held.e_rule == "free" && held.metric == Metric::kLossMean
              ? " class=\"headline\""
              : "",
          escape(words(held.metric)), held.x_rule,
          held.e_rule == "free" ? "free" : digits(p.fit.law.E, 3), held.depth, digits(p.y, 5),
          digits(v.observed_y, 5), with_range(p.gain, p.gain_interval, 3),
          digits(v.observed_gain, 3),
          !v.covers   ? "–"
          : *v.covers ? "yes"
                      : "no");
    }
    add("</tbody></table></div>");
  }

  std::string registration_words() const {
    if (!r_.comparison) return {};
    const Registration& reg = r_.comparison->registration;
    return fmt::format(
        " The prediction was written down at {} {}{}.", escape(reg.written),
        reg.deepest_had_rows ? "from the smaller depths' rows alone; the rows of the deepest run "
                               "existed and were not opened"
                             : "before the deepest run had any rows",
        r_.comparison->inputs_unchanged ? "" : "; the smaller runs have changed since then");
  }

  void curves() {
    add("<h2>Every run</h2>");
    figure("curves",
           "Validation loss while training. The curves end with the learning rate's decay.");
  }

  void other_laws() {
    add("<h2>Against compute</h2>");
    add("<p>The same final losses against training FLOPs{}.</p>",
        analysis_.across ? ", of runs whose images differ, too"
                         : ". Every run ends at the same number of images, so this is L(N) on another axis, and no "
                           "compute-optimal frontier");
    figure("law_c", "Final validation loss against the training FLOPs of the whole run.");
    law_table("L(C)", false);
    const bool data = std::any_of(analysis_.fits.begin(), analysis_.fits.end(),
                                  [](const LawFit& f) { return f.law == "L(D)"; });
    if (!data) return;
    add("<h2>Against data</h2>");
    figure(
        "law_d",
        "Final validation loss of one depth at several budgets, each with its own full schedule.");
    law_table("L(D)", false);
  }

  // A drawing by itself, for a section that has it between its words and its table.
  std::string drawn(const std::string& name, const std::string& caption) {
    std::string before = std::exchange(text_, {});
    figure(name, caption);
    return std::exchange(text_, std::move(before));
  }

  void frontier() {
    const std::string caption =
        std::string("Loss and best size against compute: training curves thin, the ends of schedules as points, and the "
                    "frontier by each way.") +
        (r_.frontier.isoflop ? " Below, the families of equal compute with their parabolas, and the best data." : "");
    text_ += frontier_html(r_.frontier, drawn("frontier", caption));
  }

  void scores() {
    if (r_.scores)
      text_ += scores_html(
          *r_.scores,
          drawn("scores", "Distance of each run's samples from the reference against the training FLOPs of the run."));
  }

  void paper() {
    text_ += paper_html(analysis_, drawn("paper", "This sweep and the paper's laws, both axes logarithmic. Points and solid lines: "
                                                  "here; dashed: the paper, faint beyond the sizes it has."));
  }

  void learning_rate() {
    const LearningRates& rates = r_.rates;
    add("<h2>Learning rate</h2>\n<p>{}.</p>", escape(rates.sentence()));
    if (rates.findings.empty()) return;
    const bool checked = rates.state == LearningRates::State::kChecked;
    add("<div class=\"scroll\"><table><thead><tr><th>depth</th><th>images</th><th class=\"text\">rates tried: "
        "loss</th><th>best rate</th><th>loss there</th>{}<th class=\"text\">enclosed</th></tr></thead><tbody>",
        checked ? "<th>over the rule's</th>" : "");
    for (const RateFinding& each : rates.findings) {
      std::string tried;
      for (const fit::Observation& p : each.losses)
        tried += fmt::format("{}{:.3g}: {:.4f}", tried.empty() ? "" : ", ", p.x, p.y);
      add("<tr><td>d{}</td><td>{}</td><td class=\"text\">{}</td><td>{:.3g}</td><td>{:.4f}</td>{}<td "
          "class=\"text\">{}</td></tr>",
          each.depth, each.images, tried, each.best.x, each.best.y,
          each.rule ? fmt::format("<td>{}</td>", digits(each.best.x / *each.rule, 3)) : "",
          each.best.at_edge ? "no: the edge is the best" : "yes");
    }
    add("</tbody></table></div>");
    if (!checked)
      add("<p>A point is the vertex of the parabola through the lowest loss and its neighbours in the log of the rate; "
          "its other values are read at the same rate. Intervals draw every run of every grid anew with the noise of "
          "one run and take the vertices again, where repeated seeds or spare rates tell that noise.</p>");
  }

  void residuals() {
    add("<h2>Residuals</h2>");
    figure("residuals",
           "What each form leaves over, of the loss over all tokens. A bend that all seeds share "
           "is misfit; "
           "scatter within the shaded band is the noise of single runs.");
  }

  void runs() {
    add("<h2>Table of runs</h2>");
    add("<div class=\"scroll\"><table><thead><tr><th class=\"text\">run</th><th "
        "class=\"text\">role</th><th>depth</th><th>seed</th>"
        "<th>N total</th><th>N blocks</th><th>images</th><th>passes</th><th>FLOPs</th><th>peak "
        "lr</th><th>loss</th>"
        "<th>tail loss</th><th>error</th><th>tail error</th></tr></thead><tbody>");
    for (const Run& run : sweep_.runs)
      add("<tr><td class=\"text\"><code>{}</code></td><td "
          "class=\"text\">{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
          "<td>{:.0f}</td><td>{}</td><td>{}</td><td>{:.3g}</td><td>{:.4f}</td><td>{:.4f}</"
          "td><td>{:.4f}</td><td>{:.4f}</td></tr>",
          escape(run.id), escape(run.role) + (run.interpolated ? "*" : ""), run.depth, run.seed,
          base::format_count(run.params_total), base::format_count(run.params_blocks),
          run.final.images, digits(run.passes, 2), scientific(run.final.flops), run.lr,
          run.final.loss_mean, run.final.loss_tail, run.final.err_mean, run.final.err_tail);
    add("</tbody></table></div>\n<p>tail: over the tokens of the last scale.</p>");
    if (std::ranges::any_of(sweep_.runs, &Run::interpolated))
      add("<p>*: settings between published ones, not published ones.</p>");
    for (const LeftOut& run : sweep_.left_out)
      add("<p>Left out: <code>{}</code>, {}.</p>", escape(run.id), escape(run.reason));
  }

  void limits() {
    std::map<int64_t, std::set<std::pair<int64_t, int64_t>>> seeds;
    for (const Run* run : main_) seeds[run->depth].insert({run->seed, run->data_seed});
    std::vector<int64_t> single;
    std::set<int64_t> data_seeds;
    for (const auto& [depth, used] : seeds)
      if (used.size() == 1) single.push_back(depth);
    for (const Run* run : main_) data_seeds.insert(run->data_seed);
    add("<h2>Limits</h2>\n<ul>");
    if (analysis_.across)
      add("<li>L(N) was fitted {}.</li>", escape(analysis_.across->sentence()));
    else
      add("<li>L(N) at fixed data says what size buys at this budget of images. It says nothing about how to divide "
          "compute between size and data{}</li>",
          r_.frontier.fitted() ? "; the compute-optimal frontier does."
                               : ": no point here is compute-optimal. " + escape(r_.frontier.not_fitted));
    add("<li>E is where the fit extrapolates to at this budget; it holds what more data would "
        "still remove, and is not the "
        "entropy of the tokens. The exponent stands and falls with it: the rows with E given show "
        "by how much.</li>");
    add("<li>{} distinct sizes.{}</li>", law_->fit.distinct_sizes,
        r_.rates.state == LearningRates::State::kTuned
            ? ""
        : single.empty()
            ? " Every depth has repeated seeds."
            : fmt::format(" One seed only at {}: the noise there is taken from the other depths.",
                          depth_words(single)));
    if (data_seeds.size() == 1)
      add("<li>All runs share the order of the images{}. The noise of a run is that of its initial "
          "weights and dropped "
          "labels.</li>",
          main_.front()->passes > 1 ? "" : ", each seen at most once");
    add("<li>One tokenizer and one validation set of {} images: their own sampling errors are "
        "shared by all runs and are not "
        "in the intervals.</li>",
        main_.front()->val_images);
    for (const std::string& note : analysis_.notes) add("<li>{}</li>", escape(note));
    add("</ul>");
  }

  void definitions() {
    add("<h2>Definitions</h2>\n<dl>");
    add("<dt>L, loss</dt><dd>Cross-entropy on the validation set after the last step, natural "
        "logarithm, nats per token: the "
        "mean over all {} tokens of an image, or over the last scale's alone. Centre crop, no "
        "label drop, no drop path.</dd>",
        main_.front()->tokens_per_image);
    add("<dt>error rate</dt><dd>Share of tokens whose most probable code is not the true one (1 − "
        "top-1 accuracy).</dd>");
    add("<dt>N</dt><dd>total: {}. blocks: {}. paper: {}.</dd>", escape(definition(NRule::kTotal)),
        escape(definition(NRule::kBlocks)), escape(definition(NRule::kPaper)));
    add("<dt>C</dt><dd>Training FLOPs of the run by the formula <code>{}</code>.</dd>",
        escape(main_.front()->flop_formula));
    add("<dt>tokens</dt><dd>{}: {}.</dd>", escape(sweep_.kind), escape(kind_words(sweep_)));
    add("<dt>D</dt><dd>Training images seen, repeats counted.</dd>");
    add("<dt>E, B, α</dt><dd>Constants of L = E + B x<sup>−α</sup>. E free: searched with the "
        "others. E given: stated, with the "
        "others searched{}.</dd>",
        r_.options.e_source.empty() ? "" : " (" + escape(r_.options.e_source) + ")");
    add("<dt>fit</dt><dd>Least squares of the loss, one point a run: exponent by a full scan and "
        "bisection, E and B by "
        "non-negative least squares inside it.</dd>");
    add("<dt>intervals</dt><dd>{} percentiles of {} refits. Below {} sizes each refit draws the "
        "runs anew around the law with the "
        "noise pooled over repeated seeds, whose own uncertainty is drawn too; from {} sizes on, "
        "runs are resampled.</dd>",
        percent(r_.options.bootstrap.level), r_.options.bootstrap.resamples, fit::kFewSizes,
        fit::kFewSizes);
    add("</dl>");
  }

  void files() {
    add("<footer>{}: <code>fit.json</code> (six digits), <code>points.csv</code>, "
        "<code>fits.csv</code>, and each "
        "figure as PNG, PDF, SVG and CSV. Made by <code>var_fit {}</code> with bootstrap seed {}; "
        "the same runs give the same "
        "numbers.</footer>",
        r_.folder.empty() ? "Beside this page" : fmt::format("In <code>{}</code>", escape(r_.folder)),
        escape(sweep_.folder.string()), r_.options.bootstrap.seed);
  }

  const Results& r_;
  const SweepRuns& sweep_;
  const Analysis& analysis_;
  const std::filesystem::path& out_;
  std::vector<const Run*> main_;
  const LawFit* law_ = nullptr;
  std::string text_;
};

}  // namespace

std::string report_html(const Results& results, const std::filesystem::path& out) {
  return document_begin(results.sweep.name) + Page(results, out).body() + kDocumentEnd;
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
        "<tr><td class=\"text\">{}</td><td class=\"text wrap\">{}</td><td>{}</td><td class=\"text wrap\">{}</td></tr>\n",
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
            Page(fit, out / fit.folder).body() + "</section>\n";
  return text + kDocumentEnd;
}

}  // namespace varscale::analysis
