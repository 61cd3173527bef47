#include "published.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "base/file.hpp"
#include "report_text.hpp"
#include "six_digits.hpp"

namespace varscale::analysis {
namespace {

using nlohmann::ordered_json;

constexpr PublishedSize kN = PublishedSize::kParameters, kC = PublishedSize::kCompute;

// arXiv 2404.02905, equations 11 to 16; the compute laws by the labels of figure 6, then of the text.
constexpr PublishedLaw kLaws[] = {
    {kN, Metric::kLossMean, 2.5, 0.20, 2.5, 0.20},
    {kN, Metric::kLossTail, 2.0, 0.23, 2.0, 0.23},
    {kN, Metric::kErrMean, 6.5e2, 0.010, 6.5e2, 0.010},
    {kN, Metric::kErrTail, 4.9e2, 0.016, 4.9e2, 0.016},
    {kC, Metric::kLossMean, 2.2e-5, 0.13, 1.5e-5, 0.16},
    {kC, Metric::kLossTail, 1.5e-5, 0.16, 2.2e-5, 0.13},
    {kC, Metric::kErrMean, 8.1e-2, 0.0067, 4.4e-2, 0.011},
    {kC, Metric::kErrTail, 4.4e-2, 0.011, 8.1e-2, 0.0067},
};

constexpr int kPlaces = 60;

double unit(PublishedSize size) { return size == kN ? kBillion : kPetaFlop; }
const char* word(PublishedSize size) { return size == kN ? "N" : "C"; }

const LawFit* fit_of(const Analysis& analysis, PublishedSize size, Metric metric, const std::string& e_rule) {
  return size == kN ? analysis.find("L(N)", "total", metric, e_rule) : analysis.find("L(C)", "flops", metric, e_rule);
}

std::vector<std::string> rules(Metric metric) {
  return is_loss(metric) ? std::vector<std::string>{"free", "given"} : std::vector<std::string>{"0"};
}

}  // namespace

double PublishedLaw::at(double x) const { return std::pow(beta * x, -alpha); }

const PublishedLaw& published(PublishedSize size, Metric metric) {
  const auto found = std::ranges::find_if(kLaws, [&](const PublishedLaw& law) { return law.size == size && law.metric == metric; });
  VARSCALE_CHECK(found != std::end(kLaws), "no published law of {}", name(metric));
  return *found;
}

PublishedRange published_range(PublishedSize size) {
  if (size == kN) return {0.0185, 2.01};
  // Where the law of compute has the loss of the smallest and the largest model.
  const PublishedLaw &of_n = published(kN, Metric::kLossMean), &of_c = published(kC, Metric::kLossMean);
  const auto compute = [&](double n) { return std::pow(of_n.at(n), -1 / of_c.alpha) / of_c.beta; };
  return {compute(0.0185), compute(2.01)};
}

std::vector<InPaperForm> in_paper_form(const Analysis& analysis) {
  std::vector<InPaperForm> all;
  for (const PublishedLaw& law : kLaws) {
    for (const std::string& rule : rules(law.metric)) {
      const LawFit* own = fit_of(analysis, law.size, law.metric, rule);
      if (own == nullptr || !own->fit.bound.empty()) continue;  // beta = B^(-1 / alpha) means nothing there
      InPaperForm form{law.size, law.metric, rule, own->fit.law.E, 0, own->fit.law.alpha, std::nullopt};
      form.beta = std::pow(own->fit.law.B, -1 / form.alpha) * unit(law.size);
      if (!std::isfinite(form.beta) || form.beta == 0) continue;
      if (own->bootstrap) form.alpha_interval = own->bootstrap->alpha();
      all.push_back(std::move(form));
    }
  }
  return all;
}

void write_paper_csv(const Analysis& analysis, const std::filesystem::path& out) {
  std::string text = "size,metric,kind,E_rule,run,depth,x,y,published_range\n";
  const auto line = [&](const PublishedLaw& law, const char* kind, const std::string& rule, double x, double y, bool inside) {
    text += fmt::format("{},{},{},{},,,{:.10g},{:.10g},{}\n", word(law.size), name(law.metric), kind, rule, x, y, inside ? 1 : 0);
  };
  for (const PublishedLaw& law : kLaws) {
    const auto [published_low, published_high] = published_range(law.size);
    double low = published_low, high = published_high;
    for (const std::string& rule : rules(law.metric)) {
      const LawFit* own = fit_of(analysis, law.size, law.metric, rule);
      if (own == nullptr || !(own->fit.law.B > 0)) continue;
      for (size_t i = 0; i < own->points.size(); ++i) {
        const double x = own->points[i].x / unit(law.size), above_e = own->points[i].y - own->fit.law.E;
        low = std::min(low, x), high = std::max(high, x);
        if (above_e > 0)
          text += fmt::format("{},{},point,{},{},{},{:.10g},{:.10g},\n", word(law.size), name(law.metric), rule, own->runs[i]->id,
                              own->runs[i]->depth, x, above_e);
      }
      const std::vector<double> sizes = fit::distinct_sizes(own->points);
      for (const double x : {sizes.front(), sizes.back()})  // a straight line where both axes are logarithmic
        line(law, "law", rule, x / unit(law.size), own->fit.law.at(x) - own->fit.law.E, false);
    }
    for (int k = 0; k < kPlaces; ++k) {
      const double x = low * std::pow(high / low, static_cast<double>(k) / (kPlaces - 1));
      const bool inside = x >= published_low && x <= published_high;
      line(law, "paper", "", x, law.at(x), inside);
    }
  }
  base::write_file_atomic(out / "paper.csv", text);
}

ordered_json paper_json(const Analysis& analysis) {
  ordered_json all = ordered_json::array();
  for (const InPaperForm& own : in_paper_form(analysis)) {
    const PublishedLaw& law = published(own.size, own.metric);
    ordered_json json = {{"x", own.size == kN ? "N, billions" : "C, PFLOP"},
                         {"metric", name(own.metric)},
                         {"E_rule", own.e_rule},
                         {"E", six(own.E)},
                         {"beta", six(own.beta)},
                         {"alpha", six(own.alpha)}};
    if (own.alpha_interval) json["alpha_low"] = six(own.alpha_interval->low), json["alpha_high"] = six(own.alpha_interval->high);
    json["paper"] = {{"beta", law.beta}, {"alpha", law.alpha}};
    if (law.beta != law.printed_beta) json["paper_as_printed"] = {{"beta", law.printed_beta}, {"alpha", law.printed_alpha}};
    all.push_back(std::move(json));
  }
  return all;
}

std::string paper_html(const Analysis& analysis, const std::string& figure) {
  const std::vector<InPaperForm> forms = in_paper_form(analysis);
  if (forms.empty()) return {};
  std::string text =
      "<h2>Beside the paper's laws</h2>\n<p>The laws of arXiv 2404.02905 have the form (βX)<sup>−α</sup>, with X in billions of "
      "parameters or in PFLOP, of the loss above E (the authors': 4.5 for the last scale, 5.0 for all tokens) and of the error rate. "
      "They are of another tokenizer and other images: exponents compare with care, coefficients do not.</p>\n";
  text += figure;
  text +=
      "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th class=\"text\">value</th><th class=\"text\">against</th><th>E here</th><th>β here</th>"
      "<th>α here</th><th>β paper</th><th>α paper</th></tr></thead><tbody>\n";
  bool swapped = false;
  for (const InPaperForm& own : forms) {
    const PublishedLaw& law = published(own.size, own.metric);
    swapped = swapped || law.beta != law.printed_beta;
    text += fmt::format(
        "<tr><td class=\"text\">{}</td><td class=\"text\">{}</td><td>{}</td>{}<td>{}</td>{}<td>{}</td></tr>\n",
        escape(words(own.metric)), own.size == kN ? "N" : "C",
        own.e_rule == "free" ? digits(own.E) : fmt::format("{} <span class=\"range\">given</span>", digits(own.E, 3)),
        cell_by(own.beta, coefficient(own.beta)), with_range(own.alpha, own.alpha_interval, 3), cell_by(law.beta, coefficient(law.beta)),
        law.alpha == law.printed_alpha
            ? digits(law.alpha, 2)
            : fmt::format("{} <span class=\"range\">printed {}</span>", digits(law.alpha, 2), digits(law.printed_alpha, 2)));
  }
  text += "</tbody></table></div>\n";
  if (swapped)
    text +=
        "<p>Against compute the paper's text and the legend of its figure 6 have the two kinds of tokens the other way round. The "
        "table and the drawn line are as the legend has them, which agree with the laws against N.</p>\n";
  return text;
}

}  // namespace varscale::analysis
