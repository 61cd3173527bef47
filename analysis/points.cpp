#include "points.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/command_line.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "points_fit.hpp"
#include "points_table.hpp"

namespace varscale::analysis {
namespace {

using base::ExitCode;
using base::UserError;

constexpr const char* kAboutPoints =
    "Fits a law to the points of a CSV file: a power of one size, or a surface over two.\n"
    "  power       loss = B x^-alpha                            x is N, D or C\n"
    "  power_e     loss = E + B x^-alpha\n"
    "  chinchilla  loss = E + A / N^alpha + B / D^beta\n"
    "  overtrain   loss = E + (a M^eta + b M^-eta) C^-eta       M is tokens per parameter\n"
    "  data_constrained  loss = E + A / N^alpha + B / D'^beta   of D tokens seen U are distinct,\n"
    "                    D' = U (1 + R (1 - exp(-(D / U - 1) / R)))\n"
    "  bnsl        loss = E + B x^-c0 (1 + (x / d)^(1/f))^(-c1 f)   a power with one smooth break";

constexpr const char* kPointsExamples = R"(
Examples:
  var_fit points runs.csv --form chinchilla --columns N=params,D=tokens,loss=val_loss,run=id --json fit.json
  var_fit points runs.csv --form chinchilla --columns "N=Model Size,C=FLOP,D=C/(6*N),loss=loss" --where "C < 1e21" \
      --estimator huber --space log --predict N=70e9,D=1.4e12
  var_fit points runs.csv --form power_e --columns C=flops,loss=loss --e 1.69 --e-source "a published fit" --hold-out "C > 1e21"

Exit codes: 0 done, 2 bad input, others failure.)";

const std::map<std::string, fit::Form> kForms = {{"power", fit::Form::kPower},
                                                 {"power_e", fit::Form::kPowerE},
                                                 {"chinchilla", fit::Form::kChinchilla},
                                                 {"overtrain", fit::Form::kOvertrain},
                                                 {"data_constrained", fit::Form::kDataConstrained},
                                                 {"bnsl", fit::Form::kBnsl}};
const std::map<std::string, fit::Estimator> kEstimators = {{"vpnls", fit::Estimator::kVpnls},
                                                           {"huber", fit::Estimator::kHuber},
                                                           {"lad", fit::Estimator::kLad},
                                                           {"lsq", fit::Estimator::kLsq}};
const std::map<std::string, fit::Space> kSpaces = {{"linear", fit::Space::kLinear}, {"log", fit::Space::kLog}};

template <class Value>
Value choice(const std::string& text, const std::map<std::string, Value>& choices, const char* option) {
  const auto found = choices.find(text);
  if (found != choices.end()) return found->second;
  std::vector<std::string> known;
  for (const auto& [name, value] : choices) known.push_back(name);
  throw UserError("{} is {}; expected one of {}", option, text, fmt::join(known, ", "));
}

struct PointsArguments {
  std::filesystem::path file, json;
  std::string form, columns, estimator = "vpnls", space, where, hold_out, e_source;
  std::vector<std::string> predict, same;
  std::optional<double> e, delta, level;
  std::optional<uint64_t> seed;
  int64_t resamples = 2000;
  bool profile = false;
};

bool parse_points(int argc, char** argv, PointsArguments& a) {
  CLI::App app(kAboutPoints, "var_fit points");
  app.footer(kPointsExamples);
  app.add_option("FILE", a.file, "CSV file with a line of headings")->required();
  app.add_option("--form", a.form, "power, power_e, chinchilla, overtrain, data_constrained or bnsl")->required();
  app.add_option("--columns", a.columns, "NAME=HEADING or NAME=FORMULA of the form's sizes and loss, also run and weight")->required();
  app.add_option("--estimator", a.estimator, "vpnls (least squares; the default), huber, lad or lsq");
  app.add_option("--space", a.space, "of the residuals: linear (default of vpnls) or log (of the others)");
  app.add_option("--where", a.where, "rows to read: comparisons joined by \"and\"");
  app.add_option("--hold-out", a.hold_out, "rows of those to predict instead of fitting them");
  app.add_option("--same", a.same, "headings whose text must be the same in all rows, as unit,flop_formula,tokenizer")->delimiter(',');
  app.add_option("--predict", a.predict, "a place to predict, as N=70e9,D=20*N; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--e", a.e, "irreducible loss, stated instead of searched");
  app.add_option("--e-source", a.e_source, "where the stated E comes from (needed with it)");
  app.add_option("--delta", a.delta, "threshold of huber (default 0.001)");
  app.add_option("--resamples", a.resamples, "bootstrap resamples of whole runs (default 2000); 0: no intervals");
  app.add_flag("--profile", a.profile, "also the profile interval of each constant (estimator vpnls)");
  app.add_option("--level", a.level, "share of the intervals (default 0.9)");
  app.add_option("--seed", a.seed, "of the bootstrap (default 0)");
  app.add_option("--json", a.json, "write the results to this file");
  return base::parse_command_line(app, argc, argv);
}

fit::SurfaceSpec spec_of(const PointsArguments& a) {
  fit::SurfaceSpec spec{.form = choice(a.form, kForms, "--form"),
                        .estimator = choice(a.estimator, kEstimators, "--estimator")};
  spec.space = !a.space.empty()                              ? choice(a.space, kSpaces, "--space")
               : spec.estimator == fit::Estimator::kVpnls ? fit::Space::kLinear
                                                             : fit::Space::kLog;
  spec.given_e = a.e;
  if (a.e && a.e_source.empty()) throw UserError("--e without --e-source: a stated E needs its source");
  if (!a.e && !a.e_source.empty()) throw UserError("--e-source without --e has no effect");
  if (a.delta && spec.estimator != fit::Estimator::kHuber)
    throw UserError("--delta without --estimator huber has no effect");
  if (a.delta) spec.delta = *a.delta;
  return spec;
}

double level_of(const PointsArguments& a) {
  const double level = a.level.value_or(0.9);
  if (!(level > 0 && level < 1)) throw UserError("--level is {:g}; expected a share between 0 and 1", level);
  return level;
}

std::optional<fit::BootstrapOptions> bootstrap_of(const PointsArguments& a) {
  if (a.resamples == 0) {
    if (a.seed || (a.level && !a.profile)) throw UserError("--seed or --level without resamples has no effect");
    return std::nullopt;
  }
  const double level = level_of(a);
  return fit::BootstrapOptions{.resamples = a.resamples, .seed = a.seed.value_or(0), .level = level};
}

// Which of the named columns are the form's variables.
std::vector<std::string> variables_of(const fit::SurfaceSpec& spec, const Definitions& columns) {
  std::vector<std::string> wanted;
  for (const std::string_view name : fit::variable_names(spec.form)) wanted.emplace_back(name);
  if (wanted == std::vector<std::string>{"x"}) {
    std::vector<std::string> sizes;
    for (const char* size : {"N", "D", "C"})
      if (columns.find(size) != nullptr) sizes.emplace_back(size);
    if (sizes.size() == 1) return sizes;
    throw UserError("--columns: the form {} has one size; expected one of N, D and C, and other names for what only formulas use (there {} {})",
                    fit::name(spec.form), sizes.empty() ? "is" : "are", sizes.empty() ? "none" : fmt::format("{}", fmt::join(sizes, ", ")));
  }
  for (const std::string& name : wanted)
    if (columns.find(name) == nullptr)
      throw UserError("--columns: {} is missing; the form {} needs {} and loss", name, fit::name(spec.form), fmt::join(wanted, ", "));
  return wanted;
}

// A name that nothing reads is a slip of the pen.
void check_use(const Definitions& columns, const std::vector<std::string>& needed, const Selection& selection,
               const fit::SurfaceSpec& spec) {
  std::set<std::string> used = names_in_formulas(columns);
  used.insert(needed.begin(), needed.end());
  used.insert("run");
  for (const auto* condition : {&selection.where, &selection.hold_out})
    if (*condition) used.merge((*condition)->names());
  for (const Definitions::One& one : columns.all())
    if (!used.contains(one.name))
      throw UserError("--columns: {} has no effect{}", one.name,
                      one.name == "weight" ? "; weights are those of the estimator lsq"
                                           : fmt::format(": the form {} needs {}", fit::name(spec.form), fmt::join(needed, ", ")));
}

std::vector<double> place(const std::string& text, const std::vector<std::string>& variables) {
  const Definitions definitions = Definitions::parse(text, "--predict");
  const sweep::Variables nothing;
  Evaluation evaluation(definitions, nothing);
  std::vector<double> x;
  for (const std::string& name : variables) {
    if (definitions.find(name) == nullptr)
      throw UserError("--predict: {} is missing in \"{}\"; expected {}", name, text, fmt::join(variables, ", "));
    x.push_back(evaluation.value(name));
    if (!(std::isfinite(x.back()) && x.back() > 0))
      throw UserError("--predict: {} is {:g}; expected a finite positive number", name, x.back());
  }
  const std::set<std::string> used = names_in_formulas(definitions);
  for (const Definitions::One& one : definitions.all())
    if (std::ranges::find(variables, one.name) == variables.end() && !used.contains(one.name))
      throw UserError("--predict: {} has no effect; expected {}", one.name, fmt::join(variables, ", "));
  return x;
}

}  // namespace

ExitCode run_points(int argc, char** argv) {
  PointsArguments a;
  if (!parse_points(argc, argv, a)) return ExitCode::kDone;
  PointsRequest request{.file = a.file.string(),
                        .spec = spec_of(a),
                        .e_source = a.e_source,
                        .columns = a.columns,
                        .where = a.where,
                        .hold_out = a.hold_out,
                        .bootstrap = bootstrap_of(a)};
  if (a.profile) request.profile = fit::ProfileOptions{.level = level_of(a)};
  if (a.profile && request.spec.estimator != fit::Estimator::kVpnls)
    throw UserError("--profile is of least squares; expected it with --estimator vpnls instead of {}", a.estimator);
  fit::check_spec(request.spec);
  const Definitions columns = Definitions::parse(a.columns, "--columns");
  request.variables = variables_of(request.spec, columns);
  if (columns.find("loss") == nullptr) throw UserError("--columns: loss is missing");
  std::vector<std::string> needed = request.variables;
  needed.emplace_back("loss");
  if (request.spec.estimator == fit::Estimator::kLsq && columns.find("weight") != nullptr) needed.emplace_back("weight");
  Selection selection;
  if (!a.where.empty()) selection.where = Condition::parse(a.where, "--where");
  if (!a.hold_out.empty()) selection.hold_out = Condition::parse(a.hold_out, "--hold-out");
  selection.same = a.same;
  check_use(columns, needed, selection, request.spec);
  for (const std::string& text : a.predict) request.predictions.push_back(place(text, request.variables));

  const PointTable table = read_points(a.file, columns, needed, selection);
  if (!a.hold_out.empty() && table.held_out.empty())
    throw UserError("{}: no row is as --hold-out asks for", request.file);
  PointsResult result;
  try {
    result = fit_points(table, request);
  } catch (const UserError& error) {
    throw UserError("{}: {} ({} of {} rows are fitted)", request.file, error.what(), table.fitted.size(), table.rows);
  }
  if (!a.json.empty()) base::write_file_atomic(a.json, base::json_text(points_json(result, request), 2) + "\n");
  fmt::print("{}", points_words(result, request));
  return ExitCode::kDone;
}

}  // namespace varscale::analysis
