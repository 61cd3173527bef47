// Who may train a run: claims, by which several jobs share the runs of a sweep folder.
//
//   Claims claims(output, {.expiry_s = 120});                     // the first rank of a launch
//   if (std::optional<Claim> claim = claims.take(id)) {           // nobody else has it now
//     train_in(claim->attempt().folder, [&] { claim->require_held(); });  // before each publish
//   }                                                             // released
//
// Claims   runs/<id>/claims/claim-<n> is made once, by one job, and stays; claim-<n>.released says that its
//          holder has left in good order. The highest n holds. A run may be taken with claim n + 1 when claim
//          n was released or its holder is dead (sweep/job.hpp).
// Fence    Epoch n writes below attempts/<id>.<n>-<nonce>, a link to runs/<id>. Who takes the run removes the links of
//          the epochs before: a former holder that wakes up finds its paths gone, whatever it was about to
//          write, rename or remove. What it had not yet put in place is removed, and run.h5, which it may
//          have open, replaced by a copy. Whoever wakes in the middle of taking finds a higher claim, or has
//          its link removed by the other; a crash between any two steps leaves what the next taker removes.
// Check    Before each publish the holder looks for a higher claim; so it learns why, and loses nothing of
//          another's.
// Errors   ClaimLost; UserError: a folder that cannot be written, a claim that cannot be read as one.
// Network  Other hosts see new names when their caches expire: keep the expiry above that time (NFS: acdirmax,
//          60 s by default).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "sweep/job.hpp"

namespace varscale::sweep {

// Another job has the run now, or its folder was moved away.
class ClaimLost : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One epoch of a run: a value that the holder may send to other ranks of its job.
struct Attempt {
  std::filesystem::path run;     // runs/<id>
  std::filesystem::path folder;  // where this epoch writes
  int64_t epoch = 0;
  std::string job;  // its nonce

  bool held() const;          // also false where the claims cannot be read
  void require_held() const;  // ClaimLost, with who has it
  // A sentence with the run's folder in place of this epoch's, which goes.
  std::string plain(std::string sentence) const;

  std::string text() const;  // JSON, and back
  static Attempt parse(const std::string& text);
};

class Claim {
 public:
  explicit Claim(Attempt attempt) : attempt_(std::move(attempt)) {}
  Claim(Claim&& other) noexcept : attempt_(std::exchange(other.attempt_, std::nullopt)) {}
  Claim& operator=(Claim&&) = delete;
  ~Claim();  // releases; what then fails is left to the next taker

  const Attempt& attempt() const { return *attempt_; }
  bool held() const { return attempt_ && attempt_->held(); }
  void require_held() const { attempt_->require_held(); }
  void release();  // again: no effect

 private:
  std::optional<Attempt> attempt_;
};

struct Holder {
  Job job;
  Life life = Life::kAlive;  // never kDead
};

struct JobOptions {
  double expiry_s = 120;  // a beat that stands still for so long is a death
  Watch::Clock clock = {};
  // For tests: called after each step of take() with its name.
  std::function<void(std::string_view step)> after = {};
};

// The claims of one sweep folder, as one job takes and sees them. Any number at a time; one thread.
class Claims {
 public:
  Claims(std::filesystem::path output, JobOptions options);

  const Job& job() const noexcept { return me_; }
  // Who has the run; nothing: it may be taken.
  std::optional<Holder> holder(const std::string& id);
  // Nothing: another job has it, or was faster.
  std::optional<Claim> take(const std::string& id);
  std::string take_failure() { return heartbeat_.take_failure(); }  // of the beat

 private:
  std::filesystem::path run_folder(const std::string& id) const { return output_ / "runs" / id; }
  void remove_links(const Attempt& attempt, const std::string& id) const;

  std::filesystem::path output_;
  JobOptions options_;
  Job me_;
  Heartbeat heartbeat_;
  Watch watch_;
};

}  // namespace varscale::sweep
