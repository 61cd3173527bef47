#include "train/eval_points.hpp"

#include <algorithm>
#include <cmath>

#include "sweep/identity.hpp"

namespace varscale::train {

EvalPlan plan_evaluations(const sweep::RunConfig& run, const optim::Schedule& schedule,
                          int64_t validation_images, double train_flops_per_image,
                          double forward_flops_per_image) {
  EvalPlan plan;
  const int64_t steps = schedule.steps();
  for (int64_t i = 1; i <= run.eval.points; ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(run.eval.points);
    const auto step =
        static_cast<int64_t>(std::llround(std::pow(static_cast<double>(steps), share)));
    plan.steps.insert(std::clamp<int64_t>(step, 1, steps));
  }
  const int64_t decay = schedule.decay_begin();
  if (decay > 0 && decay < steps) plan.steps.insert(decay);
  plan.steps.insert(steps);
  if (run.role == "trunk") plan.steps.merge(sweep::kept_steps_of(run));  // where the branches' decays begin

  const double train_flops =
      train_flops_per_image * static_cast<double>(sweep::images_seen_of(run));
  const double allowed_images = run.eval.max_cost * train_flops / forward_flops_per_image;
  const auto points = static_cast<double>(plan.steps.size());
  if (points * static_cast<double>(validation_images) <= allowed_images) {
    plan.whole_set = plan.steps;
    plan.subset_images = validation_images;
    return plan;
  }
  plan.whole_set = {steps};
  const double each = points > 1 ? allowed_images / (points - 1) : 0;
  plan.subset_images = std::clamp<int64_t>(static_cast<int64_t>(each), 1, validation_images);
  return plan;
}

}  // namespace varscale::train
