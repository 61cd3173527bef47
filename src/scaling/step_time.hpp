// How long a training step takes on a group of ranks: what a placement assumes before anything is measured.
//
//   double s = step_seconds(d16, {.batch = 768, .flops_per_s = 346e12, .ranks = 64, .network = network_of("h200")});
//
// A step is the larger of compute and kernel launches, and what of the gradient sum (an all-reduce of the float32
// gradients, or the same bytes as reduce-scatter and gather) is not hidden by the backward pass. Compute is that
// of the rank with most images. The constants are assumptions about such machines, not measurements; they decide
// which widths are tried first and never what is reported.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "scaling/shape.hpp"

namespace varscale::scaling {

struct Network {
  int64_t node_ranks = 8;
  double inside_bytes_per_s = 0;   // of an all-reduce among the ranks of a node, per rank
  double between_bytes_per_s = 0;  // the same over nodes, of a whole node
  double call_s = 0;               // latency of one collective and hop
  double launch_s = 0;             // host time that one block costs a step; compute cannot be faster
  double hidden = 0;               // share of the backward pass under which communication goes unseen
  double skew = 0;                 // share of a step that the slowest rank costs the others, at each doubling
};

// GPUs: NVLink and 400 Gb/s a GPU between nodes. cpu: ranks of one machine.
Network network_of(std::string_view device);

struct StepOptions {
  int64_t batch = 1;       // of all ranks
  double flops_per_s = 0;  // of one rank alone
  int64_t ranks = 1;
  Network network;
};

double step_seconds(const VarShape& shape, const StepOptions& options);

// The numbers of ranks that are worth trying for a batch: those at which the largest share of a rank becomes
// smaller, above a node in whole nodes. Ascending, from 1 to `most`.
std::vector<int64_t> useful_widths(int64_t batch, int64_t most, int64_t node_ranks);

}  // namespace varscale::scaling
