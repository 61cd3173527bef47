// Which ranks train which run: the decisions of the coordinator, without clocks, messages or files. The simulation
// (simulation.hpp) and a launch (coordinate/coordinator.hpp) drive the same object.
//
//   Placement placement(64, {.change_s = 60});
//   placement.add(0, 26691, speeds);              // run 0 has so many steps left
//   for (const Start& start : placement.decide().starts) train(start.run, start.ranks);
//   placement.measured(0, 20000, 3.4);            // steps left and steps/s of a run in training: estimates follow
//   placement.returned(0, 18000);                 // it has saved and given its ranks back, as decide() asked
//   placement.ended(0);                           // done or failed
//
// Rule     T is the shortest time in which all that is left can end, if each run takes the fewest ranks with which
//          it ends within T and the ranks are never idle. Waiting runs start with these widths, the widest first,
//          among equals the longest; what does not fit waits, or takes fewer ranks where that still ends within T.
//          Once nothing waits, ranks that would stand idle go to the runs that decide the end: these are asked to
//          give their ranks back at a save point and start again wider, or narrower to make room, where that ends
//          the whole sooner by more than it costs.
// Speeds   are estimates; a measured speed corrects its run at all widths, and what has not run yet by the median
//          of what has.
// Ranks    of a group are consecutive where possible, and begin at a multiple of their number or of a node.
// Errors   InvariantError: a run that is not known, or is not in the state that a call supposes.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

namespace varscale::sweep {

struct Speed {
  int64_t ranks = 1;
  double steps_per_s = 0;
};

struct PlacementOptions {
  double change_s = 60;     // what it costs to save, give the ranks back and start again
  int64_t node_ranks = 8;   // ranks that lie close together
  bool whole = false;       // one run after another, in order, each on as many ranks as it can take
};

struct Start {
  int64_t run = 0;
  std::vector<int> ranks;  // ascending
};

struct Decision {
  std::vector<Start> starts;
  std::vector<int64_t> give_back;  // runs to be asked for their ranks at their next save point
};

class Placement {
 public:
  Placement(int64_t ranks, const PlacementOptions& options);

  // Speeds at the widths that the run can have, ascending by ranks; at least one of them of at most all ranks.
  void add(int64_t run, double steps_left, std::vector<Speed> speeds);
  void measured(int64_t run, double steps_left, double steps_per_s);
  void returned(int64_t run, double steps_left);
  void ended(int64_t run);  // or is not to be placed any more, as another job has it
  Decision decide();

  bool idle() const { return runs_.empty(); }
  // The waiting runs that will probably start next, as far as there are so many.
  std::vector<int64_t> next_up(int64_t count) const;
  int64_t free_ranks() const;
  // Seconds until all that is known has ended, by the present estimates.
  double estimate_s() const;

 private:
  struct Run {
    double steps_left = 0;
    std::vector<Speed> speeds;
    double correction = 0;    // measured over estimated; 0: not measured
    double planned_with = 1;  // the correction at the last decision
    std::vector<int> ranks = {};  // empty: waits
    bool asked = false;           // for its ranks
    int64_t width() const { return static_cast<int64_t>(ranks.size()); }
    bool waits() const { return ranks.empty(); }
  };
  using Widths = std::map<int64_t, int64_t>;  // ranks by run
  // A norm of the runs' ends says what the last end alone does not: how many runs stand in the way of an earlier one.
  struct End {
    double last_s = 0, norm_s = 0;
  };
  struct Plan {
    Widths widths;  // of waiting runs
    End end;        // of all
  };

  double seconds(const Run& run, int64_t ranks) const;
  // The fewest ranks with which the run ends within `horizon_s`; 0: none.
  int64_t fewest(const Run& run, double horizon_s) const;
  bool is_feasible(double horizon_s) const;
  double best_horizon() const;
  End end_with(const Widths& widths) const;
  Widths fewest_by_run(double horizon_s) const;
  void plan_many();
  Plan plan();
  Decision decide_whole();
  struct Waiting {
    int64_t number, ranks;
    double seconds;
  };
  std::vector<Waiting> waiting_in_order(const Widths& widths) const;
  bool still_waits(const Waiting& each) const;
  void start_waiting(const std::vector<Waiting>& order, Decision& decision);
  std::vector<int64_t> misplaced(double horizon_s, bool late_alone) const;
  void rearrange(double now_ends, Decision& decision);
  void start(int64_t number, int64_t ranks, Decision& decision);
  std::vector<int> choose_ranks(int64_t count) const;

  int64_t ranks_;
  PlacementOptions options_;
  std::map<int64_t, Run> runs_;
  std::map<int64_t, double> corrections_;  // of all runs that were measured, also ended ones
  double usual_correction_ = 1;            // their median
  // The last planning of many runs: it holds as long as nearly as many are left and none has come.
  double planned_horizon_s_ = 0;
  int64_t planned_runs_ = 0;               // so many there were; 0: none since a run has come
  std::vector<Waiting> planned_order_;
  bool news_ = false;                      // since the last decision
  std::vector<bool> busy_;
};

}  // namespace varscale::sweep
