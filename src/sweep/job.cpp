#include "sweep/job.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/machine.hpp"

namespace varscale::sweep {

namespace fs = std::filesystem;
using base::UserError;
using nlohmann::ordered_json;

namespace {

std::string text_of_system_file(const char* path) {
  try {
    std::string text = base::read_file(path);
    while (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  } catch (const std::exception&) {
    return "";
  }
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// What /proc says of a living process.
struct Process {
  char state = '?';
  int64_t start = 0;
};

// Nothing where the process cannot be looked at.
std::optional<Process> look_at(int64_t pid) {
  const std::string stat = text_of_system_file(fmt::format("/proc/{}/stat", pid).c_str());
  const size_t name_end = stat.rfind(')');  // the name may hold anything, brackets too
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(stat.substr(name_end + 1));
  Process process;
  fields >> process.state;
  std::string skipped;
  for (int field = 4; field < 22; ++field) fields >> skipped;
  fields >> process.start;
  return fields ? std::optional(process) : std::nullopt;
}

enum class Here { kGone, kStopped, kRunning, kUnknown };

// The process of a job of this machine.
Here state_here(const Job& job) {
  if (kill(static_cast<pid_t>(job.pid), 0) != 0 && errno == ESRCH) return Here::kGone;
  const std::optional<Process> process = look_at(job.pid);
  if (!process) return Here::kUnknown;  // another user's, where these are hidden
  if (process->start != job.pid_start) return Here::kGone;  // the number has passed to another
  if (process->state == 'Z' || process->state == 'X') return Here::kGone;
  return process->state == 'T' || process->state == 't' ? Here::kStopped : Here::kRunning;
}

bool same_machine(const Job& a, const Job& b) {
  return !a.boot.empty() && a.host == b.host && a.boot == b.boot && a.pid_space == b.pid_space;
}

bool same_slurm_job(const Job& a, const Job& b) {
  return !a.slurm_job.empty() && a.slurm_job == b.slurm_job && a.slurm_cluster == b.slurm_cluster;
}

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

fs::path file_of(const fs::path& folder, const std::string& nonce) {
  return folder / (nonce + ".json");
}

// Nothing where there is none, or it cannot be read now.
std::string beat_of(const fs::path& folder, const std::string& nonce) {
  try {
    return base::read_file(file_of(folder, nonce));
  } catch (const std::exception&) {
    return "";
  }
}

bool is_word(const std::string& text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-';
  });
}

// Output and exit code of a shell command; code -1 where it could not be run.
std::pair<std::string, int> output_of(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return {"", -1};
  std::string text;
  std::array<char, 4096> buffer{};
  while (const size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
    text.append(buffer.data(), count);
  const int status = pclose(pipe);
  return {text, status >= 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1};
}

// Whether squeue says that the job has no processes: it has ended, or waits to be started (again). A Slurm
// that does not answer says nothing.
bool squeue_says_ended(const Job& job, const Job& me) {
  if (!is_word(job.slurm_job)) return false;
  // Not SIGTERM, which may be blocked here and so in what is started.
  std::string command = "timeout -s KILL 20 squeue -h -j " + job.slurm_job + " -o %T";
  if (job.slurm_cluster != me.slurm_cluster && is_word(job.slurm_cluster))
    command += " -M " + job.slurm_cluster;
  const auto [text, code] = output_of(command + " 2>&1");
  if (code != 0) return text.find("Invalid job id") != std::string::npos;
  static constexpr std::array<std::string_view, 14> kWithoutProcesses = {
      "PENDING",  "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "COMPLETED", "CANCELLED",
      "FAILED",   "TIMEOUT",  "NODE_FAIL",    "PREEMPTED",   "BOOT_FAIL",    "DEADLINE",  "OUT_OF_MEMORY"};
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.starts_with("CLUSTER:")) continue;
    if (std::ranges::find(kWithoutProcesses, line) == kWithoutProcesses.end()) return false;
  }
  return true;
}

}  // namespace

std::string Job::words() const {
  const std::string slurm = slurm_job.empty() ? "" : ", Slurm job " + slurm_job;
  return fmt::format("job {} (process {} on {}{})", nonce, pid, host, slurm);
}

Job this_job(double beat_s) {
  std::random_device random;
  Job job;
  job.nonce = fmt::format("{:08x}{:08x}", random(), random());
  job.host = base::host_name();
  job.boot = text_of_system_file("/proc/sys/kernel/random/boot_id");
  std::error_code error;
  job.pid_space = fs::read_symlink("/proc/self/ns/pid", error).string();
  job.pid = getpid();
  if (const auto process = look_at(job.pid)) job.pid_start = process->start;
  job.slurm_job = environment("SLURM_JOB_ID");
  job.slurm_cluster = environment("SLURM_CLUSTER_NAME");
  job.slurm_restart = std::atoll(environment("SLURM_RESTART_COUNT").c_str());
  job.beat_s = beat_s;
  return job;
}

namespace {

ordered_json json_of(const Job& job) {
  return {{"job", job.nonce},
          {"host", job.host},
          {"boot", job.boot},
          {"pid_space", job.pid_space},
          {"pid", job.pid},
          {"pid_start", job.pid_start},
          {"slurm_job", job.slurm_job},
          {"slurm_cluster", job.slurm_cluster},
          {"slurm_restart", job.slurm_restart},
          {"beat_s", job.beat_s}};
}

}  // namespace

std::string job_text(const Job& job) { return base::json_text(json_of(job), 2) + "\n"; }

Job parse_job(std::string_view text, const fs::path& where) {
  try {
    const ordered_json json = base::parse_json(text);
    Job job;
    json.at("job").get_to(job.nonce);
    json.at("host").get_to(job.host);
    json.at("boot").get_to(job.boot);
    json.at("pid_space").get_to(job.pid_space);
    json.at("pid").get_to(job.pid);
    json.at("pid_start").get_to(job.pid_start);
    json.at("slurm_job").get_to(job.slurm_job);
    json.at("slurm_cluster").get_to(job.slurm_cluster);
    json.at("slurm_restart").get_to(job.slurm_restart);
    json.at("beat_s").get_to(job.beat_s);
    return job;
  } catch (const ordered_json::exception& error) {
    throw UserError("{}: does not say which launch it is of ({}); remove it when no launch works there",
                    where.string(), error.what());
  }
}

Heartbeat::Heartbeat(const fs::path& folder, const Job& job)
    : file_(file_of(folder, job.nonce)), job_(job) {
  beat();
  if (!failure_.empty()) throw UserError("{}", failure_);
  thread_ = std::thread([this] { run(); });
}

Heartbeat::~Heartbeat() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
  unlink(file_.c_str());
}

std::string Heartbeat::take_failure() {
  const std::lock_guard lock(mutex_);
  return std::exchange(failure_, "");
}

void Heartbeat::run() {
  std::unique_lock lock(mutex_);
  const std::chrono::duration<double> pause(job_.beat_s);
  while (!wake_.wait_for(lock, pause, [this] { return stop_; })) {
    lock.unlock();
    beat();
    lock.lock();
  }
}

// In place, and every beat as long as the last: a reader sees the counter move, and opening a file again is
// what network file systems look afresh for. Not flushed to the disk: that can take minutes while others
// write, and after a power failure the job is dead anyway.
void Heartbeat::beat() {
  ordered_json json = json_of(job_);
  json["beat"] = fmt::format("{:012}", ++count_);
  const std::string text = base::json_text(json, 2) + "\n";
  int error = 0;
  const int descriptor = open(file_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) {
    error = errno;
  } else {
    const ssize_t written = pwrite(descriptor, text.data(), text.size(), 0);
    if (written != static_cast<ssize_t>(text.size())) error = written < 0 ? errno : ENOSPC;
    if (close(descriptor) != 0 && error == 0) error = errno;
  }
  if (error == 0) return;
  const std::lock_guard lock(mutex_);
  failure_ = fmt::format("{}: cannot be written: {}", file_.string(), std::strerror(error));
}

Watch::Watch(fs::path folder, Job me, double expiry_s, Clock clock)
    : folder_(std::move(folder)),
      me_(std::move(me)),
      expiry_s_(expiry_s),
      clock_(clock ? std::move(clock) : steady_seconds) {}

// Asked anew a few times per expiry.
bool Watch::ended_in_slurm(const Job& job) {
  const double now = clock_();
  Answer& answer = answers_.try_emplace(job.slurm_job + " " + job.slurm_cluster, Answer{false, -1}).first->second;
  if (answer.at < 0 || now - answer.at >= expiry_s_ / 6) answer = {squeue_says_ended(job, me_), now};
  return answer.ended;
}

Life Watch::judge(const Job& job) {
  if (job.nonce == me_.nonce) return Life::kAlive;
  Here here = Here::kUnknown;
  if (same_machine(job, me_)) here = state_here(job);
  if (here == Here::kGone) return Life::kDead;
  // Launches side by side in one allocation are of the same start of the job.
  if (same_slurm_job(job, me_)) {
    if (job.slurm_restart < me_.slurm_restart) return Life::kDead;
  } else if (!job.slurm_job.empty() && ended_in_slurm(job)) {
    return Life::kDead;
  }
  const std::string beat = beat_of(folder_, job.nonce);
  const double now = clock_();
  const auto [entry, first] = seen_.try_emplace(job.nonce, Seen{beat, now, false});
  Seen& seen = entry->second;
  if (!first && !beat.empty() && beat != seen.beat) seen = {beat, now, true};
  if (now - seen.since >= std::max(expiry_s_, 3 * job.beat_s)) return Life::kDead;
  return seen.moved || here == Here::kRunning ? Life::kAlive : Life::kUnknown;
}

}  // namespace varscale::sweep
