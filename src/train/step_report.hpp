// What the ranks tell each other once a step: whether to stop or save, and how long the step took.
//
//   const GroupStep group = exchange(world, {.stop = stop.requested(), .step_s = 0.61, ...});
//
// One small collective a step carries both.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "records/run_file.hpp"
#include "scaling/layout.hpp"

namespace varscale::train {

// Of one rank. Times are of the last settled step.
struct RankStep {
  bool stop = false;      // wishes to stop
  bool save_due = false;  // the first rank's clock decides
  bool writing = false;   // still writes its part of a checkpoint
  double step_s = 0, data_wait_s = 0, comm_wait_s = 0;
  int64_t memory_bytes = 0;
};

// Of all ranks.
struct GroupStep {
  bool stop = false, save = false, writing = false;
  double step_s = 0, data_wait_s = 0, comm_wait_s = 0;  // the longest of any rank
  double busy_min_s = 0, busy_max_s = 0;                // the step less waiting for other ranks
  int64_t slowest_rank = 0;                             // who had busy_max_s
  int64_t memory_bytes = 0;
};

// Collective.
GroupStep exchange(comm::Communicator& world, const RankStep& mine);

// What the devices of the group could do.
struct Hardware {
  std::vector<std::string> hosts;  // by rank
  std::string device;              // the first rank's
  double peak_flops = 0;           // of all ranks together in the run's precision; 0: not known
};

// Collective.
Hardware hardware_of(comm::Communicator& world, at::Device device, const std::string& precision);

// What a mode of parallel training has to fit: the ranks, those of a node, the memory of a rank (the
// device's, or an equal share of a node's, which host_ranks share; 0: those of this group). The same on all ranks;
// collective.
scaling::Machine machine_of(comm::Communicator& world, at::Device device, const Hardware& hardware,
                            int64_t host_ranks);

// Fills in the columns that come from times. flops and tokens: of one step.
void add_rates(records::StepRow& row, const GroupStep& group, const Hardware& hardware,
               double flops, double tokens);

// For the progress line: "loss 4.3214, 12.2 k tokens/s, 0.08 TFLOP/s, ...".
std::string words(const records::StepRow& row, const Hardware& hardware);

}  // namespace varscale::train
