// What a rank holds, counted in the pools, against the estimate that plans are made with.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <fstream>

#include "comm/call.hpp"
#include "comm/thread_group.hpp"
#include "nn/attention_rows.hpp"
#include "nn/device.hpp"
#include "scaling/memory.hpp"
#include "tests/parallel/small_model.hpp"

namespace varscale::parallel {
namespace {

// A rank of a large group that is not there: construction makes no call.
class LonelyRank final : public comm::Communicator {
 public:
  explicit LonelyRank(int size) : size_(size) {}
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return size_; }
  std::unique_ptr<Communicator> create_group(const std::vector<int>&, std::string_view, int64_t) override {
    return nullptr;
  }
  void set_deadline(double) override {}
  void abort(std::string_view, int) noexcept override {}

 protected:
  comm::Work start(comm::Call) override { throw comm::CommError("nobody is there"); }

 private:
  int size_;
};

scaling::VarShape imagenet_shape(int64_t depth) {
  scaling::TokenSpace tokens;
  tokens.scales = scaling::ScaleList({1, 2, 3, 4, 5, 6, 8, 10, 13, 16});
  tokens.vocabulary = 4096;
  tokens.code_width = 32;
  return scaling::VarShape::from_depth(depth, tokens, 1000);
}

int64_t estimated(const scaling::VarShape& shape, int64_t shards, at::ScalarType compute) {
  const scaling::MemoryEstimate bytes = scaling::estimate_memory(
      shape, {.precision = compute == at::kBFloat16 ? scaling::Precision::kBf16
                                                    : scaling::Precision::kFp32,
              .holding = scaling::Holding::kZero3,
              .shards = shards});
  return bytes.weights + bytes.gradients + bytes.compute_copies + bytes.reduce_buffer;
}

Held held_by(const scaling::VarShape& shape, int world, at::ScalarType compute) {
  LonelyRank rank(world);
  const models::Var model(shape, {.weights = compute, .allocate = false});
  return make_parallel(test::units_of(model), rank, {.mode = Mode::kZero3})->held();
}

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return resident * 4096;
}

TEST(Memory, Zero3OfDepth12HoldsWhatTheEstimateSays) {
  const scaling::VarShape shape = imagenet_shape(12);
  for (const int world : {1, 2, 4}) {
    for (const at::ScalarType compute : {at::kFloat, at::kBFloat16}) {
      const int64_t before = resident_bytes();
      const Held held = held_by(shape, world, compute);
      const int64_t want = estimated(shape, world, compute);
      EXPECT_NEAR(static_cast<double>(held.total()), static_cast<double>(want), 0.05 * want);
      fmt::print("d12 {} of {}: held {:.1f} MiB, estimate {:.1f} MiB, resident before {:.1f} MiB\n",
                 at::toString(compute), world, held.total() / 1048576.0, want / 1048576.0,
                 before / 1048576.0);
    }
  }
}

// Forward of d4 at 256 px. What is outside the blocks and the small tensors of each image are counted by the kilobyte.
TEST(Memory, ForwardKeepsWhatTheEstimateSays) {
  nn::count_cpu_memory();
  const scaling::VarShape shape = imagenet_shape(4);
  using scaling::Recompute;
  for (const auto& [compute, again] : {std::pair{at::kFloat, Recompute::kNone}, {at::kFloat, Recompute::kSelective},
                                       {at::kBFloat16, Recompute::kNone}, {at::kBFloat16, Recompute::kSelective}}) {
    const models::Var model(shape, {.weights = compute});
    for (const nn::NamedTensor& parameter : model.parameters()) parameter.tensor.detach().zero_();
    const at::Tensor labels_B = at::zeros({2}, at::kLong), teacher_BLE = at::zeros({2, 679, 32});
    const int64_t before = nn::held_bytes(at::kCPU);
    const at::Tensor logits_BLV = model.forward(
        labels_B, teacher_BLE, {.compute = compute, .recompute_inputs = again == Recompute::kSelective});
    const auto kept = static_cast<double>(nn::held_bytes(at::kCPU) - before - static_cast<int64_t>(logits_BLV.nbytes()));
    const scaling::MemoryEstimate bytes = scaling::estimate_memory(
        shape, {.micro_batch = 2,
                .precision = compute == at::kBFloat16 ? scaling::Precision::kBf16 : scaling::Precision::kFp32,
                .recompute = again,
                .softmax_kept = !nn::has_bf16_dot_products()});
    EXPECT_NEAR(kept, static_cast<double>(bytes.activations), 0.03 * static_cast<double>(bytes.activations))
        << at::toString(compute);
  }
}

// 2.0 G parameters: 8 GB of float32 weights that no rank may hold.
TEST(Memory, Depth30IsBornOnShards) {
  const scaling::VarShape shape = imagenet_shape(30);
  const Held held = held_by(shape, 64, at::kBFloat16);
  EXPECT_LT(held.total(), int64_t{1600} << 20);
  EXPECT_LT(held.weights, int64_t{130} << 20);
  fmt::print("d30 of 64 ranks: held {:.1f} MiB, weights {:.1f} MiB\n", held.total() / 1048576.0,
             held.weights / 1048576.0);
}

TEST(Memory, AtMostTwoBlocksAreGatheredAtOnce) {
  for (const Mode mode : {Mode::kZero3, Mode::kHybrid}) {
    for (const bool recompute : {false, true}) {
      comm::run_ranks(4, [&](comm::Communicator& world) {
        test::SmallRun run{.options = {.mode = mode, .shards = 2, .recompute = recompute}};
        run.accumulate = 2;
        run.steps = 2;
        const test::SmallResult result = test::train_small(run, world);
        EXPECT_EQ(result.held.peak_gathered_blocks, 2);
      });
    }
  }
}

TEST(Memory, ZeroTwoKeepsEveryBlockUntilItsBackward) {
  comm::run_ranks(2, [](comm::Communicator& world) {
    test::SmallRun run{.options = {.mode = Mode::kZero2}};
    run.steps = 2;
    EXPECT_EQ(test::train_small(run, world).held.peak_gathered_blocks, 3);
  });
}

}  // namespace
}  // namespace varscale::parallel
