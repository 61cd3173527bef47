// What the runs of a sweep folder have measured, for other programs: rows, sweep.h5, CSV.
//
//   const auto tables = rows_of(ledger, id);        // also of a run in training
//   write_sweep_file(sweep, ledger);                // <output>/sweep.h5
//   export_csv(sweep, ledger, "tables");            // tables/summary.csv, tables/<id>_steps.csv, ...
//
// Errors   UserError: the folder cannot be written, a status.json is none. SystemError: I/O.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "records/run_file.hpp"
#include "sweep/ledger.hpp"

namespace varscale::sweep {

// The rows of a run: its run.h5, or the newest checkpoint's copy while another process writes that file, or
// where a kill has damaged it. Nothing where there are none yet.
std::optional<records::RunTables> rows_of(const Ledger& ledger, const std::string& id);

void write_sweep_file(const Sweep& sweep, const Ledger& ledger);

// summary.csv, and <id>_steps.csv, <id>_eval.csv and <id>_scales.csv of every run that has rows; each complete
// or absent. Returns how many runs have.
int64_t export_csv(const Sweep& sweep, const Ledger& ledger, const std::filesystem::path& folder);

}  // namespace varscale::sweep
