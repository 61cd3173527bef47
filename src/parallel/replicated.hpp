// Replicated data parallelism: every rank holds the whole model and a share of the batch; gradients
// are summed over the ranks.
//
//   Replicated replicated(model.parameters(), world);
//   replicated.zero_gradients();
//   loss_sum.backward();                          // any number of times: gradients add up
//   replicated.reduce_gradients();  // now every rank has the sum over the global batch
//   optimizer.step(replicated.gradients(), ...);
//
// Order    Buckets of at most 25 MiB follow the reverse of the parameter list and depend on it
//          alone, so that a resumed run adds in the same order.
// Memory   One flat float32 buffer; every parameter's .grad is a view of it.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "comm/communicator.hpp"
#include "nn/tensor.hpp"

namespace varscale::parallel {

using at::Tensor;

// Rows [begin, end) of a global batch that a rank computes; shares differ by at most one row.
struct Share {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};
Share share_of(int64_t batch, int rank, int size);

class Replicated {
 public:
  Replicated(const nn::NamedTensors& parameters, comm::Communicator& world);
  void zero_gradients();
  void reduce_gradients();
  // In parameter order; views of the flat buffer.
  const std::vector<Tensor>& gradients() const noexcept { return gradients_; }

 private:
  comm::Communicator& world_;
  nn::NamedTensors parameters_;
  Tensor flat_P_;
  std::vector<Tensor> gradients_;
  std::vector<std::pair<int64_t, int64_t>> buckets_;  // [begin, end) in the flat buffer
};

}  // namespace varscale::parallel
