// What a run's settings say to each of the libraries that the trainer puts together.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "models/var/model.hpp"
#include "nn/tensor.hpp"
#include "optim/schedule.hpp"
#include "parallel/parallel.hpp"
#include "scaling/layout.hpp"
#include "sweep/identity.hpp"

namespace varscale::train {

at::Device device_of(const sweep::RunConfig& run);  // of this rank
at::ScalarType compute_dtype(const sweep::RunConfig& run);
optim::Schedule make_schedule(const sweep::RunConfig& run);

// How the ranks hold the model. UserError: parallel.mode is auto and nothing fits.
scaling::Layout layout_for(const sweep::RunConfig& run, const scaling::VarShape& shape,
                           const scaling::Machine& machine);
parallel::Options parallel_options(const sweep::RunConfig& run, const scaling::Layout& layout);

// What lies outside the blocks, then each block.
std::vector<parallel::Unit> units_of(const models::Var& model);

// While it lives, as many threads as asked for (0: as before).
class ThreadCount {
 public:
  explicit ThreadCount(int64_t threads);
  ~ThreadCount();
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

}  // namespace varscale::train
