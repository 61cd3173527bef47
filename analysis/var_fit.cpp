// var_fit: from the runs of a sweep to a law with its uncertainty, figures and a report.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "compare.hpp"
#include "figures.hpp"
#include "kinds.hpp"
#include "laws.hpp"
#include "outputs.hpp"
#include "points.hpp"
#include "prediction.hpp"
#include "records/run_file.hpp"
#include "report.hpp"
#include "runs.hpp"
#include "tuning.hpp"

namespace varscale::analysis {
namespace {

using base::ExitCode;
using base::UserError;

constexpr const char* kAbout =
    "Fits scaling laws to the finished runs of a sweep: L(N) at fixed data, L(C) and L(D), with "
    "intervals and\n"
    "the largest model held out. Writes fit.json, CSV files, figures and report.html into "
    "SWEEP/fit.";

constexpr const char* kExamples = R"(
Examples:
  var_fit results/quickstart
  var_fit results/depth --e-mean 5.0 --e-tail 4.5 --e-source "authors' statement for the public tokenizer"
  var_fit results/depth --lr-check results/lr_check
  var_fit results/quickstart --register-prediction    before the deepest run is read
  var_fit results/isoflop --across-data              sizes that saw different numbers of images; their frontier
  var_fit results/depth --csv tables --json
  var_fit compare results/depth results/other        what a change of model or data is worth
  var_fit points FILE.csv --help                     a law through anyone's points (sweeps of these names: ./points, ./compare)

Exit codes: 0 done, 2 bad input, others failure.)";

constexpr const char* kKindFolder = "tokens-";  // of a fit's files, where there are several

struct Arguments {
  std::filesystem::path sweep, out, csv, lr_check;
  Options options;
  bool register_only = false, json = false, no_figures = false;
};

// Returns false where only help was asked for.
bool parse(int argc, char** argv, Arguments& a) {
  CLI::App app(kAbout, "var_fit");
  app.footer(kExamples);
  app.add_option("SWEEP", a.sweep, "folder of a sweep: SWEEP/runs/<id>/run.h5")->required();
  app.add_option("--out", a.out, "where the results go (default SWEEP/fit)");
  app.add_option("--hold-out", a.options.hold_out,
                 "how many of the largest sizes to predict from the others (default 1)")
      ->check(CLI::PositiveNumber);
  app.add_option("--e-mean", a.options.e_mean,
                 "irreducible loss over all tokens, stated instead of searched");
  app.add_option("--e-tail", a.options.e_tail, "the same over the last scale");
  app.add_option("--e-source", a.options.e_source,
                 "where the stated E comes from (needed with it)");
  app.add_flag("--across-data", a.options.across_data,
               "fit L(N) over runs of role main whose budgets in images differ, which is refused otherwise");
  app.add_option("--resamples", a.options.bootstrap.resamples,
                 "bootstrap resamples (default 2000)");
  app.add_option("--seed", a.options.bootstrap.seed, "of the bootstrap (default 0)");
  app.add_option("--lr-check", a.lr_check,
                 "folder of a small sweep around the learning-rate rule, as of sweeps/lr_check.yaml");
  app.add_option("--csv", a.csv, "also export every run's tables as CSV into this folder");
  app.add_flag(
      "--register-prediction", a.register_only,
      "predict the deepest model from the smaller depths' runs alone, and only write that down");
  app.add_flag("--json", a.json, "print the results as JSON instead of words");
  app.add_flag("--no-figures", a.no_figures, "draw none");
  if (!base::parse_command_line(app, argc, argv)) return false;
  if ((a.options.e_mean || a.options.e_tail) && a.options.e_source.empty())
    throw UserError("--e-mean or --e-tail without --e-source: a stated E needs its source");
  for (const std::optional<double>& e : {a.options.e_mean, a.options.e_tail})
    if (e && !(std::isfinite(*e) && *e > 0))
      throw UserError("a stated E of {:g}; expected a positive number", *e);
  if (a.options.across_data && a.register_only)
    throw UserError("--across-data with --register-prediction: a prediction is of a model at the budget of the others");
  if (a.out.empty()) a.out = a.sweep / "fit";
  return true;
}

// Whether a rate found on the tokens of one may be that of the other.
bool same_tokenizer(const SweepRuns& a, const SweepRuns& b) {
  const TokenKind one = described(a), other = described(b);
  return one.tokens == other.tokens || (one.tokenizer == other.tokenizer && !one.tokenizer.empty());
}

void export_runs(const SweepRuns& sweep, const std::filesystem::path& folder) {
  for (const Run& run : sweep.runs) {
    const std::filesystem::path own = folder / run.id;
    base::require_writable_folder(own);
    records::export_csv(run.tables, own);
  }
}

// The law and the prediction: the registered one where there is one that has been answered, else the held-out
// law's where there are sizes enough for a claim.
std::string whole_sentence(const SweepRuns& sweep, const Analysis& analysis,
                           const std::optional<Comparison>& comparison) {
  std::string sentence = headline(analysis, sweep);
  if (comparison && comparison->verdicts.contains("loss_mean")) {
    const RegisteredMetric& m = comparison->registration.metrics.at("loss_mean");
    sentence += "; " + gain_words(comparison->registration.depth, m.gain, m.gain_interval,
                                  comparison->verdicts.at("loss_mean").observed_gain);
  } else if (const Held* held = analysis.find_held("total", Metric::kLossMean, "free");
             held && depths(sweep.main_runs()).size() >= kSizesForAClaim) {
    const fit::Prediction& p = held->result.prediction;
    sentence +=
        "; " + gain_words(held->depth, p.gain, p.gain_interval, held->result.verdict.observed_gain);
  }
  return sentence + ".";
}

void print_laws(const Results& results) {
  const Analysis& analysis = results.analysis;
  for (const LeftOut& run : results.sweep.left_out) fmt::print("  {}: {}\n", run.id, run.reason);
  for (const LawFit& law : analysis.fits) {
    if (law.x_rule == "blocks" || law.x_rule == "paper" || law.metric != Metric::kLossMean)
      continue;
    fmt::print("  {:<36} {}", law.id(), law_words(law.fit, "x"));
    if (law.bootstrap) {
      const fit::Interval alpha = law.bootstrap->alpha();
      fmt::print("   exponent [{}, {}]", digits(alpha.low, 3), digits(alpha.high, 3));
    }
    fmt::print("   rmse {}{}\n", digits(law.fit.rmse, 2),
               law.caveat.empty() ? "" : "   (" + law.caveat + ")");
  }
  for (const LawSensitivity& each : results.sensitivity)
    for (const std::string& sentence : disagreement_sentences(each.disagreements))
      fmt::print("  estimators disagree on {}: {}\n", each.id(), sentence);
  for (const std::string& note : analysis.notes) fmt::print("  {}\n", note);
  if (analysis.across) fmt::print("  {}\n", analysis.across->sentence());
  if (results.frontier.fitted()) fmt::print("  {}\n", results.frontier.sentence());
  for (const std::string& note : results.frontier.notes) fmt::print("  {}\n", note);
  fmt::print("  {}\n", results.rates.sentence());
}

std::string how_many_left_out(const std::vector<LeftOut>& left_out) {
  return left_out.empty() ? "" : fmt::format(", {} left out:", left_out.size());
}

void print_summary(const Results& results) {
  const SweepRuns& sweep = results.sweep;
  fmt::print("{}: {} finished runs ({}){}\n", sweep.folder.string(), sweep.runs.size(),
             depth_words(depths(sweep.main_runs())), how_many_left_out(sweep.left_out));
  print_laws(results);
}

ExitCode register_only(const Arguments& a) {
  base::require_writable_folder(a.out);
  const Registration r = register_prediction(a.sweep, a.out, a.options);
  const RegisteredMetric& m = r.metrics.at("loss_mean");
  fmt::print("{}: from d{} and below, {}; {}\n", (a.out / "prediction.json").string(),
             r.previous_depth, r.law,
             r.deepest_had_rows ? "a run.h5 of the deepest exists and was not read"
                                : "the deepest has no rows yet");
  fmt::print("{}.\n", gain_words(r.depth, m.gain, m.gain_interval, std::nullopt));
  return ExitCode::kDone;
}

// Files of one fit in `out`, but for the page. What was said where there are no figures.
std::string write_fit(const Arguments& a, const Results& results, const std::filesystem::path& out) {
  write_tables(results, out);
  base::write_file_atomic(out / "fit.json", base::json_text(fit_json(results), 2) + "\n");
  base::write_file_atomic(out / "law.txt", results.sentence + "\n");
  return a.no_figures ? "" : draw_figures(out);
}

void remove_folders_of_kinds(const std::filesystem::path& out) {
  std::vector<std::filesystem::path> old;
  for (const auto& entry : std::filesystem::directory_iterator(out))
    if (entry.is_directory() && entry.path().filename().string().starts_with(kKindFolder) &&
        std::filesystem::exists(entry.path() / "fit.json"))
      old.push_back(entry.path());
  for (const std::filesystem::path& folder : old) std::filesystem::remove_all(folder);
}

void say_why_no_figures(const std::string& sentence) {
  if (!sentence.empty()) fmt::print(stderr, "var_fit: {}\n", sentence);
}

// What `work` returns; its refusals with what they are about.
template <class Work>
auto about(const std::string& what, const Work& work) {
  try {
    return work();
  } catch (const UserError& error) {
    throw UserError("{}: {}", what, error.what());
  }
}

ExitCode fit_one_kind(const Arguments& a, const SweepRuns& sweep, const std::optional<SweepRuns>& check) {
  const Analysis analysis = about(sweep.folder.string(), [&] { return analyse(sweep, a.options); });
  const LearningRates rates = learning_rates(sweep, check);
  ComputeFrontier frontier = about(sweep.folder.string(), [&] { return compute_frontier(sweep, a.options); });
  base::require_writable_folder(a.out);
  std::optional<Comparison> comparison;
  if (const auto registration = read_registration(a.out))
    comparison = compare(*registration, sweep);
  const Results results{sweep, analysis, a.options, comparison,
                        whole_sentence(sweep, analysis, comparison), rates, {}, read_score_table(sweep),
                        sweep_sensitivity(analysis), std::move(frontier), read_entropies(sweep)};

  remove_folders_of_kinds(a.out);
  say_why_no_figures(write_fit(a, results, a.out));
  if (!a.csv.empty()) export_runs(sweep, a.csv);
  base::write_file_atomic(a.out / "report.html", report_html(results, a.out));

  if (a.json) {
    fmt::print("{}\n", base::json_text(fit_json(results), 2));
  } else {
    print_summary(results);
    fmt::print("report: {}\n{}\n", (a.out / "report.html").string(), results.sentence);
  }
  return ExitCode::kDone;
}

// Which kind a registered prediction was made from; null where none has its runs.
const SweepRuns* kind_of(const Registration& registration, const std::vector<SweepRuns>& kinds) {
  const SweepRuns* found = nullptr;
  for (const SweepRuns& kind : kinds) {
    if (compare(registration, kind).inputs_unchanged) return &kind;
    for (const Run* run : kind.main_runs())
      if (registration.files.contains(run->id)) found = &kind;
  }
  return found;
}

nlohmann::ordered_json kinds_json(const SweepKinds& sweep, const std::vector<Results>& fits) {
  nlohmann::ordered_json json = {{"schema_version", 1}, {"sweep", sweep.name}, {"not_comparable", why_apart(sweep.kinds)}};
  json["kinds"] = nlohmann::ordered_json::array();
  for (const SweepRuns& kind : sweep.kinds) {
    nlohmann::ordered_json entry = tokens_json(kind);
    entry["runs"] = nlohmann::ordered_json::array();
    for (const Run& run : kind.runs) entry["runs"].push_back(run.id);
    const auto fit = std::ranges::find(fits, &kind, [](const Results& each) { return &each.sweep; });
    if (fit == fits.end()) {
      entry["not_fitted"] = *why_not_fitted(kind);
    } else {
      entry["folder"] = fit->folder;
      entry["fit"] = fit_json(*fit);
    }
    json["kinds"].push_back(entry);
  }
  json["left_out"] = sweep.left_out;
  return json;
}

// Runs of several kinds of tokens: a fit each, in a folder of its own below `out`, and one page of all.
ExitCode fit_kinds(const Arguments& a, const SweepKinds& sweep, const std::optional<SweepRuns>& check) {
  std::vector<const SweepRuns*> fitted;
  std::string reasons;
  for (const SweepRuns& kind : sweep.kinds) {
    if (const auto reason = why_not_fitted(kind))
      reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", kind.kind, *reason);
    else
      fitted.push_back(&kind);
  }
  if (fitted.empty())
    throw UserError("{}: its runs were trained on {} kinds of tokens, which are fitted apart, and none has enough runs ({})",
                    sweep.folder.string(), sweep.kinds.size(), reasons);
  if (check && std::ranges::none_of(fitted, [&](const SweepRuns* kind) { return same_tokenizer(*kind, *check); }))
    throw UserError("{}: was trained on {}, which none of the fits of {} is about", check->folder.string(),
                    kind_words(*check), sweep.folder.string());

  std::vector<Analysis> analyses;
  analyses.reserve(fitted.size());  // results refer to them
  std::vector<LearningRates> rates;
  std::vector<ComputeFrontier> frontiers;
  for (const SweepRuns* kind : fitted) {
    analyses.push_back(about("tokens " + kind->kind, [&] { return analyse(*kind, a.options); }));
    try {
      frontiers.push_back(compute_frontier(*kind, a.options));
      rates.push_back(learning_rates(*kind, check && same_tokenizer(*kind, *check) ? check : std::nullopt));
    } catch (const UserError& error) {
      throw UserError("tokens {}: {}", kind->kind, error.what());
    }
  }
  base::require_writable_folder(a.out);
  const auto registration = read_registration(a.out);
  const SweepRuns* registered = registration ? kind_of(*registration, sweep.kinds) : nullptr;
  std::vector<Results> fits;
  for (size_t i = 0; i < fitted.size(); ++i) {
    std::optional<Comparison> comparison;
    if (registered == fitted[i]) comparison = compare(*registration, *fitted[i]);
    const std::string sentence = whole_sentence(*fitted[i], analyses[i], comparison);
    fits.push_back({*fitted[i], analyses[i], a.options, comparison, sentence, rates[i],
                    std::string(kKindFolder) + fitted[i]->kind, read_score_table(*fitted[i]),
                    sweep_sensitivity(analyses[i]), std::move(frontiers[i]), read_entropies(*fitted[i])});
  }

  remove_tables(a.out);
  remove_folders_of_kinds(a.out);
  std::string without_figures, laws;
  for (const Results& fit : fits) {
    base::require_writable_folder(a.out / fit.folder);
    const std::string said = write_fit(a, fit, a.out / fit.folder);
    if (!said.empty()) without_figures = said;
    laws += fmt::format("{}: {}\n", fit.sweep.kind, fit.sentence);
  }
  if (!a.csv.empty())
    for (const SweepRuns& kind : sweep.kinds) export_runs(kind, a.csv);
  say_why_no_figures(without_figures);
  const nlohmann::ordered_json json = kinds_json(sweep, fits);
  base::write_file_atomic(a.out / "fit.json", base::json_text(json, 2) + "\n");
  base::write_file_atomic(a.out / "law.txt", laws);
  base::write_file_atomic(a.out / "report.html", kinds_html(sweep, fits, a.out));
  if (a.json) {
    fmt::print("{}\n", base::json_text(json, 2));
    return ExitCode::kDone;
  }
  fmt::print("{}: {} kinds of tokens, fitted apart{}\n", sweep.folder.string(), sweep.kinds.size(),
             how_many_left_out(sweep.left_out));
  for (const LeftOut& run : sweep.left_out) fmt::print("  {}: {}\n", run.id, run.reason);
  for (const std::string& reason : why_apart(sweep.kinds)) fmt::print("  {}\n", reason);
  for (size_t i = 0; i < fits.size(); ++i) {
    fmt::print("{}: {}; {} finished runs ({})\n", fitted[i]->kind, kind_words(*fitted[i]), fitted[i]->runs.size(),
               depth_words(depths(fitted[i]->main_runs())));
    print_laws(fits[i]);
  }
  if (!reasons.empty()) fmt::print("not fitted: {}\n", reasons);
  fmt::print("report: {}\n{}", (a.out / "report.html").string(), laws);
  return ExitCode::kDone;
}

ExitCode run(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "points") return run_points(argc - 1, argv + 1);
  if (argc > 1 && std::string_view(argv[1]) == "compare") return run_compare(argc - 1, argv + 1);
  Arguments a;
  if (!parse(argc, argv, a)) return ExitCode::kDone;
  if (a.register_only) return register_only(a);

  const SweepKinds sweep = load_kinds(a.sweep);
  std::optional<SweepRuns> check;
  if (!a.lr_check.empty()) check = load_runs(a.lr_check);
  return sweep.kinds.size() == 1 ? fit_one_kind(a, sweep.kinds.front(), check) : fit_kinds(a, sweep, check);
}

}  // namespace
}  // namespace varscale::analysis

int main(int argc, char** argv) {
  return varscale::base::run_main("var_fit", [&] { return varscale::analysis::run(argc, argv); });
}
