// How the ranks of a group hold and train one model together.
//
//   auto parallel = make_parallel(units, world, {.mode = Mode::kZero3});
//   parallel->begin_step();
//   for (each micro-batch) {
//     parallel->begin_micro(is_last);
//     Tensor x = embed(...);                                    // the root unit's weights are there
//     for (size_t i = 1; i < units.size(); ++i)
//       x = parallel->run(i, {x, condition}, body_of_block);    // so are the unit's, inside the body
//     loss_sum(head(x)).backward();
//     parallel->finish_backward();
//   }
//   const Tensor norm_squared = parallel->gradient_norm_squared();
//   optimizer.step(...);                                        // on owned()
//   parallel->weights_changed();
//
// A unit is what is gathered and released together: unit 0, the root, holds what lies outside the
// blocks, and then one unit a block, in the order of execution.
//
// Modes    replicated: every rank owns everything; gradients are summed in buckets while backward
//          runs. zero3: every rank owns a range of rows of every parameter; a block's weights are
//          gathered for its forward and again for its backward, its gradients summed into the owners'
//          rows. zero2: the same, but gathered weights stay until the block's backward. hybrid: zero3
//          inside groups of `shards` neighbouring ranks, and sums across the groups.
// Sums     Gradients are sums over ranks and micro-batches; the caller's loss is already divided by the
//          global count. Master weights, moments, gradients and their sums are float32.
// Order    All ranks make the same calls; the collectives follow the unit list, never arrival.
// Errors   InvariantError: a backward that left parameters without gradient (named).
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.hpp"
#include "nn/async.hpp"
#include "nn/tensor.hpp"

namespace varscale::parallel {

using at::Tensor;

enum class Mode { kReplicated, kZero2, kZero3, kHybrid };
Mode mode_named(std::string_view name);  // "replicated", "zero2", "zero3", "hybrid"

struct Options {
  Mode mode = Mode::kReplicated;
  int shards = 0;          // hybrid: ranks of one group, a divisor of the group's size
  bool recompute = false;  // blocks keep their input alone and run again in backward
  bool overlap = true;     // false: reductions start after backward, gathers when needed
};

// Leaves without storage (nn::absent_leaf), float32 or bfloat16: the dtype they are computed in.
struct Unit {
  std::string name;
  nn::NamedTensors leaves;
};

// The rows of one parameter that this rank updates, on its first axis longer than 1.
struct Owned {
  std::string name;
  std::vector<int64_t> shape;  // of the whole parameter
  int64_t axis = 0, begin = 0, end = 0;
  Tensor weight, gradient;  // float32, contiguous, the shape with `axis` cut to end - begin
  bool is_whole() const { return end - begin == shape.at(axis); }
  int64_t first_element() const;  // of the whole parameter, in memory order
};

// Bytes held on this rank through the pools, and the most block units that were gathered at once.
struct Held {
  int64_t weights = 0, gradients = 0, gathered = 0, reduce_buffers = 0;
  int64_t peak_gathered_blocks = 0;
  int64_t total() const { return weights + gradients + gathered + reduce_buffers; }
};

class Parallel {
 public:
  using Body = std::function<Tensor(const std::vector<Tensor>&)>;
  virtual ~Parallel() = default;

  virtual void begin_step() = 0;
  virtual void begin_micro(bool last) = 0;
  // body(inputs) with the weights of block unit `unit` in place. inputs[0] is the activation; entries
  // may be undefined. With grad mode off nothing is kept for a backward.
  virtual Tensor run(size_t unit, const std::vector<Tensor>& inputs, const Body& body) = 0;
  virtual void finish_backward() = 0;
  // A forward without backward: between these two, weights() of run() are gathered as needed.
  virtual void begin_forward() = 0;
  virtual void end_forward() = 0;
  // owned().weight has changed.
  virtual void weights_changed() = 0;

  virtual const std::vector<Owned>& owned() const noexcept = 0;
  // Whether this rank writes owned()[i] into a checkpoint: over all ranks every row once.
  virtual bool saves(size_t i) const noexcept = 0;
  virtual Held held() const = 0;
  // Over the whole model, a float64 scalar on the gradients' device; collective. Chunks are added in a
  // fixed order.
  virtual Tensor gradient_norm_squared() = 0;
  // How long this rank's compute has waited for collectives since the last call.
  virtual std::vector<nn::Interval> take_waits() = 0;
};

// The leaves must live as long as the result.
std::unique_ptr<Parallel> make_parallel(const std::vector<Unit>& units, comm::Communicator& world,
                                        const Options& options);

// Rows [begin, end) of a global batch that a rank computes; shares differ by at most one row.
struct Share {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};
Share share_of(int64_t batch, int rank, int size);

// A rank's rows of a batch in micro-batches. All ranks make equally many passes, since they gather weights together:
// where one has no rows left, the caller lets a row stand in and does not count it.
class MicroBatches {
 public:
  MicroBatches(int64_t batch, int64_t most_rows, const comm::Communicator& world);  // most_rows 0: all at once
  int64_t passes() const noexcept { return passes_; }
  Share rows(int64_t pass) const;  // none where begin is end

 private:
  Share share_;
  int64_t micro_, passes_;
};

// Runs block i of a model as unit i + 1: what models take as their block runner. It must not outlive `parallel`.
std::function<Tensor(int64_t index, const std::vector<Tensor>& inputs, const Parallel::Body& body)> block_runner(
    Parallel& parallel);
// Of owned(), in its order.
nn::NamedTensors owned_weights(const Parallel& parallel);
std::vector<Tensor> owned_gradients(const Parallel& parallel);

}  // namespace varscale::parallel
