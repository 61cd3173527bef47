#include <nlohmann/json.hpp>
#include <set>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/version.hpp"
#include "report_page.hpp"
#include "report_text.hpp"

namespace varscale::analysis {
namespace {

std::string words(const records::Fact& fact) {
  if (const auto* integer = std::get_if<int64_t>(&fact)) return std::to_string(*integer);
  if (const auto* real = std::get_if<double>(&fact)) return fmt::format("{:g}", *real);
  return std::get<std::string>(fact);
}

// What the runs' files say under `key`, each value once; empty where none says.
std::string said(const SweepRuns& sweep, const std::string& key) {
  std::set<std::string> values;
  for (const Run& run : sweep.runs)
    if (const auto fact = run.tables.facts.find(key); fact != run.tables.facts.end())
      values.insert(words(fact->second));
  std::string text;
  for (const std::string& value : values) text += (text.empty() ? "" : ", ") + value;
  return text;
}

std::string quoted(const std::string& word) {
  if (word.find_first_of(" \t'\"\\$&;()<>*?[]{}|#~!`") == std::string::npos) return word;
  std::string text = "'";
  for (char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

// The command with every option that changes a number.
std::string command(const Page& page) {
  const Options& options = page.results.options;
  std::string text = "var_fit " + quoted(page.sweep.folder.string());
  text += fmt::format(" --seed {} --resamples {} --hold-out {}", options.bootstrap.seed, options.bootstrap.resamples,
                      options.hold_out);
  if (options.e_mean) text += fmt::format(" --e-mean {}", *options.e_mean);
  if (options.e_tail) text += fmt::format(" --e-tail {}", *options.e_tail);
  if (!options.e_source.empty()) text += " --e-source " + quoted(options.e_source);
  if (page.analysis.across) text += " --across-data";
  if (!page.results.rates.checked_in.empty()) text += " --lr-check " + quoted(page.results.rates.checked_in);
  return text;
}

}  // namespace

std::string origin_section(const Page& page) {
  Html html;
  html.add("<h2>How it was made, and how to make it again</h2>\n<dl>");
  const auto row = [&](const std::string& title, const std::string& text) {
    if (!text.empty()) html.add("<dt>{}</dt><dd>{}</dd>", title, text);
  };
  const auto fact = [&](const std::string& key) { return escape(said(page.sweep, key)); };
  const std::string trained = fact("program_version"), torch = fact("torch_version");
  row("trained by", trained.empty() ? "" : "VARscale " + trained + (torch.empty() ? "" : ", libtorch " + torch));
  row("fitted by", "VARscale " + base::program_version());
  row("numerics of the runs", fact("numerics_version").empty() ? "" : "version " + fact("numerics_version"));
  const std::string ranks = fact("ranks"), device = fact("device");
  row("machine", device.empty() ? "" : device + (ranks.empty() ? "" : fmt::format("; ranks in a run: {}", ranks)));
  row("precision", fact("precision"));
  row("FLOP formula", fact("flop_formula"));
  row("validation", fact("validation"));
  row("token file", fact("tokens_fingerprint").substr(0, 16));
  row("tokenizer", fact("tokenizer_fingerprint").substr(0, 16));
  row("learning rates", escape(page.results.rates.word()));
  html.add("</dl>");
  const std::filesystem::path file = page.sweep.folder / "sweep.yaml";
  const bool has_file = std::filesystem::exists(file);
  html.add("<pre><code>{}{}</code></pre>",
           has_file ? "var_sweep FILE.yaml    # the file below; trains what is missing\n" : "", escape(command(page)));
  html.add(
      "<p>The same runs give the same numbers. <code>fit.json</code> has the SHA-256 of every <code>run.h5</code>, "
      "whose "
      "attributes hold the settings of its run.</p>");
  if (has_file)
    html.add("<details><summary>sweep.yaml</summary><pre><code>{}</code></pre></details>",
             escape(base::read_file(file)));
  return std::move(html.text);
}

}  // namespace varscale::analysis
