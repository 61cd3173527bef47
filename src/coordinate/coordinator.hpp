// Hands groups of ranks to the runs of a sweep: a thread of the first rank, which trains like the others.
//
//   Coordinator coordinator(sweep, ledger, world.post(), world.size(), options);   // starts its thread
//   ExitCode code = Worker(sweep, world, stop, quiet).work();                      // on every rank, until told to end
//   coordinator.finish();                                                          // throws what the thread met
//
// Order    A rank that says it is idle gets an order or waits. A run's group is free when all its ranks have said
//          so. Runs come up when their trunk has their checkpoint, no other job has them, and the placement has
//          ranks for them. In the end every rank gets the same exit code.
// Disk     No rank waits for it between two runs: states are written, and where runs are short the claims of the next
//          ones taken, while the ranks train (run_book.hpp).
// Failures A run that fails leaves its ranks to the others, which never pause. What the coordinator itself meets
//          (the sweep folder cannot be written) stops all runs in good order first.
// Switches Files, seen within seconds: `stop` and `save` in the sweep folder are for all its runs in training, and are
//          removed; `save` in a run's folder too; `stop` there stays, and the run does not start while it does.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/error.hpp"
#include "base/progress.hpp"
#include "comm/communicator.hpp"
#include "comm/post.hpp"
#include "coordinate/letters.hpp"
#include "coordinate/run_book.hpp"
#include "sweep/ledger.hpp"
#include "sweep/placement.hpp"

namespace varscale::coordinate {

struct CoordinatorOptions {
  sweep::PlacementOptions placement;
  std::vector<std::vector<sweep::Speed>> speeds;  // by run of the sweep
  std::vector<double> step_flops;                 // by run: of one update, for the progress line
  std::set<std::string> left_out;                 // runs that this launch does not train
  std::optional<double> time_limit_s;             // of the launch; stops before it, by what a checkpoint takes
  bool quiet = false;                             // no lines about runs that start and end
};

class Coordinator {
 public:
  Coordinator(const sweep::Sweep& sweep, const sweep::Ledger& ledger, std::shared_ptr<comm::Post> post, int ranks,
              CoordinatorOptions options);
  ~Coordinator();
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  void finish();  // joins the thread

 private:
  using Clock = std::chrono::steady_clock;
  struct Group {
    int64_t run = 0;
    std::vector<int> ranks;
    size_t idle = 0;     // ranks that have come back
    bool asked = false;  // to give its ranks back
    int64_t step = 0;
    std::optional<Report> ended;
    Clock::time_point since;
  };

  void work();
  void loop();
  void read(const comm::Letter& letter);
  void came_back(const Group& group);
  void settle();
  void say_end(int64_t run, const Report& report);
  void look_around();
  void obey_switches();
  void find_runs();
  bool is_switched_off(const std::string& id) const;
  void act();
  void start(const sweep::Start& start);
  void ask_back(int64_t number, const Group& group);
  void ask_all_back();
  void stop(const std::string& why);
  bool finished();
  base::ExitCode exit_code();
  void say(const std::string& sentence);
  void open_progress();
  void count_steps(const Group& group, int64_t step);
  bool several_at_once() const { return ranks_ > 1 && !options_.placement.whole; }  // else runs have progress lines
  void order(int rank, const Order& order) { post_->send(rank, kWorkerBox, order.text()); }
  const std::string& id_of(int64_t run) const { return sweep_.runs[static_cast<size_t>(run)].id; }

  const sweep::Sweep& sweep_;
  const sweep::Ledger& ledger_;
  std::shared_ptr<comm::Post> post_;
  const int ranks_;
  CoordinatorOptions options_;
  sweep::Placement placement_;
  RunBook book_;
  std::map<int64_t, Group> groups_;  // by number
  std::set<int64_t> placed_;         // runs that the placement knows
  std::set<std::string> tried_;      // not again in this launch
  std::set<int> came_;        // ranks that have once said that they are idle
  bool stopping_ = false, stopped_ = false, users_fault_ = false;
  double longest_save_s_ = 0;
  double in_runs_s_ = 0;  // rank-seconds
  double last_run_s_ = 0;  // what the run took that ended last
  std::optional<Clock::time_point> last_end_;
  std::optional<base::Progress> progress_;  // of the whole sweep, in GFLOP
  std::map<int64_t, int64_t> counted_;      // by run: updates that are in it
  double uncounted_gflop_ = 0;              // less than one
  const Clock::time_point begin_ = Clock::now();
  Clock::time_point looked_ = begin_ - std::chrono::hours(1);
  std::exception_ptr failure_;
  std::atomic<bool> abandoned_ = false;
  std::thread thread_;
};

}  // namespace varscale::coordinate
