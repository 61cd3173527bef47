// What the finished and unfinished runs of a sweep folder have measured.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.hpp"
#include "base/progress.hpp"
#include "records/run_file.hpp"
#include "scaling/count.hpp"
#include "sweep/branches.hpp"
#include "sweep/gather.hpp"
#include "sweep/ledger.hpp"
#include "sweep/text_table.hpp"

namespace varscale::sweep {

using nlohmann::ordered_json;

namespace {

template <class T>
std::optional<T> fact(const records::RunTables& tables, const std::string& name) {
  const auto found = tables.facts.find(name);
  if (found == tables.facts.end()) return std::nullopt;
  const T* value = std::get_if<T>(&found->second);
  return value ? std::optional<T>(*value) : std::nullopt;
}

void add_results(const Ledger& ledger, SummaryRow& row) {
  const auto tables = rows_of(ledger, row.id);
  if (!tables) return;
  if (!tables->eval.empty()) {
    const records::EvalRow& last = tables->eval.back();
    row.loss_mean = last.loss_mean;
    row.loss_tail = last.loss_tail;
    row.err_mean = last.err_mean;
    row.err_tail = last.err_tail;
  }
  if (!tables->steps.empty()) row.health = health_of(*tables);
  if (!row.depth) row.depth = fact<int64_t>(*tables, "depth");
  if (!row.parameters) row.parameters = fact<int64_t>(*tables, "params_total");
  if (!row.images) row.images = fact<int64_t>(*tables, "budget_images");
  if (!row.flops && row.images)
    if (const auto each = fact<double>(*tables, "flops_per_image"))
      row.flops = *each * static_cast<double>(*row.images);
  if (!row.seed)
    if (const auto seed = fact<int64_t>(*tables, "seed")) row.seed = static_cast<uint64_t>(*seed);
}

}  // namespace

std::vector<MeasuredRate> measured_rates(const Sweep& sweep, const Ledger& ledger) {
  std::vector<MeasuredRate> rates;
  for (const SweepRun& run : sweep.runs) {
    if (run.tokens.assumed() || ledger.status(run.id).state != RunState::kDone) continue;
    const auto tables = rows_of(ledger, run.id);
    if (!tables) continue;
    const double ranks = static_cast<double>(fact<int64_t>(*tables, "ranks").value_or(1));
    rates.push_back({run.config.model.depth, run.config.train.precision,
                     measured_flops_per_s(*tables) / ranks});
  }
  return rates;
}

std::vector<SummaryRow> summarise(const Sweep& sweep, const Ledger& ledger) {
  std::vector<SummaryRow> rows;
  std::set<std::string> known;
  for (const SweepRun& run : sweep.runs) {
    known.insert(run.id);
    const RunStatus status = ledger.status(run.id);
    SummaryRow row;
    row.id = run.id;
    row.role = run.config.role;
    row.state = word(status.state);
    row.reason = status.reason;
    if (row.reason.empty() && status.state != RunState::kDone) row.reason = waiting_words(run, ledger);
    row.training_loss = status.loss;
    row.left_s = status.left_s;
    row.host = status.host;
    row.updated = status.updated;
    row.depth = run.config.model.depth;
    row.seed = run.config.train.seed;
    row.parameters = scaling::count_parameters(shape_of(run.config, run.tokens)).total();
    row.images = images_seen_of(run.config);
    row.flops = scaling::training_flops(shape_of(run.config, run.tokens), static_cast<double>(*row.images));
    row.step = status.step;
    row.steps = steps_of(run.config);
    add_results(ledger, row);
    rows.push_back(std::move(row));
  }
  for (const std::string& id : ledger.run_ids()) {
    if (known.contains(id)) continue;
    const RunStatus status = ledger.status(id);
    SummaryRow row;
    row.id = id;
    row.state = "orphan";
    row.reason = fmt::format("{}; no longer in the sweep file", word(status.state));
    row.step = status.step;
    row.steps = status.steps;
    add_results(ledger, row);
    rows.push_back(std::move(row));
  }
  return rows;
}

namespace {

// What is worth saying of a run beside its figures.
std::string notes_of(const SummaryRow& row) {
  std::vector<std::string> notes;
  if (row.state == word(RunState::kRunning)) {
    if (row.training_loss) notes.push_back(fmt::format("training loss {:.4f}", *row.training_loss));
    if (row.left_s) notes.push_back(base::format_duration(*row.left_s) + " left");
    notes.push_back(fmt::format("on {}, {}", row.host, row.updated));
  }
  if (!row.reason.empty()) notes.push_back(row.reason);
  return fmt::format("{}", fmt::join(notes, "; "));
}

}  // namespace

std::string summary_table(const std::string& name, const std::vector<SummaryRow>& rows) {
  const auto number = [](const auto& value, const char* format = "{}") {
    return value ? fmt::format(fmt::runtime(format), *value) : std::string("-");
  };
  TextTable table({"id", "depth", "seed", "role", "N", "images", "val loss", "last scale",
                   "val err", "last err", "steps", "state", "health", ""});
  int64_t done = 0, in_file = 0;
  for (const SummaryRow& row : rows) {
    done += row.state == "done";
    in_file += row.state != "orphan";
    table.add({row.id, number(row.depth), number(row.seed), row.role.empty() ? "-" : row.role,
               row.parameters ? base::format_count(static_cast<double>(*row.parameters)) : "-",
               number(row.images), number(row.loss_mean, "{:.4f}"), number(row.loss_tail, "{:.4f}"),
               number(row.err_mean, "{:.4f}"), number(row.err_tail, "{:.4f}"),
               fmt::format("{}/{}", number(row.step), number(row.steps)), row.state,
               row.health ? row.health->words() : "-", notes_of(row)});
  }
  return fmt::format("sweep {}: {} of {} runs done\n\n{}", name, done, in_file, table.text());
}

ordered_json summary_json(const std::string& name, const std::vector<SummaryRow>& rows) {
  const auto value_of = [](const auto& value) {
    return value ? ordered_json(*value) : ordered_json();
  };
  ordered_json json;
  json["sweep"] = name;
  json["runs"] = ordered_json::array();
  for (const SummaryRow& row : rows) {
    ordered_json run;
    run["id"] = row.id;
    run["state"] = row.state;
    run["reason"] = row.reason;
    run["role"] = row.role;
    run["depth"] = value_of(row.depth);
    run["seed"] = value_of(row.seed);
    run["parameters"] = value_of(row.parameters);
    run["images"] = value_of(row.images);
    run["step"] = value_of(row.step);
    run["steps"] = value_of(row.steps);
    run["loss_mean"] = value_of(row.loss_mean);
    run["loss_tail"] = value_of(row.loss_tail);
    run["err_mean"] = value_of(row.err_mean);
    run["err_tail"] = value_of(row.err_tail);
    run["flops"] = value_of(row.flops);
    run["health"] = row.health ? row.health->json() : ordered_json();
    run["training_loss"] = value_of(row.training_loss);
    run["left_s"] = value_of(row.left_s);
    run["host"] = row.host;
    run["updated"] = row.updated;
    json["runs"].push_back(run);
  }
  return json;
}

}  // namespace varscale::sweep
