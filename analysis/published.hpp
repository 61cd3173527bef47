// The laws of the VAR paper (arXiv 2404.02905, section 5 and figures 5 and 6) in its units, beside a sweep's own.
//
//   const PublishedLaw& law = published(PublishedSize::kParameters, Metric::kLossTail);
//   law.at(0.6)                                       // reducible loss of a model of 0.6 billion parameters
//   write_paper_csv(analysis, out);                   // out/paper.csv, which the figure `paper` is drawn from
//
// y = (beta X)^-alpha with X in billions of parameters, all counted, or in PFLOP (1e15 operations); y is the loss above E in
// nats a token, where E is the authors' 4.5 (last scale) and 5.0 (all tokens), or the error rate as a fraction, without E.
// The equations against compute in the text have `last` and `avg` the other way round than the legend of figure 6. With the
// legend's, the compute that goes with a size agrees across all four laws; with the text's it is off by up to 1e4. The legend's
// are taken, and both are in table and JSON. Compute at a size is 5 to 7 times below three forward passes over all images, by whatever
// formula the paper counts: against compute, exponents compare and coefficients do not.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "laws.hpp"

namespace varscale::analysis {

enum class PublishedSize { kParameters, kCompute };

struct PublishedLaw {
  PublishedSize size;
  Metric metric;
  double beta = 0, alpha = 0;                    // as the figures label them
  double printed_beta = 0, printed_alpha = 0;    // as the text does
  double at(double x) const;                     // x in billions or PFLOP
};

inline constexpr double kBillion = 1e9, kPetaFlop = 1e15;
// The range of the published models: 18.5 million to 2.0 billion parameters, and the compute that their laws give them.
struct PublishedRange {
  double low, high;
};
PublishedRange published_range(PublishedSize size);

const PublishedLaw& published(PublishedSize size, Metric metric);

// One law of the sweep in the paper's form: B x^-alpha = (beta X)^-alpha.
struct InPaperForm {
  PublishedSize size;
  Metric metric;
  std::string e_rule;
  double E = 0, beta = 0, alpha = 0;
  std::optional<fit::Interval> alpha_interval;
};
std::vector<InPaperForm> in_paper_form(const Analysis& analysis);

void write_paper_csv(const Analysis& analysis, const std::filesystem::path& out);
nlohmann::ordered_json paper_json(const Analysis& analysis);
// A part of the report behind `figure`.
std::string paper_html(const Analysis& analysis, const std::string& figure);

}  // namespace varscale::analysis
