// Jobs: launches that work on one sweep folder, and which of them are still alive.
//
//   const Job me = this_job(/*beat_s=*/20);
//   const Heartbeat heartbeat(output / "jobs", me);  // while it lives, jobs/<nonce>.json counts up
//   Watch watch(output / "jobs", me, /*expiry_s=*/120);
//   if (watch.judge(other) == Life::kDead) ...       // its runs may be taken over
//
// Dead     A job is dead when its process is gone from this very machine; when this Slurm job has been
//          requeued since; when squeue says that its Slurm job has ended or waits; and when its beat has
//          stood still for the expiry, from this process's first look on and by its monotonic clock.
//          Times of two machines are never compared, nor is the time of day looked at.
// Frozen   A job that was judged dead may wake up: it is the claim's fence that keeps it from publishing
//          (sweep/claim.hpp), not this.
// Threads  A Watch belongs to one thread. The Heartbeat's own thread does file work alone.
#pragma once

#include <sys/types.h>

#include <condition_variable>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace varscale::sweep {

// One launch, as its file and its claims have it.
struct Job {
  std::string nonce;        // 16 hex digits; no two launches have the same
  std::string host;         // of the first rank, as the following are
  std::string boot;         // changes when the machine starts
  std::string pid_space;    // containers count their processes apart
  int64_t pid = 0;          // of the first rank
  int64_t pid_start = 0;    // clock ticks from boot to its start: tells a reused number
  std::string slurm_job;    // empty: not in Slurm
  std::string slurm_cluster;
  int64_t slurm_restart = 0;  // how often the job had been requeued
  double beat_s = 0;          // between two beats

  std::string words() const;  // "job 1f3a... (process 123 on n1, Slurm job 45)"
};

Job this_job(double beat_s);
std::string job_text(const Job& job);  // JSON
// `where` is for the UserError of a text that is no job.
Job parse_job(std::string_view text, const std::filesystem::path& where);

class Heartbeat {
 public:
  // Writes the first beat; UserError if that cannot be done.
  Heartbeat(const std::filesystem::path& folder, const Job& job);
  ~Heartbeat();  // ends the thread and removes the file
  Heartbeat(const Heartbeat&) = delete;
  Heartbeat& operator=(const Heartbeat&) = delete;

  // Why a beat could not be written, once; empty: all have been, or it was said.
  std::string take_failure();

 private:
  void beat();
  void run();

  std::filesystem::path file_;
  Job job_;
  int64_t count_ = 0;
  std::mutex mutex_;  // guards the following
  std::condition_variable wake_;
  bool stop_ = false;
  std::string failure_;
  std::thread thread_;
};

// kUnknown: nothing speaks for its death, but it has not been seen to move yet.
enum class Life { kDead, kUnknown, kAlive };

class Watch {
 public:
  using Clock = std::function<double()>;  // seconds; never goes back

  // A beat must stand still for expiry_s, and for three beats of the job's own.
  Watch(std::filesystem::path folder, Job me, double expiry_s, Clock clock = {});
  Life judge(const Job& job);

 private:
  struct Seen {
    std::string beat;
    double since = 0;
    bool moved = false;
  };
  struct Answer {
    bool ended = false;
    double at = 0;
  };
  bool ended_in_slurm(const Job& job);

  std::filesystem::path folder_;
  Job me_;
  double expiry_s_;
  Clock clock_;
  std::map<std::string, Seen> seen_;       // by nonce
  std::map<std::string, Answer> answers_;  // of squeue, by job and cluster
};

}  // namespace varscale::sweep
