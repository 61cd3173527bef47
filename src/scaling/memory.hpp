// Bytes that training holds on one rank, term by term: what --plan prints and `auto` decides by.
//
//   MemoryEstimate bytes =
//       estimate_memory(d16, {.micro_batch = 24, .holding = Holding::kZero3, .shards = 8});
//   base::format_bytes(bytes.total());
//
// An estimate of tensors: allocator slack, the bare process (356 MiB with libtorch on a CPU, a CUDA
// context on a GPU), the loader's images and a tokenizer in memory come on top.
//
// Errors   UserError for a shape that makes no model, a micro-batch or a number of shards below 1, or a
//          replicated model on several shards.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "scaling/shape.hpp"

namespace varscale::scaling {

enum class Precision { kFp32, kBf16 };  // of forward and backward; master weights are always fp32

// What a rank holds of the model: all of it, or 1/shards of every tensor and, gathered from the others,
// the root unit with every block (kZero2) or with two blocks (kZero3, and inside the groups of hybrid).
enum class Holding { kReplicated, kZero2, kZero3 };

// What backward computes again instead of keeping it: the inputs of linear layers, or whole blocks.
enum class Recompute { kNone, kSelective, kFull };
// "none", "selective" or "full".
Recompute recompute_named(const std::string& name);

struct MemoryOptions {
  int64_t micro_batch = 1;  // images per forward on this rank
  Precision precision = Precision::kFp32;
  Holding holding = Holding::kReplicated;
  int64_t shards = 1;           // replicated: 1
  Recompute recompute = Recompute::kNone;
  bool on_gpu = false;          // whose operations keep other things than the CPU's
  bool softmax_kept = true;     // by bf16 attention on a CPU without dot products of bf16 pairs (nn/attention_rows.hpp)
  bool async_snapshot = false;  // a copy of weights and moments while a checkpoint is written
};

// N parameters, S shards, c bytes of the compute type (4 or 2), B images, L tokens, w width, h
// hidden width, d depth, V vocabulary. "Unit" is one block, or the root: all that is outside the
// blocks.
struct MemoryEstimate {
  int64_t weights = 0;    // 4 N / S, fp32
  int64_t gradients = 0;  // 4 N / S, fp32; buckets are these bytes, not a copy
  int64_t moments = 0;    // 8 N / S, fp32
  // Replicated: 2 N in bf16, none in fp32. ZeRO-3: c x (root + 2 blocks), gathered; ZeRO-2: c x N.
  int64_t compute_copies = 0;
  // Sharded: 4 (1 + 1 / S) x (root + 2 blocks), whole gradients before scattering and what arrives.
  int64_t reduce_buffer = 0;
  // Kept for backward, per token and block. On the CPU 2 w in fp32 (inputs of the norms) and 8 w + 2 h in the compute type; in
  // bf16 also its attention's softmax, unless softmax_kept is false. On a GPU 6 w in fp32 (outputs of the norms and the branches too) and 8 w + 2 h (6 w + 2 h
  // without unit-norm q and k). With selective recomputation 2 w + h less, on a GPU 2 w in fp32 less as well; with full 4 w bytes,
  // and once a block's worth. In fp32: 6 w per image
  // and block (AdaLN), and outside the blocks 2 w (GPU: 4 w) + Cvae a token.
  int64_t activations = 0;
  int64_t logits = 0;     // B L V: the logits, which on the CPU become their gradient; on a GPU both, of bf16 also in fp32
  // Gradients inside one block: 6 w + 2 h numbers a token. The logits are gone by then, so the larger of
  // the two counts.
  int64_t workspace = 0;
  int64_t snapshot = 0;   // 12 N / S when async_snapshot
  int64_t total() const {
    return weights + gradients + moments + compute_copies + reduce_buffer + activations +
           std::max(logits, workspace) + snapshot;
  }
};

MemoryEstimate estimate_memory(const VarShape& shape, const MemoryOptions& options);

}  // namespace varscale::scaling
