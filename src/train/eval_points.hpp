// When a run is validated, and on how many images.
#pragma once

#include <cstdint>
#include <set>

#include "optim/schedule.hpp"
#include "sweep/run_config.hpp"

namespace varscale::train {

struct EvalPlan {
  std::set<int64_t> steps;      // updates taken when it is due; the last step is always among them
  std::set<int64_t> whole_set;  // those of `steps` that score the whole validation set
  int64_t subset_images = 0;    // what the others score
};

// About eval.points log-spaced steps, the begin and the end of the decay; of a trunk also its branch points. Where scoring the whole
// set at every point would cost more than eval.max_cost of the run's training FLOPs, the points
// before the end score a fixed subset that keeps to it.
EvalPlan plan_evaluations(const sweep::RunConfig& run, const optim::Schedule& schedule,
                          int64_t validation_images, double train_flops_per_image,
                          double forward_flops_per_image);

}  // namespace varscale::train
