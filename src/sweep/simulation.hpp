// What a placement makes of a sweep on a machine of so many ranks, by simulated time: the same Placement object as in
// a launch, against runs whose true speeds it does not know.
//
//   Simulation simulation{.ranks = 64, .runs = runs, .change_s = 60, .error = 0.2};
//   Makespans s = simulate(simulation, draw);
//   s.placed / s.bound;                     // 1.03
//
// Each draw multiplies the estimated speed of each run by a hidden factor, uniform in [1 - error, 1 + error]. The
// placement hears of measured speeds every `report_s`, as in a launch. Starting a run and giving its ranks back cost
// half of change_s each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sweep/placement.hpp"

namespace varscale::sweep {

struct SimulatedRun {
  double steps = 0;
  std::vector<Speed> speeds;  // estimates
};

struct Simulation {
  int64_t ranks = 1, node_ranks = 8;
  std::vector<SimulatedRun> runs = {};
  double change_s = 60, report_s = 60;
  double error = 0.2;
  uint64_t seed = 0;
};

struct Makespans {           // seconds
  double placed = 0;         // by Placement
  double one_by_one = 0;     // each on the number of ranks at which it is fastest
  double fixed_groups = 0;   // equal groups, longest run first; the best number of groups in hindsight
  double bound = 0;          // no placement ends sooner: see lower_bound()
  int64_t changes = 0;       // how often a run in training got another width
};

// The larger of the rank-seconds that the runs need at their most economical widths, spread over all ranks, and the
// longest run at its fastest width.
double lower_bound(const std::vector<SimulatedRun>& runs, int64_t ranks);

Makespans simulate(const Simulation& simulation, uint64_t draw);

struct Distribution {
  double median = 0, p95 = 0;
};
Distribution distribution_of(std::vector<double> values);

}  // namespace varscale::sweep
