// One suite for every kind. No ASSERT: a rank that leaves early would stall the others.
#include "comm/communicator.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/comm/world.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::comm {
namespace {

using testing::HasSubstr;

class CommunicatorSuite : public testing::TestWithParam<std::string> {
 protected:
  CommunicatorSuite() {
    if (GetParam() == "self") self_ = make_self();
    comm_ = self_ ? self_.get() : shared_world();
  }
  // What rank r contributes: the same on whoever computes it.
  static Tensor part(int rank, int64_t count, at::ScalarType type) {
    const std::string name = fmt::format("rank {}", rank);
    if (type == at::kLong)
      return test::hash_int_tensor(name, {count}, 1 << 24) * (int64_t{1} << 30);
    return test::hash_v(name, {count}).to(type);
  }
  Tensor mine(int64_t count, at::ScalarType type) const { return part(comm_->rank(), count, type); }

  std::unique_ptr<Communicator> self_;
  Communicator* comm_;
};

TEST_P(CommunicatorSuite, RanksCountFromZero) {
  EXPECT_GE(comm_->rank(), 0);
  EXPECT_LT(comm_->rank(), comm_->size());
  Tensor seen = at::zeros({comm_->size()}, at::kLong);
  seen[comm_->rank()] = 1;
  comm_->all_reduce(seen, Reduce::kSum, "census").wait();
  EXPECT_TRUE(at::equal(seen, at::ones({comm_->size()}, at::kLong)));
}

TEST_P(CommunicatorSuite, SumsEveryDtypeAtEverySize) {
  for (const auto type : {at::kLong, at::kFloat, at::kDouble}) {
    for (const int64_t count : {1, 3, 1000, 300000}) {
      Tensor sum = mine(count, type);
      comm_->all_reduce(sum, Reduce::kSum, "sum").wait();
      Tensor want = at::zeros({count}, type == at::kLong ? at::kLong : at::kDouble);
      for (int r = 0; r < comm_->size(); ++r) want = want + part(r, count, type);
      if (type == at::kLong) {
        EXPECT_TRUE(at::equal(sum, want))
            << count;  // beyond 2^53: no detour through floating point
      } else {
        // Up to three terms below 1: a rounding each.
        const double tolerance = type == at::kFloat ? 4e-7 : 1e-15;
        EXPECT_LE((sum.to(at::kDouble) - want).abs().max().item<double>(), tolerance) << count;
      }
    }
  }
}

TEST_P(CommunicatorSuite, TakesMinimumAndMaximum) {
  for (const auto type : {at::kLong, at::kFloat, at::kDouble}) {
    Tensor low = mine(1000, type), high = mine(1000, type);
    Tensor want_low = part(0, 1000, type), want_high = part(0, 1000, type);
    for (int r = 1; r < comm_->size(); ++r) {
      want_low = at::minimum(want_low, part(r, 1000, type));
      want_high = at::maximum(want_high, part(r, 1000, type));
    }
    comm_->all_reduce(low, Reduce::kMin, "min").wait();
    comm_->all_reduce(high, Reduce::kMax, "max").wait();
    EXPECT_TRUE(at::equal(low, want_low));
    EXPECT_TRUE(at::equal(high, want_high));
  }
}

TEST_P(CommunicatorSuite, GivesTheSameBitsOnEveryRankAndEveryTime) {
  for (const int64_t count : {1, 5, 2000, 100001}) {
    Tensor sum = mine(count, at::kFloat), again = mine(count, at::kFloat);
    comm_->all_reduce(sum, Reduce::kSum, "sum").wait();
    comm_->all_reduce(again, Reduce::kSum, "sum").wait();
    EXPECT_TRUE(at::equal(sum, again)) << count;
    Tensor first = sum.clone();
    comm_->broadcast(first, 0, "rank 0's sum").wait();
    EXPECT_TRUE(at::equal(sum, first)) << count;
  }
}

TEST_P(CommunicatorSuite, BroadcastsAnyDtypeFromAnyRoot) {
  for (int root = 0; root < comm_->size(); ++root) {
    for (const auto type : {at::kFloat, at::kLong, at::kBFloat16, at::kByte, at::kUInt16}) {
      const Tensor want = part(root, 1001, at::kFloat).mul(100).abs().to(type);
      Tensor got = comm_->rank() == root ? want.clone() : at::zeros({1001}, type);
      comm_->broadcast(got, root, "broadcast").wait();
      EXPECT_TRUE(at::equal(got.view(at::kByte), want.view(at::kByte)))
          << at::toString(type) << root;
    }
  }
}

TEST_P(CommunicatorSuite, TakesEmptyTensors) {
  Tensor nothing = at::empty({0});
  comm_->all_reduce(nothing, Reduce::kSum, "nothing").wait();
  comm_->broadcast(nothing, 0, "nothing").wait();
  EXPECT_EQ(nothing.numel(), 0);
}

TEST_P(CommunicatorSuite, BroadcastsBytesOfAnyLength) {
  for (int root = 0; root < comm_->size(); ++root) {
    for (const std::string& text :
         {std::string(), std::string("a\0b", 3), std::string(100000, 'x')}) {
      EXPECT_EQ(comm_->broadcast_bytes(comm_->rank() == root ? text : "other", root, "text"), text);
    }
  }
}

TEST_P(CommunicatorSuite, AgreesSilentlyWhereNoRankComplains) {
  EXPECT_NO_THROW(comm_->agree("", true, "fine"));
  comm_->barrier("fine");
}

TEST_P(CommunicatorSuite, OneRanksUserErrorIsThrownOnAll) {
  for (int culprit = 0; culprit < comm_->size(); ++culprit) {
    try {
      comm_->agree(comm_->rank() == culprit ? "a.yaml:3: depth is 0" : "", comm_->rank() == culprit,
                   "check");
      ADD_FAILURE() << "nothing was thrown";
    } catch (const base::UserError& error) {
      EXPECT_STREQ(error.what(), "a.yaml:3: depth is 0");
      EXPECT_NE(dynamic_cast<const Agreed*>(&error), nullptr);
    }
  }
}

TEST_P(CommunicatorSuite, TheLowestRanksSentenceWins) {
  try {
    comm_->agree(fmt::format("sentence of {}", comm_->rank()), /*user=*/false, "check");
    ADD_FAILURE() << "nothing was thrown";
  } catch (const base::UserError&) {
    ADD_FAILURE() << "not the user's fault";
  } catch (const std::runtime_error& error) {
    EXPECT_THAT(error.what(), HasSubstr("sentence of 0"));
    EXPECT_NE(dynamic_cast<const Agreed*>(&error), nullptr);
  }
}

TEST_P(CommunicatorSuite, RefusesBadArgumentsBeforeSending) {
  const int size = comm_->size();
  EXPECT_THROW(comm_->all_reduce(at::ones({4, 4}).t().slice(0, 0, 2), Reduce::kSum, "strided"),
               base::InvariantError);
  EXPECT_THROW(comm_->all_reduce(at::ones({4}, at::kInt), Reduce::kSum, "int32"),
               base::InvariantError);
  EXPECT_THROW(comm_->broadcast(at::ones({4, 4}).t(), 0, "strided"), base::InvariantError);
  EXPECT_THROW(comm_->broadcast(at::ones({4}), size, "root"), base::InvariantError);
  EXPECT_THROW(comm_->broadcast(at::ones({4}), -1, "root"), base::InvariantError);
  Tensor fine = at::ones({1});  // the group still works
  comm_->all_reduce(fine, Reduce::kSum, "after").wait();
  EXPECT_EQ(fine.item<float>(), static_cast<float>(size));
}

INSTANTIATE_TEST_SUITE_P(Kinds, CommunicatorSuite, testing::Values("self", "world"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace varscale::comm
