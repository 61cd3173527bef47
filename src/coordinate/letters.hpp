// What the coordinator and the ranks write to each other, as JSON in letters (comm/post.hpp).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sweep/claim.hpp"

namespace varscale::coordinate {

enum Box { kCoordinatorBox, kWorkerBox };

// To the first rank of a group: kGiveBack and kSave. To every rank: kTrain, kEnd.
struct Order {
  enum class Kind { kTrain, kGiveBack, kSave, kEnd } kind = Kind::kEnd;
  int64_t group = 0;  // the number of the group of its own
  int64_t run = 0;    // kTrain: its place in the sweep file
  std::vector<int> ranks = {};
  std::string attempt = {};  // sweep::Attempt::text()
  int exit_code = 0;         // kEnd

  std::string text() const;
  static Order parse(const std::string& text);
};

// kIdle: from every rank, once it has nothing to do. kStop: it was signalled. kStep and kEnded: of a run in training,
// from one rank of its group. kLost is the coordinator's own finding.
struct Report {
  enum class Kind { kIdle, kStop, kStep, kEnded } kind = Kind::kIdle;
  enum class End { kDone, kStopped, kFailed, kLost } end = End::kDone;
  int64_t group = 0;
  int64_t step = 0;        // updates taken
  double steps_per_s = 0;  // kStep
  double loss = 0;         // kStep: of training; may be NaN
  double save_s = 0;       // kStep: what the newest checkpoint took
  double train_s = 0;      // kEnded: how long the rank was in the run
  std::string reason = {};   // kFailed
  bool users_fault = false;  // kFailed

  std::string text() const;
  static Report parse(const std::string& text);
};

}  // namespace varscale::coordinate
