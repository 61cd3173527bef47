// Writes checkpoints while training goes on.
//
//   Saver saver(folder, world);
//   saver.begin(state);                        // a snapshot; a thread writes this rank's file
//   ... further steps; all ranks together, each step:
//   bool busy = saver.busy();                  // false: this rank's file is safe
//   if (nobody is busy) saver.publish();       // manifest and rename: now it exists
//
// Order    begin() and publish() are collective; nothing else communicates. Never two in flight.
// Memory   The snapshot is a copy of every piece: 12 bytes a parameter that this rank owns.
// Place    The folder is made if only it is missing, but not what it lies in: that may have been taken away.
// Errors   publish() throws on every rank (comm::Agreed) what any rank met; nothing is left behind.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "comm/communicator.hpp"

namespace varscale::checkpoint {

// What one rank adds to a checkpoint.
struct State {
  Identity identity = {};
  int64_t step = 0;     // updates taken
  int64_t segment = 0;  // of the process that saved it
  std::vector<Piece> pieces = {};  // that this rank writes; over all ranks every row once
  // On the first rank: writes the rows so far as this file. Called by the writing thread, so it holds copies.
  std::function<void(const std::filesystem::path& file)> write_rows = {};
};

class Saver {
 public:
  // before_publish: called on the first rank directly before a checkpoint gets its name; if it throws, nothing
  // is published.
  Saver(std::filesystem::path folder, Keep keep, comm::Communicator& world,
        std::function<void()> before_publish = {});
  ~Saver();  // waits for the thread; an unpublished checkpoint vanishes
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  void begin(State state);
  bool in_flight() const noexcept { return flight_ != nullptr; }
  bool busy() const;
  // Waits for this rank's file first.
  void publish();
  // begin() and publish(): for a stop, an end, or little memory.
  void save(State state);

 private:
  struct Flight;
  std::filesystem::path folder_;
  Keep keep_;
  comm::Communicator& world_;
  std::function<void()> before_publish_;
  std::unique_ptr<Flight> flight_;
};

}  // namespace varscale::checkpoint
