// The arguments of `var_fit compare`, and the files it leaves.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>

#include "base/command_line.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "compare.hpp"
#include "figures.hpp"
#include "kinds.hpp"

namespace varscale::analysis {
namespace {

using base::ExitCode;
using base::UserError;

constexpr const char* kAboutCompare =
    "Compares the laws of two sweeps: the difference of their exponents, one exponent for both, and on the same tokens how\n"
    "many times larger a model of the first must be for the loss of the second's. Writes compare.json and the figure compare.";

constexpr const char* kCompareExamples = R"(
Examples:
  var_fit compare results/depth results/depth_new_head
  var_fit compare results/depth results/depth_more_data --metric loss_tail --json

Exit codes: 0 done, 2 bad input, others failure.)";

struct CompareArguments {
  std::array<std::filesystem::path, 2> sweeps;
  std::filesystem::path out;
  std::string metric = "loss_mean";
  fit::BootstrapOptions bootstrap;
  bool json = false, no_figures = false;
};

bool parse_compare(int argc, char** argv, CompareArguments& a) {
  CLI::App app(kAboutCompare, "var_fit compare");
  app.footer(kCompareExamples);
  app.add_option("FIRST", a.sweeps[0], "folder of a sweep")->required();
  app.add_option("SECOND", a.sweeps[1], "folder of another, with the change")->required();
  app.add_option("--metric", a.metric, "loss_mean (default), loss_tail, err_mean or err_tail");
  app.add_option("--out", a.out, "where the results go (default FIRST/fit/compare-<name of SECOND>)");
  app.add_option("--resamples", a.bootstrap.resamples, "bootstrap resamples (default 2000)");
  app.add_option("--seed", a.bootstrap.seed, "of the bootstrap (default 0)");
  app.add_flag("--json", a.json, "print the results as JSON instead of words");
  app.add_flag("--no-figures", a.no_figures, "draw none");
  return base::parse_command_line(app, argc, argv);
}

Metric metric_of(const std::string& text) {
  for (const Metric metric : kMetrics)
    if (name(metric) == text) return metric;
  throw UserError("--metric is {}; expected loss_mean, loss_tail, err_mean or err_tail", text);
}

}  // namespace

ExitCode run_compare(int argc, char** argv) {
  CompareArguments a;
  if (!parse_compare(argc, argv, a)) return ExitCode::kDone;
  const Metric metric = metric_of(a.metric);
  if (std::filesystem::weakly_canonical(a.sweeps[0]) == std::filesystem::weakly_canonical(a.sweeps[1]))
    throw UserError("{}: is both sweeps; expected two", a.sweeps[0].string());
  std::array<SweepRuns, 2> sweeps;
  std::array<Analysis, 2> analyses;
  for (size_t g = 0; g < 2; ++g) sweeps[g] = load_runs(a.sweeps[g]);
  for (size_t g = 0; g < 2; ++g) {
    Options options;
    options.bootstrap = a.bootstrap;
    options.bootstrap.seed += g;  // independent draws
    try {
      analyses[g] = analyse(sweeps[g], options);
    } catch (const UserError& error) {
      throw UserError("{}: {}", a.sweeps[g].string(), error.what());
    }
  }
  if (sweeps[0].name == sweeps[1].name)
    for (size_t g = 0; g < 2; ++g) sweeps[g].name = a.sweeps[g].string();
  const SweepComparison comparison = compare_sweeps({&sweeps[0], &sweeps[1]}, {&analyses[0], &analyses[1]}, metric, a.bootstrap);

  if (a.out.empty())
    a.out = a.sweeps[0] / "fit" / ("compare-" + std::filesystem::weakly_canonical(a.sweeps[1]).filename().string());
  base::require_writable_folder(a.out);
  for (const char* end : {".png", ".pdf", ".svg"}) std::filesystem::remove(a.out / fmt::format("compare{}", end));
  const std::string json = base::json_text(comparison_json(comparison), 2) + "\n";
  base::write_file_atomic(a.out / "compare.json", json);
  base::write_file_atomic(a.out / "compare.csv", comparison_csv(comparison));
  if (!a.no_figures)
    if (const std::string reason = draw_figures(a.out); !reason.empty()) fmt::print(stderr, "var_fit: {}\n", reason);
  if (a.json) fmt::print("{}", json);
  else
    fmt::print("{}results: {}\n{}\n", comparison_words(comparison), a.out.string(), comparison.sentence());
  return ExitCode::kDone;
}

}  // namespace varscale::analysis
