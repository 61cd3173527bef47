#include "scores.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/file.hpp"
#include "laws.hpp"
#include "report_text.hpp"

namespace varscale::analysis {

using nlohmann::ordered_json;
using records::Score;

std::optional<ScoreTable> read_score_table(const SweepRuns& sweep) {
  std::vector<ScoredRun> all;
  ScoreTable table;
  for (const Run& run : sweep.runs) {
    if (auto scores = records::read_scores(run.file.parent_path() / "scores.json"))
      all.push_back({&run, std::move(*scores)});
    else if (run.role != "trunk") table.left_out.push_back({run.id, "not scored"});
  }
  if (all.empty()) return std::nullopt;
  const auto alike = [&](const ScoredRun& one) {
    return std::ranges::count_if(all,
                                 [&](const ScoredRun& each) { return each.scores.settings == one.scores.settings; });
  };
  const ordered_json settings = std::ranges::max_element(all, {}, alike)->scores.settings;
  for (ScoredRun& each : all) {
    if (each.scores.settings == settings) table.runs.push_back(std::move(each));
    else table.left_out.push_back({each.run->id, "scored under other settings"});
  }
  return table;
}

namespace {

std::vector<std::pair<const char*, const Score*>> columns_of(const records::RunScores& scores) {
  std::vector<std::pair<const char*, const Score*>> columns{{"protocol", &scores.protocol}};
  if (scores.best) columns.emplace_back("best", &*scores.best);
  return columns;
}

std::string cell(const std::optional<double>& value) { return value ? fmt::format("{:.10g}", *value) : ""; }

void append(std::string& list, const std::string& id) {
  list += fmt::format("{}<code>{}</code>", list.empty() ? "" : ", ", escape(id));
}

// Runs whose best value has no neighbour in the grid on one side; less than no guidance there is not.
std::string best_at_an_edge(const ScoreTable& scores) {
  std::string list;
  if (!scores.has_grid()) return list;
  const auto [least, most] = std::ranges::minmax(scores.first().grid, {}, &records::GridScore::cfg);
  for (const auto& [run, of_run] : scores.runs)
    if (of_run.best->cfg == most.cfg || (of_run.best->cfg == least.cfg && least.cfg > 0)) append(list, run->id);
  return list;
}

}  // namespace

void write_scores_csv(const ScoreTable& scores, const std::filesystem::path& out) {
  std::string text =
      "run,role,depth,params_total,flops,images,column,cfg,name,frechet,spatial_frechet,inception_score,kid,precision,"
      "recall,loss_mean,err_mean\n";
  for (const auto& [run, of_run] : scores.runs)
    for (const auto& [column, s] : columns_of(of_run))
      text += fmt::format("{},{},{},{:.10g},{:.10g},{:.10g},{},{:g},{},{},{},{},{},{},{},{},{}\n", run->id, run->role,
                          run->depth, run->params_total, run->final.flops, run->final.images, column, s->cfg,
                          of_run.frechet_name, cell(s->frechet), cell(s->spatial_frechet), cell(s->inception_score),
                          cell(s->kernel), cell(s->precision), cell(s->recall), cell(run->final.loss_mean),
                          cell(run->final.err_mean));
  base::write_file_atomic(out / "scores.csv", text);
}

ordered_json scores_json(const ScoreTable& scores) {
  const records::RunScores& first = scores.first();
  ordered_json json{{"frechet_name", first.frechet_name},
                    {"network", first.network},
                    {"network_identity", first.network_identity},
                    {"reference", first.reference},
                    {"reference_fingerprint", first.reference_fingerprint},
                    {"reference_images", first.reference_images},
                    {"images", first.images},
                    {"settings", first.settings}};
  json["runs"] = ordered_json::array();
  for (const auto& [run, of_run] : scores.runs) {
    ordered_json entry{{"id", run->id}, {"flops", run->final.flops}};
    for (const auto& [column, s] : columns_of(of_run)) entry[column] = records::score_json(*s);
    json["runs"].push_back(std::move(entry));
  }
  json["left_out"] = scores.left_out;
  return json;
}

std::string scores_html(const ScoreTable& scores, const std::string& figure) {
  const records::RunScores& first = scores.first();
  const std::string name = escape(first.frechet_name);
  std::string text = fmt::format(
      "<h2>Samples against compute</h2>\n<p>{} samples of each run against {} <code>{}</code>, through {} "
      "(<code>{}</code>): {} at guidance {:g}{}. Lower is better.</p>\n",
      first.images,
      first.reference_images > 0 ? fmt::format("{} images of", first.reference_images) : "the statistics of",
      escape(first.reference), escape(first.network),
      first.network_identity.substr(0, 16), name, first.protocol.cfg,
      scores.has_grid() ? fmt::format(", and at the best guidance of {}, which was chosen on other seeds",
                                      [&] {
                                        std::string list;
                                        for (const records::GridScore& each : first.grid)
                                          list += fmt::format("{}{:g}", list.empty() ? "" : ", ", each.cfg);
                                        return list;
                                      }())
                        : "");
  text += figure;
  const bool classes = scores.has_classes();
  const auto heads = [&](const std::string& where) {
    return fmt::format("<th>{} {}</th><th>s{}</th>{}<th>precision</th><th>recall</th>", name, where, name,
                       classes ? "<th>IS</th>" : "");
  };
  text +=
      "<div class=\"scroll\"><table class=\"sortable\"><thead><tr><th class=\"text\">run</th><th>depth</th><th>FLOPs</th><th>loss</th>" +
      heads(fmt::format("at {:g}", first.protocol.cfg)) +
      (scores.has_grid() ? "<th>best guidance</th>" + heads("there") : "") + "</tr></thead><tbody>\n";
  const auto cells = [&](const Score& s) {
    const auto one = [](const std::optional<double>& value) {
      return fmt::format("<td>{}</td>", value ? digits(*value) : std::string("–"));
    };
    return one(s.frechet) + one(s.spatial_frechet) + (classes ? one(s.inception_score) : "") + one(s.precision) +
           one(s.recall);
  };
  for (const auto& [run, of_run] : scores.runs) {
    text += fmt::format("<tr><td class=\"text\"><code>{}</code></td><td>{}</td>{}<td>{:.4f}</td>{}",
                        escape(run->id), run->depth, cell_by(run->final.flops, scientific(run->final.flops)), run->final.loss_mean,
                        cells(of_run.protocol));
    if (of_run.best) text += fmt::format("<td>{:g}</td>{}", of_run.best->cfg, cells(*of_run.best));
    text += "</tr>\n";
  }
  text += "</tbody></table></div>\n";
  text += fmt::format(
      "<p>Such a distance is too large by about a constant over the number of images: compare it at {} samples against "
      "this reference alone{}.</p>\n",
      first.images,
      first.frechet_name == "FID" ? "" : ", and with no published FID, which is of another network");
  if (const std::string runs = best_at_an_edge(scores); !runs.empty())
    text += fmt::format("<p>The best guidance is an edge of the grid for {}: a wider grid may have a better one.</p>\n",
                        runs);
  std::map<std::string, std::string> left_out;  // by reason
  for (const LeftOut& run : scores.left_out) append(left_out[run.reason], run.id);
  for (const auto& [reason, runs] : left_out)
    text += fmt::format("<p>Not in it: {}, {}.</p>\n", runs, escape(reason));
  return text;
}

}  // namespace varscale::analysis
