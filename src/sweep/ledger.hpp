// The folder of a sweep: what was planned, what has run, what is left.
//
//   Ledger ledger = Ledger::open(sweep, plan);             // the first rank alone
//   if (may_start(run, ledger)) {
//     const auto claim = ledger.take(run);                 // nothing: another job was faster
//     ledger.prepare(run, claim->attempt());
//     ledger.start(run, claim->attempt());
//     ...
//   }
//   fmt::print("{}", summary_table(summarise(sweep, ledger)));
//
// Layout   <output>/plan.json, sweep.yaml (a copy of the user's file), runs/<id>/{config.yaml,
//          status.json, claims/} and what the trainer writes there: run.h5, checkpoints/; jobs/ and
//          attempts/ (sweep/job.hpp, sweep/claim.hpp).
// Order    status.json is replaced as a whole, so a reader sees one state or the next. A run that
//          was killed stays `running` there; the next launch resumes it. Who writes of a run holds it.
// Threads  An open ledger belongs to one thread, which may hold any number of runs.
// Errors   UserError: the folder is not writable, or belongs to a sweep of another name; a run folder
//          of other settings under the same id; a file of ours that is not readable as such.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sweep/claim.hpp"
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
  std::string updated;   // UTC, of the last change
};

// A failed run is tried again at the next launch, but not for ever.
inline constexpr int64_t kMostFailures = 3;

class Ledger {
 public:
  // Creates or joins the folder; while the object lives, other jobs see this one at work.
  static Ledger open(const Sweep& sweep, const Plan& plan, JobOptions options = {});
  // Looks only: --plan and --status, also where nothing exists yet. UserError for another's folder.
  static Ledger look(const Sweep& sweep);

  std::filesystem::path run_folder(const std::string& id) const { return folder_ / "runs" / id; }
  const std::filesystem::path& folder() const noexcept { return folder_; }
  RunStatus status(const std::string& id) const;  // kPlanned where there is none
  std::vector<std::string> run_ids() const;  // folders under runs/, sorted

  // Of an open ledger. take(): nothing where another job has the run, or it is done or has failed too often by
  // now. holder(): the living job that has it, this one included.
  std::optional<Claim> take(const SweepRun& run) const;
  std::optional<Holder> holder(const std::string& id) const;
  const Job& job() const { return claims().job(); }
  // A run that has failed too often is tried again; true where it had.
  bool forgive(const SweepRun& run) const;
  std::string take_job_failure() const;  // why the others may not see this job, once; empty: they do

  // The life of one run. prepare() makes config.yaml, or checks that it is of this run. If the attempt has been
  // taken over, nothing is written and they throw.
  void prepare(const SweepRun& run, const Attempt& attempt) const;
  void start(const SweepRun& run, const Attempt& attempt) const;
  void note_step(const SweepRun& run, const Attempt& attempt, int64_t step, double loss, double left_s) const;
  void finish(const SweepRun& run, const Attempt& attempt) const;
  void stop(const SweepRun& run, const Attempt& attempt, int64_t step) const;
  void fail(const SweepRun& run, const Attempt& attempt, const std::string& reason) const;

 private:
  explicit Ledger(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void write_status(const Attempt& attempt, const RunStatus& status) const;
  Claims& claims() const;
  std::filesystem::path folder_;
  std::unique_ptr<Claims> claims_;  // of an open one
};

// Not done, not failed too often, held by no living job, and not waiting for its trunk.
bool may_start(const SweepRun& run, const Ledger& ledger);

// A run that another job has.
struct HeldRun {
  std::string id;
  Holder holder;
};
// Those of the file that are not done and not in `except`.
std::vector<HeldRun> held_elsewhere(const Sweep& sweep, const Ledger& ledger,
                                    const std::set<std::string>& except);

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
