// One collective as the kinds see it: what is asked, and what it is called in messages.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "comm/communicator.hpp"

namespace varscale::comm {

struct Call {
  enum class Kind { kAllReduce, kReduceScatter, kAllGather, kBroadcast, kBarrier };
  Kind kind = Kind::kBarrier;
  Reduce op = Reduce::kSum;
  int root = 0;
  // One entry; several in a grouped call; none in a barrier. all_reduce and broadcast work on
  // `out` and leave `in` empty.
  std::vector<Tensor> out = {}, in = {};
  const c10::Event* after = nullptr;
  std::string tag = {};

  // "all_reduce sum Float[1024] 'gradients'": equal on all ranks, or the ranks disagree.
  std::string describe() const;
};

// The newest call of a rank, for messages about ranks that do not join.
struct Progress {
  int64_t number = 0;  // of the group's calls, from 1
  bool done = true;
  std::string description;
  std::string words() const;                          // "is in call 17, all_reduce ... 'gradients'"
  static constexpr std::string_view kIsIn = "is in";  // what they begin with in a call under way
};

// "the ranks differ in call 17: rank 0 calls A; ranks 1, 2 call B". `names`: what the ranks are called
// in the launch; empty: 0, 1, ...
std::string mismatch_message(int64_t number, const std::vector<std::string>& descriptions,
                             const std::vector<int>& names = {});

// FNV-1a over number and description.
uint64_t call_hash(int64_t number, const std::string& description);

// out[i] = rows[0][i] op rows[1][i] op ..., in that order. `out` may be one of the rows. count
// elements of `type`, which is float32, float64 or int64.
void reduce_rows(void* out, const std::vector<const void*>& rows, int64_t count,
                 at::ScalarType type, Reduce op);

}  // namespace varscale::comm
