// What both kinds of wrapper share: how a parameter is cut, waiting times, and the norm.
#pragma once

#include <utility>

#include "parallel/parallel.hpp"

namespace varscale::parallel {

// How one parameter lies on `shards` ranks: chunks of equally many rows of its first axis longer than
// 1, the last ones short or empty. Padded to whole chunks it is shards x chunk elements.
struct Cut {
  int64_t axis = 0, rows = 1, row_elements = 1, chunk_rows = 1, shards = 1;
  Cut(const std::vector<int64_t>& shape, int64_t shards);
  int64_t chunk_elements() const { return chunk_rows * row_elements; }
  int64_t padded_elements() const { return shards * chunk_elements(); }
  int64_t begin(int64_t shard) const { return std::min(rows, shard * chunk_rows); }
  int64_t end(int64_t shard) const { return std::min(rows, (shard + 1) * chunk_rows); }
};

// Waits for work and notes how long the current stream (on the CPU the host) stood still.
class WaitClock {
 public:
  explicit WaitClock(at::Device device) : device_(device) {}
  void wait(comm::Work& work) {
    if (work.done()) return;
    nn::Interval& interval = waits_.emplace_back(device_);
    work.wait();
    interval.end();
  }
  std::vector<nn::Interval> take() { return std::exchange(waits_, {}); }

 private:
  at::Device device_;
  std::vector<nn::Interval> waits_;
};

// Counts down the leaves of a unit in one backward; a second gradient of one leaf changes nothing.
class Countdown {
 public:
  explicit Countdown(size_t leaves) : seen_(leaves, false), left_(leaves) {}
  void reset();
  // True when this was the last one.
  bool arrived(size_t leaf);
  bool has(size_t leaf) const { return seen_[leaf]; }
  bool complete() const noexcept { return left_ == 0; }
  std::vector<size_t> missing() const;

 private:
  std::vector<bool> seen_;
  size_t left_;
};

// InvariantError with the names of leaves that no gradient reached.
void check_complete(const Unit& unit, const Countdown& countdown);

// Sum of squares of the gradients in double, in chunks of a fixed order: a scalar on their device.
Tensor sum_of_squares(const std::vector<Owned>& owned);

std::unique_ptr<Parallel> make_replicated(const std::vector<Unit>& units, comm::Communicator& world,
                                          const Options& options);
std::unique_ptr<Parallel> make_sharded(const std::vector<Unit>& units, comm::Communicator& world,
                                       const Options& options);

}  // namespace varscale::parallel
