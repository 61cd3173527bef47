// The numbers of ranks that a run can have, and how fast it is estimated to be with each.
//
//   std::vector<Speed> speeds = speeds_of(run, throughput, machine_of("h200", 64));
//
// A width counts where the run's mode holds the model in the memory of that many ranks, and where a further rank
// makes the largest share of the batch smaller (scaling/step_time.hpp). Where the run fits no width, all ranks
// that it can take (machine_for) remain: the run then fails in its turn, with its reason. Errors   UserError as layout_of().
#pragma once

#include <vector>

#include "sweep/placement.hpp"
#include "sweep/plan.hpp"

namespace varscale::sweep {

std::vector<Speed> speeds_of(const SweepRun& run, const Throughput& throughput, const scaling::Machine& launch);

}  // namespace varscale::sweep
