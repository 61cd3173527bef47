// Learning rate and weight decay as functions of the step.
//
//   Schedule schedule({.kind = "wsd", .steps = 875, .warmup_steps = 17, .hold = 0.7, .end = 0.02});
//   double lr = peak * schedule.lr_factor(step);  // step from 0: the rate of update step + 1
//
// Source   The public code's lr_wd_annealing (FoundationVision/VAR utils/lr_control.py): a linear
//          warm-up to 1, then with p the share of the remaining steps that has passed:
//            cosine     end + (1 - end) (1 + cos pi p) / 2
//            public     1 while p < hold, then end + (1 - end) (1 - p) / (1 - hold)
//                       (its lin: hold 0.15, lin0: 0.05, lin00: 0)
//            two_slope  its lin<T>: from 1 to a middle at p = hold, then to end
//            exp        1 while p < 0.15, then exponentially to end
//          and ours:
//            constant   1
//            wsd        1 up to the share `hold` of ALL steps, then linear to end at the last step
#pragma once

#include <cstdint>
#include <string>

namespace varscale::optim {

struct ScheduleOptions {
  std::string kind = "cosine";
  int64_t steps = 0;  // of the whole run
  int64_t warmup_steps = 0;
  double warmup_start = 0.005;
  double hold = 0.05;
  double end = 0.1;
};

class Schedule {
 public:
  // UserError on an unknown kind or a warm-up as long as the run.
  explicit Schedule(ScheduleOptions options);
  double lr_factor(int64_t step) const;  // step in [0, steps)
  // First step of the final decay, steps() where there is none.
  int64_t decay_begin() const;
  int64_t steps() const noexcept { return options_.steps; }

 private:
  ScheduleOptions options_;
};

// Weight decay along a half cosine from `begin` to `end` over the whole run.
double weight_decay_at(double begin, double end, int64_t step, int64_t steps);

}  // namespace varscale::optim
