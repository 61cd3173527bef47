// The folder of a sweep: what was planned, what has run, what is left.
//
//   Ledger ledger = Ledger::claim(sweep, plan);            // the first rank alone
//   while (const auto next = next_run(sweep, ledger, tried)) { ledger.start(run, steps); ... }
//   fmt::print("{}", summary_table(summarise(sweep, ledger)));
//
// Layout   <output>/plan.json, sweep.yaml (a copy of the user's file), runs/<id>/{config.yaml,
//          status.json} and what the trainer writes there: run.h5, checkpoints/.
// Order    status.json is replaced as a whole, so a reader sees one state or the next. A run that
//          was killed stays `running` there; the next launch resumes it.
// Errors   UserError: the folder is not writable, belongs to a sweep of another name, or another
//          launch works on it now; a run folder of other settings under the same id; a file of ours
//          that is not readable as such.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sweep/health.hpp"
#include "sweep/plan.hpp"
#include "sweep/spec.hpp"

namespace varscale::sweep {

// The name of the sweep whose folder this is; nothing where none has claimed it.
std::optional<std::string> claimed_by(const std::filesystem::path& folder);

enum class RunState { kPlanned, kRunning, kDone, kFailed, kStopped };
std::string_view word(RunState state) noexcept;

struct RunStatus {
  RunState state = RunState::kPlanned;
  int64_t step = 0, steps = 0;
  int64_t failures = 0;  // so often it has ended in an error
  std::string reason;    // of the last failure
  std::string host;      // of the first rank
  std::optional<double> loss, left_s;  // of a step while it runs: training loss, seconds to the end
  std::string updated;   // UTC; set by write_status
};

// A failed run is tried again at the next launch, but not for ever.
inline constexpr int64_t kMostFailures = 3;

class Ledger {
 public:
  // Creates or takes the folder; holds its lock while the object lives.
  static Ledger claim(const Sweep& sweep, const Plan& plan);
  // Looks only: --plan and --status, also where nothing exists yet. UserError for another's folder.
  static Ledger look(const Sweep& sweep);

  Ledger(Ledger&& other) noexcept;
  Ledger& operator=(Ledger&&) = delete;
  ~Ledger();

  std::filesystem::path run_folder(const std::string& id) const { return folder_ / "runs" / id; }
  const std::filesystem::path& folder() const noexcept { return folder_; }
  RunStatus status(const std::string& id) const;  // kPlanned where there is none
  void write_status(const std::string& id, RunStatus status) const;
  std::vector<std::string> run_ids() const;  // folders under runs/, sorted

  // The life of one run. start() makes the folder and config.yaml, or checks that they are of this
  // run.
  void start(const SweepRun& run) const;
  void note_step(const SweepRun& run, int64_t step, double loss, double left_s) const;
  void finish(const SweepRun& run) const;
  void stop(const SweepRun& run, int64_t step) const;
  void fail(const SweepRun& run, const std::string& reason) const;
  // A run that has failed too often is tried again; true where it had.
  bool forgive(const SweepRun& run) const;

 private:
  explicit Ledger(std::filesystem::path folder) : folder_(std::move(folder)) {}
  std::filesystem::path folder_;
  int lock_ = -1;
};

// The first run of the file that is not done, not in `tried` and has not failed too often.
std::optional<size_t> next_run(const Sweep& sweep, const Ledger& ledger,
                               const std::set<std::string>& tried);

// Rates of this sweep's finished runs, per rank (the fact `ranks` of run.h5; 1 where it is absent).
std::vector<MeasuredRate> measured_rates(const Sweep& sweep, const Ledger& ledger);

struct SummaryRow {
  std::string id, role, state;  // "orphan": in the folder, but no longer in the sweep file
  std::string reason;
  std::optional<int64_t> depth, parameters, images, step, steps;
  std::optional<uint64_t> seed;
  std::optional<double> flops;  // training FLOPs of the whole budget
  std::optional<double> loss_mean, loss_tail, err_mean, err_tail;  // the last validation
  std::optional<Health> health;  // where there are rows
  // Of a run that is being trained, or was when its launch ended.
  std::optional<double> training_loss, left_s;
  std::string host, updated;
};

// Runs of the file in its order, then orphans. Losses and health of a run in training are of its newest checkpoint.
std::vector<SummaryRow> summarise(const Sweep& sweep, const Ledger& ledger);
std::string summary_table(const std::string& name, const std::vector<SummaryRow>& rows);
nlohmann::ordered_json summary_json(const std::string& name, const std::vector<SummaryRow>& rows);

}  // namespace varscale::sweep
