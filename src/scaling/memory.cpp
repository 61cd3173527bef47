#include "scaling/memory.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "scaling/count.hpp"

namespace varscale::scaling {
namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes that one block keeps per token for its backward.
int64_t kept_per_token(const VarShape& shape, const MemoryOptions& options) {
  const int64_t w = shape.width, h = shape.hidden();
  const int64_t c = options.precision == Precision::kBf16 ? 2 : 4;
  // Both modulated forms and the second hidden layer.
  const bool again = options.recompute == Recompute::kSelective;
  const int64_t inputs = again ? 0 : 2 * w + h;
  if (options.on_gpu) {
    const int64_t unit = shape.attn_l2_norm ? 2 : 0;  // unit-norm q and k beside those of the projection
    // Always float32: input and output of both norms, and the two branches before their gates. In the compute type: q, k and v,
    // the attention's output and the first hidden layer.
    return 4 * (again ? 4 : 6) * w + c * ((4 + unit) * w + h + inputs);
  }
  // The CPU's kernels keep the inputs of both norms in float32; in the compute type q, k and v as attention takes
  // them, its output, both branches and the first hidden layer.
  const int64_t kept = 4 * 2 * w + c * (6 * w + h + inputs);
  if (options.precision == Precision::kFp32 || !options.softmax_kept) return kept;
  // Attention by products keeps the softmax of every pair of tokens.
  const ScaleList& scales = shape.tokens.scales;
  int64_t pairs = 0;
  for (int64_t k = 0; k < scales.count(); ++k) pairs += scales.tokens_at(k) * scales.end(k);
  return kept + 2 * shape.heads * pairs / scales.tokens();
}

}  // namespace

Recompute recompute_named(const std::string& name) {
  VARSCALE_CHECK(name == "none" || name == "selective" || name == "full", "recomputation '{}'", name);
  return name == "none" ? Recompute::kNone : name == "full" ? Recompute::kFull : Recompute::kSelective;
}

MemoryEstimate estimate_memory(const VarShape& shape, const MemoryOptions& options) {
  if (options.micro_batch < 1)
    throw base::UserError("the micro-batch is {}; expected at least 1 image", options.micro_batch);
  if (options.shards < 1)
    throw base::UserError("the number of shards is {}; expected at least 1", options.shards);
  if (options.holding == Holding::kReplicated && options.shards != 1)
    throw base::UserError("a replicated model on {} shards; expected 1", options.shards);
  const ParameterCount count = count_parameters(shape);
  // What follows is at most 4 bytes of some 16 wide and 2 hidden numbers for each token and block, and as much outside.
  const double most = 4.0 * static_cast<double>(options.micro_batch) * static_cast<double>(shape.tokens.scales.tokens()) *
                      (static_cast<double>(shape.depth + 3) *
                           static_cast<double>(32 * shape.width + 4 * shape.hidden() + shape.heads * shape.tokens.scales.tokens()) +
                       static_cast<double>(3 * shape.tokens.vocabulary + shape.tokens.code_width));
  if (most > 9e18)
    throw base::UserError("a micro-batch of {} images of {} tokens in {} blocks of width {}: its bytes are beyond all counting",
                          options.micro_batch, shape.tokens.scales.tokens(), shape.depth, shape.width);
  const int64_t n = count.total(), owned = ceil_divide(n, options.shards);
  const int64_t c = options.precision == Precision::kBf16 ? 2 : 4;

  MemoryEstimate bytes;
  bytes.weights = 4 * owned;
  bytes.gradients = 4 * owned;
  bytes.moments = 8 * owned;
  if (options.async_snapshot) bytes.snapshot = 12 * owned;
  if (options.holding == Holding::kReplicated) {
    if (options.precision == Precision::kBf16) bytes.compute_copies = 2 * n;
  } else {
    // The shared AdaLN projection is used by every block, so it lives in the root unit.
    const int64_t w = shape.width;
    const int64_t shared = shape.shared_adaln ? 6 * w * w + 6 * w : 0;
    const int64_t block = (count.blocks() - shared) / shape.depth;
    const int64_t root = n - block * shape.depth;
    const int64_t pooled = root + std::min<int64_t>(2, shape.depth) * block;
    bytes.compute_copies = c * (options.holding == Holding::kZero2 ? n : pooled);
    bytes.reduce_buffer = 4 * (pooled + ceil_divide(pooled, options.shards));
  }

  const int64_t w = shape.width, d = shape.depth;
  const int64_t rows = options.micro_batch * shape.tokens.scales.tokens();
  const int64_t block_kept = rows * kept_per_token(shape, options);
  const int64_t blocks_kept = options.recompute == Recompute::kFull ? 4 * d * rows * w + block_kept : d * block_kept;
  const int64_t adaln_kept = 4 * options.micro_batch * d * 6 * w;
  const int64_t outside_kept = 4 * rows * ((options.on_gpu ? 4 : 2) * w + shape.tokens.code_width);
  bytes.activations = blocks_kept + adaln_kept + outside_kept;
  const int64_t loss_bytes = !options.on_gpu ? c : c == 2 ? c + 4 + 4 : 2 * c;
  bytes.logits = rows * shape.tokens.vocabulary * loss_bytes;
  bytes.workspace = c * rows * (6 * w + 2 * shape.hidden());
  return bytes;
}

}  // namespace varscale::scaling
