#include "scaling/memory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "scaling/count.hpp"

namespace varscale::scaling {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

VarShape public_d16() {
  return VarShape::from_depth(16, {4096, 32, ScaleList({1, 2, 3, 4, 5, 6, 8, 10, 13, 16})}, 1000);
}

TEST(EstimateMemory, ReplicatedStateIsSixteenBytesAParameter) {
  const int64_t n = count_parameters(public_d16()).total();
  const MemoryEstimate fp32 = estimate_memory(public_d16(), {});
  EXPECT_EQ(fp32.weights + fp32.gradients + fp32.moments, 16 * n);
  EXPECT_EQ(fp32.compute_copies, 0);
  EXPECT_EQ(fp32.reduce_buffer, 0);
  EXPECT_EQ(fp32.snapshot, 0);
  EXPECT_EQ(estimate_memory(public_d16(), {.precision = Precision::kBf16}).compute_copies, 2 * n);
  EXPECT_EQ(estimate_memory(public_d16(), {.async_snapshot = true}).snapshot, 12 * n);
}

TEST(EstimateMemory, ShardsDivideTheStateAndAddGatheredUnits) {
  const ParameterCount count = count_parameters(public_d16());
  const int64_t n = count.total(), block = count.blocks() / 16, root = n - count.blocks();
  const MemoryEstimate bytes =
      estimate_memory(public_d16(), {.precision = Precision::kBf16,
                              .holding = Holding::kZero3,
                              .shards = 7,
                              .async_snapshot = true});
  EXPECT_EQ(bytes.weights, 4 * ((n + 6) / 7));  // the rank with the largest part
  EXPECT_EQ(bytes.moments, 2 * bytes.weights);
  EXPECT_EQ(bytes.snapshot, 3 * bytes.weights);
  EXPECT_EQ(bytes.compute_copies, 2 * (root + 2 * block));
  EXPECT_EQ(bytes.reduce_buffer,
            4 * (root + 2 * block + (root + 2 * block + 6) / 7));
}

TEST(EstimateMemory, ZeroTwoGathersEveryBlockAndScattersLikeZeroThree) {
  const int64_t n = count_parameters(public_d16()).total();
  MemoryOptions options{.precision = Precision::kBf16, .holding = Holding::kZero3, .shards = 8};
  const MemoryEstimate zero3 = estimate_memory(public_d16(), options);
  options.holding = Holding::kZero2;
  const MemoryEstimate zero2 = estimate_memory(public_d16(), options);
  EXPECT_EQ(zero2.compute_copies, 2 * n);
  EXPECT_EQ(zero2.reduce_buffer, zero3.reduce_buffer);
  EXPECT_EQ(zero2.weights, zero3.weights);
}

TEST(EstimateMemory, ASharedAdaLNProjectionBelongsToTheRootUnit) {
  const VarShape shape = VarShape::from_depth(4, {16, 4, ScaleList({1, 2})}, 3, true);
  const ParameterCount count = count_parameters(shape);
  const int64_t w = shape.width, shared = 6 * w * w + 6 * w;
  const int64_t block = (count.blocks() - shared) / 4, root = count.total() - 4 * block;
  const MemoryEstimate bytes = estimate_memory(shape, {.holding = Holding::kZero3, .shards = 2});
  EXPECT_EQ(bytes.compute_copies, 4 * (root + 2 * block));
}

TEST(EstimateMemory, ActivationsFollowTheDocumentedTerms) {
  // d2, w 128, h 512, 5 tokens, 3 images, V 16, Cvae 4, fp32.
  const VarShape shape = VarShape::from_depth(2, {16, 4, ScaleList({1, 2})}, 3);
  const MemoryEstimate bytes = estimate_memory(shape, {.micro_batch = 3});
  const int64_t block = 15 * (10 * 128 + 2 * 512);
  EXPECT_EQ(bytes.activations, 4 * (2 * block + 3 * 2 * 6 * 128 + 15 * (2 * 128 + 4)));
  EXPECT_EQ(bytes.logits, 15 * 16 * 4);
  EXPECT_EQ(bytes.workspace, 4 * 15 * (6 * 128 + 2 * 512));
  const MemoryEstimate again = estimate_memory(shape, {.micro_batch = 3, .recompute = Recompute::kFull});
  EXPECT_EQ(bytes.activations - again.activations, 4 * (block - 2 * 15 * 128));
  const MemoryEstimate inputs = estimate_memory(shape, {.micro_batch = 3, .recompute = Recompute::kSelective});
  EXPECT_EQ(bytes.activations - inputs.activations, 4 * 2 * 15 * (2 * 128 + 512));
}

TEST(EstimateMemory, Bf16HalvesTheLogitsWhereTheLossDoesNotCopyThem) {
  const MemoryEstimate fp32 = estimate_memory(public_d16(), {.micro_batch = 4});
  const MemoryEstimate bf16 =
      estimate_memory(public_d16(), {.micro_batch = 4, .precision = Precision::kBf16});
  EXPECT_EQ(2 * bf16.logits, fp32.logits);
  const MemoryEstimate copied = estimate_memory(
      public_d16(), {.micro_batch = 4, .precision = Precision::kBf16, .on_gpu = true});
  EXPECT_EQ(4 * copied.logits, 10 * fp32.logits);
  EXPECT_EQ(bf16.weights, fp32.weights);
}

TEST(EstimateMemory, Bf16HalvesWhatTheProductsKeepAndAttendsByItsSoftmaxOnTheCpu) {
  // Per token and block of d16, w 1024 and h 4096: 8 w + 2 h are halved; what stays at 4 bytes is 2 w, on a GPU 6 w.
  const int64_t rows = 4 * 680, w = 1024;
  const auto kept = [&](Precision precision, bool on_gpu) {
    return estimate_memory(public_d16(),
                           {.micro_batch = 4, .precision = precision, .on_gpu = on_gpu})
        .activations;
  };
  EXPECT_EQ(kept(Precision::kFp32, true) - kept(Precision::kBf16, true), 16 * rows * 2 * 16 * w);
  EXPECT_EQ(kept(Precision::kFp32, true) - kept(Precision::kFp32, false), 4 * (16 * rows * 4 * w + rows * 2 * w));
  // 286434 pairs of a token and one it sees, of 680 tokens.
  EXPECT_EQ(kept(Precision::kFp32, false) - kept(Precision::kBf16, false),
            16 * rows * (2 * 16 * w - 2 * 16 * int64_t{286434} / 680));
}

TEST(EstimateMemory, RefusesAnEmptyMicroBatchAndNoShards) {
  EXPECT_THAT([] { estimate_memory(public_d16(), {.micro_batch = 0}); },
              ThrowsMessage<base::UserError>(HasSubstr("micro-batch is 0")));
  EXPECT_THAT([] { estimate_memory(public_d16(), {.shards = 0}); },
              ThrowsMessage<base::UserError>(HasSubstr("shards is 0")));
  EXPECT_THAT([] { estimate_memory(public_d16(), {.shards = 2}); },
              ThrowsMessage<base::UserError>(HasSubstr("replicated model on 2 shards")));
}

}  // namespace
}  // namespace varscale::scaling
