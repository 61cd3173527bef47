#include "scaling/layout.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scaling/device.hpp"

namespace varscale::scaling {
namespace {

using testing::AllOf;
using testing::HasSubstr;

VarShape d16() {
  return VarShape::from_depth(16, {4096, 32, ScaleList({1, 2, 3, 4, 5, 6, 8, 10, 13, 16})}, 1000);
}

double needed(Holding holding, int64_t shards, bool snapshot) {
  return static_cast<double>(
      estimate_memory(d16(), {.holding = holding, .shards = shards, .async_snapshot = snapshot})
          .total());
}

// Memory in which an estimate of `bytes` is just usable.
double room_for(double bytes) { return bytes / kUsableShare + 1e6; }

TEST(ChooseLayout, TakesTheFirstThatFits) {
  Machine machine{.ranks = 8, .node_ranks = 8};
  machine.memory_bytes = room_for(needed(Holding::kReplicated, 1, true));
  EXPECT_EQ(choose_layout(d16(), {}, machine).mode, "replicated");
  EXPECT_TRUE(choose_layout(d16(), {}, machine).async_save);

  machine.memory_bytes = room_for(needed(Holding::kZero2, 8, true));
  ASSERT_LT(machine.memory_bytes, needed(Holding::kReplicated, 1, false));
  const Layout zero2 = choose_layout(d16(), {}, machine);
  EXPECT_EQ(zero2.mode, "zero2");
  EXPECT_EQ(zero2.shards, 8);
  EXPECT_THAT(zero2.why, AllOf(HasSubstr("replicated needs"), HasSubstr("zero2 of 8 ranks needs")));

  machine.memory_bytes = room_for(needed(Holding::kZero3, 8, true));
  EXPECT_EQ(choose_layout(d16(), {}, machine).mode, "zero3");
}

TEST(ChooseLayout, GivesUpTheCopyOfACheckpointBeforeItShards) {
  const Machine machine{.ranks = 8,
                        .node_ranks = 8,
                        .memory_bytes = room_for(needed(Holding::kReplicated, 1, false))};
  const Layout layout = choose_layout(d16(), {}, machine);
  EXPECT_EQ(layout.mode, "replicated");
  EXPECT_FALSE(layout.async_save);
  EXPECT_EQ(layout.bytes, static_cast<int64_t>(needed(Holding::kReplicated, 1, false)));
  EXPECT_THAT(layout.why, HasSubstr("checkpoints written while training waits"));
  Machine gpu = machine;
  gpu.on_gpu = true;
  EXPECT_TRUE(choose_layout(d16(), {}, gpu).async_save);
}

TEST(ChooseLayout, SharesOneModelANodeWhereThereAreSeveral) {
  const Machine machine{
      .ranks = 32, .node_ranks = 8, .memory_bytes = room_for(needed(Holding::kZero3, 8, true))};
  const Layout layout = choose_layout(d16(), {}, machine);
  EXPECT_EQ(layout.mode, "hybrid");
  EXPECT_EQ(layout.shards, 8);
}

TEST(ChooseLayout, SaysWhatIsMissingWhereNothingFits) {
  const Layout alone = choose_layout(d16(), {}, {.memory_bytes = 1e9});
  EXPECT_FALSE(alone.fits);
  EXPECT_THAT(alone.why, AllOf(HasSubstr("replicated needs"), HasSubstr("of 953.7 MiB a rank")));
  EXPECT_FALSE(choose_layout(d16(), {}, {.ranks = 4, .node_ranks = 4, .memory_bytes = 1e9}).fits);
}

TEST(ChooseLayout, IsReplicatedWhereTheMemoryIsNotKnown) {
  const Layout layout = choose_layout(d16(), {}, {.ranks = 4, .node_ranks = 4});
  EXPECT_EQ(layout.mode, "replicated");
  EXPECT_TRUE(layout.fits);
}

TEST(Device, IsFoundByItsOptionAndByWhatItsDriverSays) {
  EXPECT_EQ(device_of("NVIDIA H200")->name, find_device("h200")->name);
  EXPECT_EQ(device_of("NVIDIA H100 80GB HBM3")->bf16_peak, 989e12);
  EXPECT_EQ(device_of("NVIDIA H100 PCIe")->bf16_peak, 756e12);
  EXPECT_EQ(device_of("NVIDIA H100 NVL")->bf16_peak, 835e12);
  EXPECT_EQ(device_of("NVIDIA A100-SXM4-80GB")->bf16_peak, 312e12);
  EXPECT_EQ(device_of("NVIDIA GB200")->bf16_peak, 2500e12);
  EXPECT_EQ(device_of("AMD EPYC"), nullptr);
  EXPECT_EQ(find_device("cpu"), nullptr);
}

}  // namespace
}  // namespace varscale::scaling
