#include "compare.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "kinds.hpp"
#include "six_digits.hpp"

namespace varscale::analysis {
namespace {

using nlohmann::ordered_json;

template <class Of>
Judged judged(double value, const std::vector<fit::Shared>& resampled, double level, Of of) {
  if (resampled.empty()) return {value, std::nullopt};
  std::vector<double> values;
  for (const fit::Shared& each : resampled) values.push_back(of(each));
  return {value, fit::central_interval(std::move(values), level)};
}

// Of second less first; the sweeps' resamples are independent, so that any pairing of them is one of the difference.
template <class Of>
Judged difference(const std::array<const LawFit*, 2>& own, Of of) {
  Judged result{of(own[1]->fit.law) - of(own[0]->fit.law), std::nullopt};
  if (!own[0]->bootstrap || !own[1]->bootstrap) return result;
  const auto &first = own[0]->bootstrap->laws, &second = own[1]->bootstrap->laws;
  std::vector<double> values;
  for (size_t b = 0; b < std::min(first.size(), second.size()); ++b) values.push_back(of(second[b]) - of(first[b]));
  result.interval = fit::central_interval(std::move(values), own[0]->bootstrap->level);
  return result;
}

LawPair pair_of(const std::string& law, const std::array<const LawFit*, 2>& own, bool same_tokens,
                const fit::BootstrapOptions& options) {
  LawPair pair;
  pair.law = law, pair.own = own;
  pair.exponent_difference = difference(own, [](const fit::PowerLaw& each) { return each.alpha; });
  fit::SharedOptions shared;
  std::optional<std::array<fit::Noise, 2>> noise;
  if (own[0]->bootstrap && own[1]->bootstrap) noise = {own[0]->bootstrap->noise, own[1]->bootstrap->noise};
  if (noise && (*noise)[0].sd > 0 && (*noise)[1].sd > 0)
    for (size_t g = 0; g < 2; ++g) shared.weight[g] = 1 / ((*noise)[g].sd * (*noise)[g].sd);
  const auto resampled = [&](const fit::Shared& fitted) {
    return noise ? fit::bootstrap_shared(own[0]->points, own[1]->points, fitted, *noise, shared, options)
                 : std::vector<fit::Shared>{};
  };
  pair.one_exponent = fit::fit_shared(own[0]->points, own[1]->points, shared);
  pair.shared_alpha = judged(pair.one_exponent.alpha, resampled(pair.one_exponent), options.level,
                             [](const fit::Shared& each) { return each.alpha; });
  if (!same_tokens) return pair;
  shared.same_e = true;
  pair.one_e = fit::fit_shared(own[0]->points, own[1]->points, shared);
  if (pair.one_e->laws[0].B > 0 && pair.one_e->laws[1].B > 0)
    pair.multiplier = judged(pair.one_e->multiplier(), resampled(*pair.one_e), options.level,
                             [](const fit::Shared& each) { return each.multiplier(); });
  const std::vector<double> first = fit::distinct_sizes(own[0]->points), second = fit::distinct_sizes(own[1]->points);
  const double low = std::max(first.front(), second.front()), high = std::min(first.back(), second.back());
  if (low < high)
    for (const double x : {low, std::sqrt(low * high), high})
      pair.differences.push_back({x, difference(own, [x](const fit::PowerLaw& each) { return each.at(x); })});
  return pair;
}

// Settings of the main runs that differ between the sweeps, and could be the reason.
std::vector<std::string> differing(const std::array<const SweepRuns*, 2>& sweeps) {
  std::vector<std::string> words;
  const auto compare = [&](const std::string& what, const auto& of) {
    std::array<std::set<std::string>, 2> values;
    for (size_t g = 0; g < 2; ++g)
      for (const Run* run : sweeps[g]->main_runs()) values[g].insert(of(*run));
    if (values[0] != values[1]) words.push_back(fmt::format("{} {} and {}", what, fmt::join(values[0], ", "), fmt::join(values[1], ", ")));
  };
  compare("images", [](const Run& run) { return std::to_string(run.budget_images); });
  compare("batch", [](const Run& run) { return std::to_string(run.batch); });
  compare("precision", [](const Run& run) { return run.precision; });
  compare("FLOP formula", [](const Run& run) { return run.flop_formula; });
  compare("validation images", [](const Run& run) { return std::to_string(run.val_images); });
  compare("tokens", [](const Run& run) { return run.tokens.tokens.substr(0, 8) + " " + run.tokens.source; });
  return words;
}

ordered_json judged_json(const Judged& judged) {
  ordered_json json = {{"value", six(judged.value)}};
  if (judged.interval) json["low"] = six(judged.interval->low), json["high"] = six(judged.interval->high);
  return json;
}

ordered_json shared_json(const fit::Shared& shared) {
  return {{"alpha", six(shared.alpha)},
          {"E", {six(shared.laws[0].E), six(shared.laws[1].E)}},
          {"B", {six(shared.laws[0].B), six(shared.laws[1].B)}},
          {"objective", six(shared.objective)}};
}

std::string words_of(const Judged& judged, int significant = 3) {
  return judged.interval ? fmt::format("{} [{}, {}]", digits(judged.value, significant), digits(judged.interval->low, significant),
                                       digits(judged.interval->high, significant))
                         : digits(judged.value, significant) + " (no interval)";
}

// "differ", "are not told apart", or that nothing tells.
std::string exponent_verdict(const Judged& difference) {
  if (!difference.interval) return "nothing tells the noise, so the exponents cannot be told apart or together";
  return difference.interval->contains(0) ? "the exponents are not told apart" : "the exponents differ";
}

}  // namespace

SweepComparison compare_sweeps(const std::array<const SweepRuns*, 2>& sweeps, const std::array<const Analysis*, 2>& analyses,
                               Metric metric, const fit::BootstrapOptions& options) {
  SweepComparison result;
  result.metric = metric;
  result.level = options.level;
  for (size_t g = 0; g < 2; ++g) result.names[g] = sweeps[g]->name;
  result.differing = differing(sweeps);
  const std::array kinds = {described(*sweeps[0]), described(*sweeps[1])};
  result.same_tokens = kinds[0].tokens == kinds[1].tokens;
  const bool same_flops = sweeps[0]->main_runs().front()->flop_formula == sweeps[1]->main_runs().front()->flop_formula;
  for (const auto& [law, x_rule] : {std::pair{"L(N)", "total"}, std::pair{"L(C)", "flops"}}) {
    if (x_rule == std::string("flops") && !same_flops) continue;
    const std::array own = {analyses[0]->find(law, x_rule, metric, "free"), analyses[1]->find(law, x_rule, metric, "free")};
    result.laws.push_back(pair_of(law, own, result.same_tokens, options));
  }
  return result;
}

std::string SweepComparison::sentence() const {
  const LawPair& size = laws.front();
  std::string text = fmt::format("{} against {}, {}: exponents of N {} and {}, difference {}; {}", names[1], names[0], words(metric),
                                 digits(size.own[1]->fit.law.alpha, 3), digits(size.own[0]->fit.law.alpha, 3),
                                 words_of(size.exponent_difference), exponent_verdict(size.exponent_difference));
  if (size.multiplier)
    text += fmt::format("; with one exponent and one E, {} at N parameters is worth {} at {} N", names[1], names[0],
                        words_of(*size.multiplier));
  if (!same_tokens) text += "; the tokens differ, so that the losses are in no common unit and do not compare";
  return text + ".";
}

ordered_json comparison_json(const SweepComparison& comparison) {
  ordered_json json = {{"schema_version", 1},
                       {"sweeps", comparison.names},
                       {"metric", name(comparison.metric)},
                       {"sentence", comparison.sentence()},
                       {"same_tokens", comparison.same_tokens},
                       {"differing", comparison.differing},
                       {"level", comparison.level},
                       {"laws", ordered_json::array()}};
  for (const LawPair& pair : comparison.laws) {
    ordered_json law = {{"law", pair.law}};
    for (const LawFit* own : pair.own)
      law["own"].push_back({{"E", six(own->fit.law.E)}, {"B", six(own->fit.law.B)}, {"alpha", six(own->fit.law.alpha)}});
    law["exponent_difference"] = judged_json(pair.exponent_difference);
    law["one_exponent"] = shared_json(pair.one_exponent);
    law["one_exponent"]["alpha_interval"] = judged_json(pair.shared_alpha);
    law["one_exponent_one_E"] = pair.one_e ? shared_json(*pair.one_e) : ordered_json();
    law["multiplier"] = pair.multiplier ? judged_json(*pair.multiplier) : ordered_json();
    law["loss_differences"] = ordered_json::array();
    for (const LossDifference& each : pair.differences) {
      ordered_json row = judged_json(each.difference);
      row["x"] = six(each.x);
      law["loss_differences"].push_back(std::move(row));
    }
    json["laws"].push_back(std::move(law));
  }
  return json;
}

std::string comparison_words(const SweepComparison& comparison) {
  std::string text;
  if (!comparison.differing.empty()) text += fmt::format("they differ in: {}\n", fmt::join(comparison.differing, "; "));
  for (const LawPair& pair : comparison.laws) {
    const std::string x = pair.law == "L(N)" ? "N" : "C";
    text += fmt::format("{}, {}\n", pair.law, words(comparison.metric));
    for (size_t g = 0; g < 2; ++g) text += fmt::format("  {}: {}\n", comparison.names[g], law_words(pair.own[g]->fit, x));
    text += fmt::format("  difference of exponents {}: {}\n", words_of(pair.exponent_difference),
                        exponent_verdict(pair.exponent_difference));
    text += fmt::format("  one exponent: {}; E {} and {}\n", words_of(pair.shared_alpha), digits(pair.one_exponent.laws[0].E),
                        digits(pair.one_exponent.laws[1].E));
    if (pair.multiplier)
      text += fmt::format("  one exponent {} and one E {}: {} at {} is worth {} at {} {}\n", digits(pair.one_e->alpha, 3),
                          digits(pair.one_e->laws[0].E), comparison.names[1], x, comparison.names[0], words_of(*pair.multiplier), x);
    for (const LossDifference& each : pair.differences)
      text += fmt::format("  loss at {} = {:.4g}: {}\n", x, each.x, words_of(each.difference));
  }
  return text;
}

std::string comparison_csv(const SweepComparison& comparison) {
  constexpr int kPlaces = 60;
  std::string text = "law,kind,sweep,depth,x,y,low,high\n";
  for (const LawPair& pair : comparison.laws) {
    for (size_t g = 0; g < 2; ++g) {
      const LawFit& own = *pair.own[g];
      for (size_t i = 0; i < own.points.size(); ++i)
        text += fmt::format("{},point,{},{},{:.10g},{:.10g},,\n", pair.law, comparison.names[g], own.runs[i]->depth, own.points[i].x,
                            own.points[i].y);
      const std::vector<double> sizes = fit::distinct_sizes(own.points);
      const double low = sizes.front() / 1.5, high = sizes.back() * 1.5;
      for (int k = 0; k < kPlaces; ++k) {
        const double x = low * std::pow(high / low, static_cast<double>(k) / (kPlaces - 1));
        text += fmt::format("{},own,{},,{:.10g},{:.10g}", pair.law, comparison.names[g], x, own.fit.law.at(x));
        if (own.bootstrap) {
          const fit::Interval band = own.bootstrap->law_at(x);
          text += fmt::format(",{:.10g},{:.10g}\n", band.low, band.high);
        } else {
          text += ",,\n";
        }
        text += fmt::format("{},shared,{},,{:.10g},{:.10g},,\n", pair.law, comparison.names[g], x, pair.one_exponent.laws[g].at(x));
      }
    }
  }
  return text;
}

}  // namespace varscale::analysis
