#include "optim/schedule.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.hpp"

namespace varscale::optim {

Schedule::Schedule(ScheduleOptions options) : options_(std::move(options)) {
  const auto& kind = options_.kind;
  if (kind != "cosine" && kind != "public" && kind != "two_slope" && kind != "exp" &&
      kind != "constant" && kind != "wsd") {
    throw base::UserError(
        "schedule.kind is {}, expected cosine, public, two_slope, exp, constant or wsd", kind);
  }
  if (options_.steps < 1)
    throw base::UserError("a run of {} steps; expected at least 1", options_.steps);
  if (options_.warmup_steps >= options_.steps && options_.warmup_steps > 0) {
    throw base::UserError("schedule.warmup covers {} of {} steps; expected fewer than all",
                          options_.warmup_steps, options_.steps);
  }
}

double Schedule::lr_factor(int64_t step) const {
  const ScheduleOptions& o = options_;
  if (step < o.warmup_steps) {
    return o.warmup_start +
           (1 - o.warmup_start) * static_cast<double>(step) / static_cast<double>(o.warmup_steps);
  }
  if (o.kind == "constant") return 1;
  if (o.kind == "wsd") {
    const int64_t begin = decay_begin();
    if (step < begin) return 1;
    const auto span = static_cast<double>(std::max<int64_t>(o.steps - 1 - begin, 1));
    return 1 + (o.end - 1) * static_cast<double>(step - begin) / span;
  }
  const auto span = static_cast<double>(std::max<int64_t>(o.steps - 1 - o.warmup_steps, 1));
  const double passed = static_cast<double>(step - o.warmup_steps) / span;
  const double rest = 1 - passed;
  if (o.kind == "cosine")
    return o.end + (1 - o.end) * (0.5 + 0.5 * std::cos(std::numbers::pi * passed));
  if (o.kind == "public") {
    if (passed < o.hold || o.hold >= 1) return 1;  // a hold of 1 never decays
    return o.end + (1 - o.end) * rest / (1 - o.hold);
  }
  if (o.kind == "two_slope") {
    const double middle = (1 + o.end + (1 - o.end) * (1 - o.hold)) / 2;
    return passed < o.hold ? 1 + (middle - 1) * passed / o.hold
                           : o.end + (middle - o.end) * rest / (1 - o.hold);
  }
  constexpr double kExpHold = 0.15;
  return passed < kExpHold ? 1 : std::exp((passed - kExpHold) / (1 - kExpHold) * std::log(o.end));
}

int64_t Schedule::decay_begin() const {
  const ScheduleOptions& o = options_;
  const auto steps = static_cast<double>(o.steps);
  const auto rest = static_cast<double>(o.steps - 1 - o.warmup_steps);
  if (o.kind == "constant") return o.steps;
  if (o.kind == "wsd")
    return std::max(o.warmup_steps, static_cast<int64_t>(std::llround(o.hold * steps)));
  if (o.kind == "public") return o.warmup_steps + static_cast<int64_t>(std::ceil(o.hold * rest));
  return o.warmup_steps;
}

double weight_decay_at(double begin, double end, int64_t step, int64_t steps) {
  const double passed = steps > 1 ? static_cast<double>(step) / static_cast<double>(steps - 1) : 0;
  return end + (begin - end) * (0.5 + 0.5 * std::cos(std::numbers::pi * passed));
}

}  // namespace varscale::optim
