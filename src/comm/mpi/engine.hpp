// The thread of a process that talks MPI, and everything that is asked of it. All MPI calls of the
// process are made here, one job after another.
//
// Non-blocking MPI makes no progress by itself, and a thread inside a blocking call cannot be woken.
// So jobs post non-blocking point-to-point messages and poll them: compute goes on beside, and a
// deadline or an abort ends the wait. Messages of a job that was given up stay posted on purpose, with
// their tensors; such a process never reaches MPI_Finalize.
//
// An abort asks the other ranks' engines first, so that of several that fail one says why. An engine
// answers while its rank computes; one that does not answer is not waited for long.
//
// Collectives are built here from messages between pairs: sums are then taken in rank order whatever
// the size, and a group of ranks needs no call of MPI. A group of its own has message tags of its own:
// what is under way in it as it is ended cannot be taken for anything else, and is thrown away.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "comm/call.hpp"
#include "comm/post.hpp"

namespace varscale::comm::mpi {

// The ranks of one group. `number` counts the calls handed to the engine.
struct Group {
  std::vector<int> world_ranks;  // by rank of the group
  int rank = 0;
  int64_t own = 0;  // the number of the group of its own to which it belongs; 0: the launch
  int64_t number = 0;
  int size() const { return static_cast<int>(world_ranks.size()); }
};

// Why a job has failed, and with it the process's communication or the group alone.
struct Failure {
  std::string why;
  bool group_alone = false;
  [[noreturn]] void raise() const;  // GroupEnded or CommError
};

// Done, or why not. Shared by the engine and who waits.
class Ticket {
 public:
  void finish(std::optional<Failure> failure);
  void wait();  // throws CommError

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> done_ = false;
  std::optional<Failure> failure_;
};

class Engine {
 public:
  Engine();   // MPI_Init; CommError
  ~Engine();  // MPI_Finalize, or, where the engine failed, the end of the process (exit code 1)
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  std::shared_ptr<Ticket> submit(const std::shared_ptr<Group>& group, Call call);
  void set_deadline(double seconds);
  // Ends a group of its own for all its members.
  void end_group(const Group& group, std::string_view why);
  std::optional<std::string> ended(const Group& group);
  void send_letter(int to, int box, std::string text);
  std::optional<Letter> take_letter(int box, double timeout_s);
  // Says why on stderr, unless another rank does, and ends the launch.
  [[noreturn]] void abort(std::string_view why, int exit_code) noexcept;

 private:
  struct Job {
    std::shared_ptr<Group> group;
    int64_t number;
    std::string description;
    Call call;
    std::shared_ptr<Ticket> ticket;
  };
  class Messages;  // what one step of a job has posted
  struct Abort {
    std::string why;
    int exit_code;
  };
  struct Note {  // a message that nobody waits for
    int to;
    int tag;
    std::string text;
  };
  struct EndedGroup {
    std::string why;
    bool drain = true;  // messages of it may still arrive
    std::chrono::steady_clock::time_point since = std::chrono::steady_clock::now();
  };
  enum class Turn { kNone, kAsking, kMine, kOthers };  // to say why the launch ends

  void loop();
  bool next_job(Job& job);  // false: stop
  void run(const Job& job);
  // Returns when every rank is in the same call, with the records of all ranks: kPayload bytes each,
  // the first of them `payload`.
  std::vector<std::string> meet(const Job& job, std::string_view payload);
  // Every rank's `mine`, in rank order; all of one length.
  std::vector<std::string> all_records(const Job& job, const std::string& mine);
  void all_reduce(const Job& job);
  void reduce_scatter(const Job& job);
  void all_gather(const Job& job);
  void broadcast(const Job& job);
  // This rank's row of the sum over the ranks' `rows`, each of `bytes`, into `out`.
  void reduce_row(const Job& job, const std::vector<const std::byte*>& rows,
                  const std::vector<int64_t>& row_elements, std::byte* out, at::ScalarType type);
  void answer_questions();
  void send_notes();
  void take_letters();
  void take_endings();
  void drain_ended_groups();
  void throw_if_ended(const Group& group);
  void answer_turn(int asker);
  std::string ask_the_missing(const Job& job);
  void obey_abort();  // returns if there is none
  bool is_my_turn();
  void say(std::string_view why) const;
  double deadline_s();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::atomic<int64_t> queued_ = 0;
  bool stop_ = false, started_ = false;
  std::optional<Abort> abort_;
  std::map<int64_t, EndedGroup> ended_;  // by number
  std::vector<Note> notes_;
  std::atomic<int> takers_ = 0;          // threads that wait for a letter
  std::atomic<std::chrono::steady_clock::time_point> last_letter_{};  // sent or taken
  Letterbox letters_;
  std::atomic<Turn> turn_ = Turn::kNone;
  std::optional<std::string> failure_;
  double deadline_s_ = 600;
  // Of the engine's thread alone.
  Progress newest_;
  std::vector<std::byte> scratch_;
  int rank_ = 0, size_ = 1;
  std::thread thread_;
};

}  // namespace varscale::comm::mpi
