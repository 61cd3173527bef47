// Any mode on any number of ranks trains the same model as one rank without a wrapper's tricks.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "comm/thread_group.hpp"
#include "tests/parallel/small_model.hpp"

namespace varscale::parallel {
namespace {

using test::relative_l2;
using test::SmallResult;
using test::SmallRun;
using test::train_plain;
using test::whole;

struct Layout {
  int world;
  Mode mode;
  int shards;
  const char* name;
};

std::string name_of(const Layout& layout) { return fmt::format("{}_of_{}", layout.name, layout.world); }

std::vector<Layout> all_layouts() {
  std::vector<Layout> layouts;
  for (const int world : {1, 2, 3, 4}) {
    layouts.push_back({world, Mode::kReplicated, 0, "replicated"});
    layouts.push_back({world, Mode::kZero2, 0, "zero2"});
    layouts.push_back({world, Mode::kZero3, 0, "zero3"});
  }
  layouts.push_back({4, Mode::kHybrid, 2, "hybrid"});
  return layouts;
}

// Results of every rank.
std::vector<SmallResult> train_layout(const Layout& layout, SmallRun run) {
  run.options.mode = layout.mode;
  run.options.shards = layout.shards;
  std::vector<SmallResult> results(layout.world);
  comm::run_ranks(layout.world, [&](comm::Communicator& world) {
    results[world.rank()] = test::train_small(run, world);
  });
  return results;
}

class Equality : public testing::TestWithParam<std::tuple<Layout, int>> {};

TEST_P(Equality, LossesGradientsAndWeightsAreThoseOfOneRank) {
  const auto& [layout, accumulate] = GetParam();
  const SmallRun run{.options = {}, .accumulate = accumulate};
  const SmallResult plain = train_plain({});
  const std::vector<SmallResult> results = train_layout(layout, run);
  double worst_loss = 0, worst_gradient = 0, worst_weight = 0;
  for (const SmallResult& result : results) {
    ASSERT_EQ(result.losses.size(), plain.losses.size());
    for (size_t i = 0; i < plain.losses.size(); ++i)
      worst_loss = std::max(worst_loss, std::abs(result.losses[i] / plain.losses[i] - 1));
  }
  const auto tensors = whole(results);
  ASSERT_EQ(tensors.size(), plain.owned.size());
  for (const Owned& want : plain.owned) {
    const auto& [weight, gradient] = tensors.at(want.name);
    worst_gradient = std::max(worst_gradient, relative_l2(gradient, want.gradient, 1e-7));
    worst_weight = std::max(worst_weight, relative_l2(weight, want.weight, 1e-7));
  }
  EXPECT_LE(worst_loss, 1e-6);
  EXPECT_LE(worst_gradient, 5e-6);
  EXPECT_LE(worst_weight, 1e-5);
  fmt::print("{} accumulate {}: worst loss {:.1e}, gradients {:.1e}, weights {:.1e} (relative)\n",
             name_of(layout), accumulate, worst_loss, worst_gradient, worst_weight);
}

INSTANTIATE_TEST_SUITE_P(Table, Equality,
                         testing::Combine(testing::ValuesIn(all_layouts()), testing::Values(1, 3)),
                         [](const auto& info) {
                           return fmt::format("{}_accumulate{}", name_of(std::get<0>(info.param)),
                                              std::get<1>(info.param));
                         });

void expect_equal_bits(const std::vector<SmallResult>& a, const std::vector<SmallResult>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t r = 0; r < a.size(); ++r) {
    EXPECT_EQ(a[r].losses, b[r].losses);
    EXPECT_EQ(a[r].norms, b[r].norms);
    ASSERT_EQ(a[r].owned.size(), b[r].owned.size());
    for (size_t i = 0; i < a[r].owned.size(); ++i) {
      EXPECT_TRUE(at::equal(a[r].owned[i].weight, b[r].owned[i].weight)) << a[r].owned[i].name;
      EXPECT_TRUE(at::equal(a[r].owned[i].gradient, b[r].owned[i].gradient)) << a[r].owned[i].name;
    }
  }
}

TEST(Bits, ARepeatedRunIsTheSameInEveryLayout) {
  for (const Layout& layout : all_layouts()) {
    SCOPED_TRACE(name_of(layout));
    const SmallRun run{.options = {}, .accumulate = 3, .steps = 5};
    expect_equal_bits(train_layout(layout, run), train_layout(layout, run));
  }
}

TEST(Bits, OneRankInAnyModeIsThePlainLoop) {
  const SmallResult plain = train_plain({});
  for (const Mode mode : {Mode::kReplicated, Mode::kZero2, Mode::kZero3}) {
    const auto tensors = whole(train_layout({1, mode, 0, "one"}, {}));
    for (const Owned& want : plain.owned) {
      EXPECT_TRUE(at::equal(tensors.at(want.name).first, want.weight)) << want.name;
      EXPECT_TRUE(at::equal(tensors.at(want.name).second, want.gradient)) << want.name;
    }
  }
}

TEST(Bits, RecomputingBlocksChangesNothing) {
  for (const Layout& layout : all_layouts()) {
    for (const bool shared_adaln : {false, true}) {
      SCOPED_TRACE(fmt::format("{} shared AdaLN {}", name_of(layout), shared_adaln));
      SmallRun run{.options = {}, .accumulate = 2, .steps = 4, .shared_adaln = shared_adaln};
      const auto kept = train_layout(layout, run);
      run.options.recompute = true;
      expect_equal_bits(kept, train_layout(layout, run));
    }
  }
}

TEST(Bits, RecomputingInputsOfLinearLayersChangesNothing) {
  for (const Layout& layout : all_layouts()) {
    for (const bool blocks_too : {false, true}) {
      SCOPED_TRACE(fmt::format("{} blocks too {}", name_of(layout), blocks_too));
      SmallRun run{.options = {.recompute = blocks_too}, .accumulate = 2, .steps = 4};
      const auto kept = train_layout(layout, run);
      run.recompute_inputs = true;
      expect_equal_bits(kept, train_layout(layout, run));
    }
  }
}

TEST(Bits, ReducingAfterBackwardChangesNothing) {
  for (const Layout& layout : all_layouts()) {
    SCOPED_TRACE(name_of(layout));
    SmallRun run{.options = {}, .accumulate = 2, .steps = 4};
    const auto overlapped = train_layout(layout, run);
    run.options.overlap = false;
    expect_equal_bits(overlapped, train_layout(layout, run));
  }
}

// Sums are taken in rank order in every mode, so a shard holds the very gradient that a replica has.
TEST(Bits, ShardedGradientsAreTheReplicatedOnes) {
  for (const int world : {2, 3, 4}) {
    const SmallRun run{.options = {}, .steps = 1};
    const auto replicated = whole(train_layout({world, Mode::kReplicated, 0, ""}, run));
    const auto sharded = whole(train_layout({world, Mode::kZero3, 0, ""}, run));
    for (const auto& [name, tensors] : replicated)
      EXPECT_TRUE(at::equal(tensors.second, sharded.at(name).second)) << name << " of " << world;
  }
}

// bf16 products against fp32: the loss of a step differs by a few roundings of 2^-8 in the logits, whose
// mean over 168 tokens is far smaller; 1 % is that with room, and a run on the wrong weights is far off.
TEST(Bf16, TrainsWithinABandOfFloat32AndAlikeInEveryMode) {
  const SmallResult plain = train_plain({});
  for (const Layout& layout : all_layouts()) {
    SCOPED_TRACE(name_of(layout));
    const auto results = train_layout(layout, {.options = {}, .compute = at::kBFloat16});
    for (size_t i = 0; i < plain.losses.size(); ++i)
      EXPECT_NEAR(results[0].losses[i], plain.losses[i], 0.01 * plain.losses[i]) << i;
    EXPECT_LT(results[0].losses.back(), results[0].losses.front());
  }
}

// 64 micro-batches of one image against one of 64: bf16 leaves whose gradients were added up in bf16
// would lose the last ones (1 + 2^-9 is 1 there).
TEST(Bf16, GradientsAddUpInFloat32OverManyMicroBatches) {
  for (const Mode mode : {Mode::kReplicated, Mode::kZero3}) {
    SmallRun run{.options = {}, .compute = at::kBFloat16, .batch = 64, .steps = 1};
    const auto once = whole(train_layout({1, mode, 0, ""}, run));
    run.accumulate = 64;
    const auto many = whole(train_layout({1, mode, 0, ""}, run));
    for (const auto& [name, tensors] : once) {
      // Each micro-batch's gradient is itself rounded to bf16 once: 2^-9 relative, and the 64 roundings
      // average out. Sums in bf16 are off by a tenth and more.
      EXPECT_LE(relative_l2(many.at(name).second, tensors.second, 1e-4), 0.02) << name;
    }
  }
}

}  // namespace
}  // namespace varscale::parallel
