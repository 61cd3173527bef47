#include "sweep/gather.hpp"

#include <fmt/format.h>

#include <ranges>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/checkpoint_manifest.hpp"
#include "records/checkpoint_place.hpp"
#include "records/sweep_file.hpp"

namespace varscale::sweep {

namespace fs = std::filesystem;

namespace {

std::optional<records::RunTables> try_read(const fs::path& path) {
  try {
    return records::read_run(path);
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

std::vector<records::SweepFileRow> gather(const Sweep& sweep, const Ledger& ledger) {
  constexpr double kUnknown = records::SweepFileRow::kUnknown;
  std::vector<records::SweepFileRow> rows;
  for (const SummaryRow& row : summarise(sweep, ledger))
    rows.push_back({.id = row.id,
                    .role = row.role,
                    .state = row.state,
                    .depth = row.depth.value_or(-1),
                    .seed = row.seed ? static_cast<int64_t>(*row.seed) : -1,
                    .parameters = row.parameters.value_or(-1),
                    .flops = row.flops.value_or(kUnknown),
                    .images = row.images.value_or(-1),
                    .step = row.step.value_or(-1),
                    .steps = row.steps.value_or(-1),
                    .loss_mean = row.loss_mean.value_or(kUnknown),
                    .loss_tail = row.loss_tail.value_or(kUnknown),
                    .err_mean = row.err_mean.value_or(kUnknown),
                    .err_tail = row.err_tail.value_or(kUnknown)});
  return rows;
}

}  // namespace

std::optional<records::RunTables> rows_of(const Ledger& ledger, const std::string& id) {
  const fs::path run = ledger.run_folder(id) / "run.h5";
  const RunState state = ledger.status(id).state;
  if (state == RunState::kPlanned) return std::nullopt;
  // A run that is said to be in training may be written just now: a reader without locks would see half of it.
  if (state != RunState::kRunning)
    if (auto tables = try_read(run)) return tables;
  const fs::path checkpoints = ledger.run_folder(id) / records::kCheckpoints;
  for (const int64_t step : records::checkpoint_steps(checkpoints) | std::views::reverse)
    if (auto tables = try_read(records::checkpoint_place(checkpoints, step) / records::kCheckpointRows)) return tables;
  return std::nullopt;
}

void write_sweep_file(const Sweep& sweep, const Ledger& ledger) {
  records::write_sweep_file(ledger.folder() / "sweep.h5", gather(sweep, ledger));
}

int64_t export_csv(const Sweep& sweep, const Ledger& ledger, const fs::path& folder) {
  base::require_writable_folder(folder);
  const auto integer = [](int64_t value) { return value < 0 ? "" : fmt::format("{}", value); };
  const auto real = [](double value) { return value == value ? fmt::format("{:.17g}", value) : ""; };
  std::string text =
      "id,role,state,depth,seed,parameters,flops,images,step,steps,loss_mean,loss_tail,err_mean,err_tail\n";
  int64_t with_rows = 0;
  for (const records::SweepFileRow& row : gather(sweep, ledger)) {
    text += fmt::format("{},{},{},{},{},{},{},{},{},{},{},{},{},{}\n", row.id, row.role, row.state,
                        integer(row.depth), integer(row.seed), integer(row.parameters), real(row.flops),
                        integer(row.images), integer(row.step), integer(row.steps), real(row.loss_mean),
                        real(row.loss_tail), real(row.err_mean), real(row.err_tail));
    const auto tables = rows_of(ledger, row.id);
    if (!tables) continue;
    records::export_csv(*tables, folder, row.id + "_");
    ++with_rows;
  }
  base::write_file_atomic(folder / "summary.csv", text);
  return with_rows;
}

}  // namespace varscale::sweep
