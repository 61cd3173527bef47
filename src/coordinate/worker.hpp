// One rank's part of a launch: trains the runs that the coordinator gives to its groups, until it is told to end.
//
//   ExitCode code = Worker(sweep, world, stop, quiet).work();
//
// Failures What every rank of a group throws alike (comm::Agreed), and what one rank throws alone, ends the run: that
//          rank ends the group, its ranks say why and are idle again. What is broken beyond the run, a rank that does
//          not come, a device that no longer works, is thrown on and ends the launch.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "comm/post.hpp"
#include "coordinate/letters.hpp"
#include "coordinate/run_jobs.hpp"
#include "sweep/ledger.hpp"
#include "train/trainer.hpp"

namespace varscale::coordinate {

// For tests of faults: called on every rank of a run's group before each step with the updates taken; may throw.
using BeforeStep = std::function<void(const std::string& run_id, comm::Communicator& group, int64_t step)>;

class Worker {
 public:
  Worker(const sweep::Sweep& sweep, comm::Communicator& world, const base::StopSignals& stop, bool quiet,
         BeforeStep before_step = {});
  base::ExitCode work();

 private:
  void train(const Order& order);
  void listen(int64_t group, train::Wish& wish);
  void gather();
  void report(const Report& report) { post_->send(0, kCoordinatorBox, report.text()); }

  const sweep::Sweep& sweep_;
  comm::Communicator& world_;
  const base::StopSignals& stop_;
  const bool quiet_;
  BeforeStep before_step_;
  std::shared_ptr<comm::Post> post_;
  sweep::Ledger ledger_;
  int64_t host_ranks_ = 1;
  bool told_ = false;  // that this rank was signalled
  std::chrono::steady_clock::time_point gathered_ = std::chrono::steady_clock::now();  // sweep.h5
  double gather_s_ = 0;  // what that took
  RunJobs jobs_;
};

}  // namespace varscale::coordinate
