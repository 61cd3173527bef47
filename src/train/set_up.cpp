#include "train/set_up.hpp"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cmath>

#include "base/error.hpp"
#include "comm/communicator.hpp"
#include "sweep/plan.hpp"

namespace varscale::train {

at::Device device_of(const sweep::RunConfig& run) {
  return run.train.device == "cpu" ? at::Device(at::kCPU) : comm::cuda_device();
}

at::ScalarType compute_dtype(const sweep::RunConfig& run) {
  return run.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

optim::Schedule make_schedule(const sweep::RunConfig& run) {
  const int64_t steps = sweep::steps_of(run);
  return optim::Schedule(
      {.kind = run.schedule.kind,
       .steps = steps,
       .warmup_steps = sweep::warmup_steps_of(run),
       .warmup_start = run.schedule.warmup_start,
       .hold = run.schedule.hold,
       .end = run.schedule.end});
}

scaling::Layout layout_for(const sweep::RunConfig& run, const scaling::VarShape& shape,
                           const scaling::Machine& machine) {
  if (run.train.cuda_graph && machine.ranks != 1)
    throw base::UserError("train.cuda_graph records the update of one rank, and this run has {}", machine.ranks);
  scaling::Layout layout = sweep::layout_of(run, shape, machine);
  if (!layout.fits && run.parallel.mode == "auto") {
    throw base::UserError(
        "parallel.mode auto: {}; use more ranks, a smaller train.micro_batch or "
        "parallel.recompute, or name a mode to try it all the same",
        layout.why);
  }
  return layout;
}

parallel::Options parallel_options(const sweep::RunConfig& run, const scaling::Layout& layout) {
  return {.mode = parallel::mode_named(layout.mode),
          .shards = static_cast<int>(layout.shards),
          .recompute = run.parallel.recompute == "full",
          .overlap = run.parallel.overlap};
}

std::vector<parallel::Unit> units_of(const models::Var& model) {
  std::vector<parallel::Unit> units;
  for (nn::NamedTensors& leaves : model.units()) {
    units.push_back({units.empty() ? "root" : fmt::format("blocks.{}", units.size() - 1),
                     std::move(leaves)});
  }
  return units;
}

ThreadCount::ThreadCount(int64_t threads) : before_(at::get_num_threads()) {
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
}

ThreadCount::~ThreadCount() {
  if (at::get_num_threads() != before_) at::set_num_threads(before_);
}

}  // namespace varscale::train
