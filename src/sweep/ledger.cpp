#include "sweep/ledger.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/clock.hpp"
#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/machine.hpp"
#include "sweep/branches.hpp"

namespace varscale::sweep {

namespace fs = std::filesystem;
using base::UserError;
using nlohmann::ordered_json;

namespace {

constexpr RunState kStates[] = {RunState::kPlanned, RunState::kRunning, RunState::kDone,
                                RunState::kFailed, RunState::kStopped};

ordered_json read_json(const fs::path& path) {
  try {
    return base::parse_json(base::read_file(path));
  } catch (const ordered_json::exception& error) {
    throw UserError("{}: not readable as JSON ({}); remove it to start afresh", path.string(),
                    error.what());
  }
}

bool is_there(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

void refuse_other_name(const Sweep& sweep) {
  const auto owner = claimed_by(sweep.output);
  if (owner && *owner != sweep.name)
    throw UserError(
        "{}: this folder belongs to sweep {}, not {}; give another output:, or the old name",
        sweep.output.string(), *owner, sweep.name);
}

// Whether the run is still to be trained.
bool is_open(const RunStatus& status) {
  if (status.state == RunState::kDone) return false;
  return status.state != RunState::kFailed || status.failures < kMostFailures;
}

// Nested maps of scalars as YAML, which base::Document reads back.
void append_yaml(const ordered_json& json, int indent, std::string& text) {
  for (const auto& [key, value] : json.items()) {
    text += std::string(static_cast<size_t>(indent), ' ') + key + ":";
    if (value.is_object()) {
      text += "\n";
      append_yaml(value, indent + 2, text);
    } else {
      text += " " + base::json_text(value) + "\n";
    }
  }
}

std::string config_yaml(const SweepRun& run) {
  std::string text = "# Every setting of this run as it is trained, derived values filled in.\n";
  ordered_json head;
  head["id"] = run.id;
  head["identity"] = identity_hash(run.config, run.tokens);
  append_yaml(head, 0, text);
  append_yaml(base::dump_config(run.config), 0, text);
  return text;
}

}  // namespace

std::optional<std::string> claimed_by(const fs::path& folder) {
  const fs::path plan = folder / "plan.json";
  if (!is_there(plan)) return std::nullopt;
  const ordered_json json = read_json(plan);
  if (!json.is_object() || !json.contains("sweep") || !json["sweep"].is_string())
    throw UserError("{}: not a plan of a sweep; remove it or give another output:", plan.string());
  return json["sweep"].get<std::string>();
}

std::string_view word(RunState state) noexcept {
  switch (state) {
    case RunState::kPlanned:
      return "planned";
    case RunState::kRunning:
      return "running";
    case RunState::kDone:
      return "done";
    case RunState::kFailed:
      return "failed";
    case RunState::kStopped:
      return "stopped";
  }
  return "planned";
}

Ledger Ledger::open(const Sweep& sweep, const Plan& plan, JobOptions options) {
  refuse_other_name(sweep);
  base::require_writable_folder(sweep.output / "runs");
  const std::string text = base::json_text(plan_json(plan), 2) + "\n";
  const fs::path path = sweep.output / "plan.json";
  // Of two sweeps that come for one new folder at once, one makes the file.
  if (!base::write_file_once(path, text)) {
    refuse_other_name(sweep);
    base::write_file_atomic(path, text);
  }
  base::write_file_atomic(sweep.output / "sweep.yaml", sweep.text);
  Ledger ledger(sweep.output);
  ledger.claims_ = std::make_unique<Claims>(sweep.output, std::move(options));
  return ledger;
}

Ledger Ledger::look(const Sweep& sweep) {
  refuse_other_name(sweep);
  return Ledger(sweep.output);
}

Claims& Ledger::claims() const {
  VARSCALE_CHECK(claims_ != nullptr, "{}: the ledger only looks", folder_.string());
  return *claims_;
}

std::optional<Claim> Ledger::take(const SweepRun& run) const {
  std::optional<Claim> claim = claims().take(run.id);
  // Another job may have finished it between the look and the claim.
  if (claim && !is_open(status(run.id))) return std::nullopt;
  return claim;
}

std::optional<Holder> Ledger::holder(const std::string& id) const { return claims().holder(id); }
std::string Ledger::take_job_failure() const { return claims().take_failure(); }

RunStatus Ledger::status(const std::string& id) const {
  const fs::path path = run_folder(id) / "status.json";
  RunStatus status;
  if (!is_there(path)) return status;
  const ordered_json json = read_json(path);
  try {
    const auto state = json.at("state").get<std::string>();
    const auto found = std::ranges::find(kStates, state, [](RunState each) { return word(each); });
    if (found == std::end(kStates)) throw UserError("{}: unknown state {}", path.string(), state);
    status.state = *found;
    status.step = json.at("step").get<int64_t>();
    status.steps = json.at("steps").get<int64_t>();
    status.failures = json.value("failures", int64_t{0});
    status.reason = json.value("reason", "");
    status.host = json.value("host", "");
    if (json.contains("loss")) status.loss = json["loss"].get<double>();
    if (json.contains("left_s")) status.left_s = json["left_s"].get<double>();
    status.updated = json.value("updated", "");
  } catch (const ordered_json::exception& error) {
    throw UserError("{}: not a status of a run ({})", path.string(), error.what());
  }
  return status;
}

// Below the attempt's own path, which is gone once another job has the run.
void Ledger::write_status(const Attempt& attempt, const RunStatus& status) const {
  ordered_json json;
  json["state"] = word(status.state);
  json["step"] = status.step;
  json["steps"] = status.steps;
  json["failures"] = status.failures;
  json["reason"] = status.reason;
  json["host"] = status.host;
  if (status.loss) json["loss"] = *status.loss;
  if (status.left_s) json["left_s"] = *status.left_s;
  json["updated"] = base::utc_now();
  base::write_file_atomic(attempt.folder / "status.json", base::json_text(json, 2) + "\n");
}

std::vector<std::string> Ledger::run_ids() const {
  std::vector<std::string> ids;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_ / "runs", error))
    if (entry.is_directory() && is_there(entry.path() / "status.json"))
      ids.push_back(entry.path().filename().string());
  std::ranges::sort(ids);
  return ids;
}

void Ledger::prepare(const SweepRun& run, const Attempt& attempt) const {
  const fs::path config = run_folder(run.id) / "config.yaml";
  if (is_there(config)) {
    base::Faults faults;
    const auto document = base::Document::load(config);
    const std::string identity = document.root().child("identity").as_string(faults, "");
    if (identity != identity_hash(run.config, run.tokens))
      throw UserError(
          "{}: this run was made with other settings than the sweep file gives it now; "
          "move its folder away",
          config.string());
  } else {
    base::write_file_atomic(attempt.folder / "config.yaml", config_yaml(run));
  }
}

void Ledger::start(const SweepRun& run, const Attempt& attempt) const {
  RunStatus status = this->status(run.id);
  status.state = RunState::kRunning;
  status.steps = steps_of(run.config);
  status.host = base::host_name();
  write_status(attempt, status);
}

void Ledger::note_step(const SweepRun& run, const Attempt& attempt, int64_t step, double loss,
                       double left_s) const {
  RunStatus status = this->status(run.id);
  status.step = step;
  // JSON has no numbers that are not finite.
  status.loss = std::isfinite(loss) ? std::optional(loss) : std::nullopt;
  status.left_s = std::isfinite(left_s) ? std::optional(left_s) : std::nullopt;
  write_status(attempt, status);
}

void Ledger::finish(const SweepRun& run, const Attempt& attempt) const {
  RunStatus status = this->status(run.id);
  status.state = RunState::kDone;
  status.step = status.steps = steps_of(run.config);
  status.reason.clear();
  status.loss = status.left_s = std::nullopt;
  write_status(attempt, status);
}

void Ledger::stop(const SweepRun& run, const Attempt& attempt, int64_t step) const {
  RunStatus status = this->status(run.id);
  status.state = RunState::kStopped;
  status.step = step;
  write_status(attempt, status);
}

void Ledger::fail(const SweepRun& run, const Attempt& attempt, const std::string& reason) const {
  RunStatus status = this->status(run.id);
  status.state = RunState::kFailed;
  ++status.failures;
  status.reason = reason;
  write_status(attempt, status);
}

bool Ledger::forgive(const SweepRun& run) const {
  const auto too_often = [&] {
    const RunStatus status = this->status(run.id);
    return status.state == RunState::kFailed && status.failures >= kMostFailures;
  };
  if (!too_often()) return false;
  const std::optional<Claim> claim = claims().take(run.id);
  if (!claim || !too_often()) return false;  // another job sees to it
  RunStatus status = this->status(run.id);
  status.failures = 0;
  write_status(claim->attempt(), status);
  return true;
}

bool may_start(const SweepRun& run, const Ledger& ledger) {
  return is_open(ledger.status(run.id)) && !ledger.holder(run.id) && waiting_words(run, ledger).empty();
}

std::vector<HeldRun> held_elsewhere(const Sweep& sweep, const Ledger& ledger,
                                    const std::set<std::string>& except) {
  std::vector<HeldRun> held;
  for (const SweepRun& run : sweep.runs) {
    if (except.contains(run.id) || ledger.status(run.id).state == RunState::kDone) continue;
    const auto holder = ledger.holder(run.id);
    if (holder && holder->job.nonce != ledger.job().nonce) held.push_back({run.id, *holder});
  }
  return held;
}

}  // namespace varscale::sweep
