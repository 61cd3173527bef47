// Which way of holding a model fits into the memory of a rank, and why: what `parallel.mode: auto` means.
//
//   Layout layout = choose_layout(d30, {.micro_batch = 8, .precision = Precision::kBf16},
//                                 {.ranks = 64, .node_ranks = 8, .memory_bytes = 141e9});
//   layout.mode, layout.why   // "hybrid", "replicated needs 36.1 GiB ..., hybrid of 8 ranks 9.2 GiB"
//
// The first that fits, in the order of what it costs in communication: replicated; over several nodes
// hybrid, with one group a node; zero2; zero3. "Fits": the estimate is at most kUsableShare of the
// memory. The copy that an asynchronous checkpoint takes counts; where only it does not fit, checkpoints
// are written while training waits.
#pragma once

#include <cstdint>
#include <string>

#include "scaling/memory.hpp"

namespace varscale::scaling {

// The rest is for what the estimate leaves out: allocator slack, the bare process, other libraries.
inline constexpr double kUsableShare = 0.9;

struct Machine {
  int64_t ranks = 1;
  int64_t node_ranks = 1;           // ranks of one node
  double memory_bytes = 0;          // of one rank; 0: not known
  bool on_gpu = false;  // then the copies of checkpoints lie in another memory, the host's
};

struct Layout {
  std::string mode = "replicated";  // replicated, hybrid, zero2 or zero3
  int64_t shards = 1;               // ranks that hold one model together
  bool async_save = true;
  bool fits = true;
  int64_t bytes = 0;  // the estimate, with the checkpoint's copy where it is taken
  std::string why = {};
};

Layout choose_layout(const VarShape& shape, MemoryOptions options, const Machine& machine);

// The same facts of a mode that the user has chosen; `shards` is read for hybrid.
Layout given_layout(const VarShape& shape, MemoryOptions options, const Machine& machine,
                    const std::string& mode, int64_t shards);

}  // namespace varscale::scaling
