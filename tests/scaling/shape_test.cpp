#include "scaling/shape.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "base/error.hpp"

namespace varscale::scaling {
namespace {

using base::UserError;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(ScaleList, CutsTheSequenceIntoConsecutiveMaps) {
  const ScaleList scales({1, 2, 3, 4, 5, 6, 8, 10, 13, 16});
  EXPECT_EQ(scales.tokens(), 680);
  EXPECT_EQ(scales.count(), 10);
  EXPECT_EQ(scales.begin(0), 0);
  for (int64_t k = 0; k < scales.count(); ++k) {
    EXPECT_EQ(scales.tokens_at(k), scales.side(k) * scales.side(k));
    EXPECT_EQ(scales.begin(k), k == 0 ? 0 : scales.end(k - 1));
  }
  EXPECT_EQ(scales.end(9), 680);
  EXPECT_EQ(scales.last_side(), 16);
  EXPECT_EQ(scales.words(), "1,2,3,4,5,6,8,10,13,16");
  EXPECT_EQ(ScaleList().tokens(), 0);
}

TEST(ScaleList, RefusesWhatIsNoPyramid) {
  const auto expect_refused = [](std::vector<int64_t> sides, const char* words) {
    EXPECT_THAT([&] { ScaleList{sides}; }, ThrowsMessage<UserError>(HasSubstr(words)));
  };
  expect_refused({}, "empty");
  expect_refused({0, 1}, "scales 0,1: 0 follows 0");
  expect_refused({-1}, "-1");
  expect_refused({1, 2, 2}, "scales 1,2,2: 2 follows 2");
  expect_refused({1, 3, 2}, "2 follows 3");
  expect_refused({1, kLargestSide + 1}, "4097");
  expect_refused({1, kLargestSide}, "16777217 tokens an image; expected at most 16777216");
}

TEST(VarShape, FollowsThePapersRuleFromDepth) {
  const VarShape d16 = VarShape::from_depth(16, {4096, 32, ScaleList({1, 2, 3})}, 1000);
  EXPECT_EQ(d16.width, 1024);
  EXPECT_EQ(d16.heads, 16);
  EXPECT_EQ(d16.head_width(), 64);
  EXPECT_EQ(d16.hidden(), 4096);
  EXPECT_DOUBLE_EQ(d16.drop_path, 0.1 * 16 / 24);
  EXPECT_TRUE(d16.attn_l2_norm);
  EXPECT_FALSE(d16.shared_adaln);
}

TEST(VarShape, DropPathRisesLinearlyFromZeroToTheLastBlock) {
  const VarShape d5 = VarShape::from_depth(5, {256, 16, ScaleList({1, 2})}, 10);
  for (int64_t block = 0; block < 5; ++block)
    EXPECT_DOUBLE_EQ(d5.drop_path_at(block), d5.drop_path * static_cast<double>(block) / 4);
  EXPECT_EQ(VarShape::from_depth(1, {256, 16, ScaleList({1, 2})}, 10).drop_path_at(0), 0);
  EXPECT_THROW(d5.drop_path_at(5), base::InvariantError);
}

TEST(VarShape, NamesTheFaultOfAShapeThatMakesNoModel) {
  const TokenSpace space{4096, 32, ScaleList({1, 2, 3})};
  for (const int64_t depth : {int64_t{0}, int64_t{-3}, kLargestDepth + 1})
    EXPECT_THAT([&] { VarShape::from_depth(depth, space, 10); },
                ThrowsMessage<UserError>(HasSubstr("depth " + std::to_string(depth))));
  EXPECT_THAT([&] { VarShape::from_depth(2, space, 0); },
              ThrowsMessage<UserError>(HasSubstr("number of classes of the model is 0")));
  EXPECT_THAT(
      [&] {
        VarShape::from_depth(2, {4096, 32, ScaleList()}, 10);
      },
      ThrowsMessage<UserError>(HasSubstr("number of scales")));
  VarShape shape = VarShape::from_depth(2, space, 10);
  shape.heads = 3;
  EXPECT_THAT([&] { shape.check(); }, ThrowsMessage<UserError>(HasSubstr("divisor of the width")));
  shape.heads = 2;
  shape.mlp_ratio = std::numeric_limits<int64_t>::max();
  EXPECT_THAT([&] { shape.check(); }, ThrowsMessage<UserError>(HasSubstr("feed-forward ratio")));
  shape.mlp_ratio = 4;
  shape.width = 2 * kLargestWidth;
  EXPECT_THAT([&] { shape.check(); }, ThrowsMessage<UserError>(HasSubstr("262144; expected at most 131072")));
  shape.width = 128;
  shape.drop_path = 1;
  EXPECT_THAT([&] { shape.check(); }, ThrowsMessage<UserError>(HasSubstr("[0, 1)")));
}

}  // namespace
}  // namespace varscale::scaling
