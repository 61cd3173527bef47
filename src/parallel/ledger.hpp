// What both kinds of wrapper share: how a parameter is cut, waiting times, and the norm.
#pragma once

#include <chrono>

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

// Waits for work, counting the seconds.
class WaitClock {
 public:
  void wait(comm::Work& work) {
    const auto begin = std::chrono::steady_clock::now();
    work.wait();
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  double take() {
    const double seconds = seconds_;
    seconds_ = 0;
    return seconds;
  }

 private:
  double seconds_ = 0;
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

// Sum of squares of float32 tensors in double, in chunks of a fixed order.
double sum_of_squares(const std::vector<Owned>& owned);

std::unique_ptr<Parallel> make_replicated(const std::vector<Unit>& units, comm::Communicator& world,
                                          const Options& options);
std::unique_ptr<Parallel> make_sharded(const std::vector<Unit>& units, comm::Communicator& world,
                                       const Options& options);

}  // namespace varscale::parallel
