// One suite for every kind. No ASSERT: a rank that leaves early would stall the others.
#include "comm/communicator.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "comm/post.hpp"
#include "comm/thread_group.hpp"
#include "tests/comm/world.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::comm {
namespace {

using testing::HasSubstr;

// What rank r contributes: the same on whoever computes it.
Tensor part(int rank, int64_t count, at::ScalarType type) {
  const std::string name = fmt::format("rank {}", rank);
  if (type == at::kLong)
    return test::hash_int_tensor(name, {count}, 1 << 24) * (int64_t{1} << 30);
  return test::hash_v(name, {count}).to(type);
}

// The sum of all ranks' parts, taken in rank order in the dtype itself.
Tensor sum_in_rank_order(int size, int64_t count, at::ScalarType type) {
  Tensor sum = part(0, count, type);
  for (int r = 1; r < size; ++r) sum = sum + part(r, count, type);
  return sum;
}

class CommunicatorSuite : public testing::TestWithParam<std::string> {
 protected:
  // Runs body(communicator) on every rank: of a group of one, of threads, or of this launch.
  void on_ranks(const std::function<void(Communicator&)>& body) const {
    if (GetParam() == "self") {
      body(*make_self());
    } else if (GetParam() == "world") {
      body(*shared_world());
    } else {
      run_ranks(GetParam().back() - '0', body);
    }
  }
};

TEST_P(CommunicatorSuite, RanksCountFromZero) {
  on_ranks([](Communicator& world) {
    EXPECT_GE(world.rank(), 0);
    EXPECT_LT(world.rank(), world.size());
    Tensor seen = at::zeros({world.size()}, at::kLong);
    seen[world.rank()] = 1;
    world.all_reduce(seen, Reduce::kSum, "census").wait();
    EXPECT_TRUE(at::equal(seen, at::ones({world.size()}, at::kLong)));
  });
}

TEST_P(CommunicatorSuite, SumsEveryDtypeAtEverySize) {
  on_ranks([](Communicator& world) {
    for (const auto type : {at::kLong, at::kFloat, at::kDouble}) {
      for (const int64_t count : {1, 3, 1000, 300000}) {
        Tensor sum = part(world.rank(), count, type);
        world.all_reduce(sum, Reduce::kSum, "sum").wait();
        Tensor want = at::zeros({count}, type == at::kLong ? at::kLong : at::kDouble);
        for (int r = 0; r < world.size(); ++r) want = want + part(r, count, type);
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
  });
}

TEST_P(CommunicatorSuite, TakesMinimumAndMaximum) {
  on_ranks([](Communicator& world) {
    for (const auto type : {at::kLong, at::kFloat, at::kDouble}) {
      Tensor low = part(world.rank(), 1000, type), high = part(world.rank(), 1000, type);
      Tensor want_low = part(0, 1000, type), want_high = part(0, 1000, type);
      for (int r = 1; r < world.size(); ++r) {
        want_low = at::minimum(want_low, part(r, 1000, type));
        want_high = at::maximum(want_high, part(r, 1000, type));
      }
      world.all_reduce(low, Reduce::kMin, "min").wait();
      world.all_reduce(high, Reduce::kMax, "max").wait();
      EXPECT_TRUE(at::equal(low, want_low));
      EXPECT_TRUE(at::equal(high, want_high));
    }
  });
}

TEST_P(CommunicatorSuite, GivesTheSameBitsOnEveryRankAndEveryTime) {
  on_ranks([](Communicator& world) {
    for (const int64_t count : {1, 5, 2000, 100001}) {
      Tensor sum = part(world.rank(), count, at::kFloat), again = part(world.rank(), count, at::kFloat);
      world.all_reduce(sum, Reduce::kSum, "sum").wait();
      world.all_reduce(again, Reduce::kSum, "sum").wait();
      EXPECT_TRUE(at::equal(sum, again)) << count;
      Tensor first = sum.clone();
      world.broadcast(first, 0, "rank 0's sum").wait();
      EXPECT_TRUE(at::equal(sum, first)) << count;
    }
  });
}

TEST_P(CommunicatorSuite, BroadcastsAnyDtypeFromAnyRoot) {
  on_ranks([](Communicator& world) {
    for (int root = 0; root < world.size(); ++root) {
      for (const auto type : {at::kFloat, at::kLong, at::kBFloat16, at::kByte, at::kUInt16}) {
        const Tensor want = part(root, 1001, at::kFloat).mul(100).abs().to(type);
        Tensor got = world.rank() == root ? want.clone() : at::zeros({1001}, type);
        world.broadcast(got, root, "broadcast").wait();
        EXPECT_TRUE(at::equal(got.view(at::kByte), want.view(at::kByte)))
            << at::toString(type) << root;
      }
    }
  });
}

TEST_P(CommunicatorSuite, TakesEmptyTensors) {
  on_ranks([](Communicator& world) {
    Tensor nothing = at::empty({0});
    world.all_reduce(nothing, Reduce::kSum, "nothing").wait();
    world.broadcast(nothing, 0, "nothing").wait();
    EXPECT_EQ(nothing.numel(), 0);
  });
}

TEST_P(CommunicatorSuite, BroadcastsBytesOfAnyLength) {
  on_ranks([](Communicator& world) {
    for (int root = 0; root < world.size(); ++root) {
      for (const std::string& text :
           {std::string(), std::string("a\0b", 3), std::string(100000, 'x')}) {
        EXPECT_EQ(world.broadcast_bytes(world.rank() == root ? text : "other", root, "text"), text);
      }
    }
  });
}

TEST_P(CommunicatorSuite, AgreesSilentlyWhereNoRankComplains) {
  on_ranks([](Communicator& world) {
    EXPECT_NO_THROW(world.agree("", true, "fine"));
    world.barrier("fine");
  });
}

TEST_P(CommunicatorSuite, OneRanksUserErrorIsThrownOnAll) {
  on_ranks([](Communicator& world) {
    for (int culprit = 0; culprit < world.size(); ++culprit) {
      try {
        world.agree(world.rank() == culprit ? "a.yaml:3: depth is 0" : "", world.rank() == culprit,
                     "check");
        ADD_FAILURE() << "nothing was thrown";
      } catch (const base::UserError& error) {
        EXPECT_STREQ(error.what(), "a.yaml:3: depth is 0");
        EXPECT_NE(dynamic_cast<const Agreed*>(&error), nullptr);
      }
    }
  });
}

TEST_P(CommunicatorSuite, TheLowestRanksSentenceWins) {
  on_ranks([](Communicator& world) {
    try {
      world.agree(fmt::format("sentence of {}", world.rank()), /*user=*/false, "check");
      ADD_FAILURE() << "nothing was thrown";
    } catch (const base::UserError&) {
      ADD_FAILURE() << "not the user's fault";
    } catch (const std::runtime_error& error) {
      EXPECT_THAT(error.what(), HasSubstr("sentence of 0"));
      EXPECT_NE(dynamic_cast<const Agreed*>(&error), nullptr);
    }
  });
}

TEST_P(CommunicatorSuite, RefusesBadArgumentsBeforeSending) {
  on_ranks([](Communicator& world) {
    const int size = world.size();
    EXPECT_THROW(world.all_reduce(at::ones({4, 4}).t().slice(0, 0, 2), Reduce::kSum, "strided"),
                 base::InvariantError);
    EXPECT_THROW(world.all_reduce(at::ones({4}, at::kInt), Reduce::kSum, "int32"),
                 base::InvariantError);
    EXPECT_THROW(world.broadcast(at::ones({4, 4}).t(), 0, "strided"), base::InvariantError);
    EXPECT_THROW(world.broadcast(at::ones({4}), size, "root"), base::InvariantError);
    EXPECT_THROW(world.broadcast(at::ones({4}), -1, "root"), base::InvariantError);
    Tensor fine = at::ones({1});  // the group still works
    world.all_reduce(fine, Reduce::kSum, "after").wait();
    EXPECT_EQ(fine.item<float>(), static_cast<float>(size));
  });
}

TEST_P(CommunicatorSuite, SumsInRankOrderWhateverTheSize) {
  on_ranks([](Communicator& world) {
    for (const int64_t count : {1, 7, 27, 28, 29, 100, 4097, 300001}) {
      Tensor sum = part(world.rank(), count, at::kFloat);
      world.all_reduce(sum, Reduce::kSum, "sum").wait();
      EXPECT_TRUE(at::equal(sum, sum_in_rank_order(world.size(), count, at::kFloat))) << count;
    }
  });
}

TEST_P(CommunicatorSuite, ReduceScatterGivesEachRankItsRowOfTheSum) {
  on_ranks([](Communicator& world) {
    const int64_t size = world.size();
    for (const int64_t count : {1, 5, 1000, 70001}) {
      const Tensor in_RP = part(world.rank(), count * size, at::kFloat);
      const Tensor untouched = in_RP.clone();
      Tensor row_P = at::empty({count});
      world.reduce_scatter(row_P, in_RP, Reduce::kSum, "rows").wait();
      const Tensor want_RP =
          sum_in_rank_order(world.size(), count * size, at::kFloat).view({size, count});
      EXPECT_TRUE(at::equal(row_P, want_RP[world.rank()])) << count;
      EXPECT_TRUE(at::equal(in_RP, untouched));
    }
  });
}

TEST_P(CommunicatorSuite, GathersAnyDtypeAlsoInPlace) {
  on_ranks([](Communicator& world) {
    const int64_t size = world.size();
    for (const auto& [type, count] : std::vector<std::pair<at::ScalarType, int64_t>>{
             {at::kFloat, 1001}, {at::kFloat, 28}, {at::kFloat, 29}, {at::kBFloat16, 1001},
             {at::kLong, 1001},  {at::kDouble, 7}, {at::kByte, 1001}, {at::kByte, 1},
             {at::kByte, 0}}) {  // 112 bytes travel with the meeting of the ranks
      auto row = [&, type = type, count = count](int rank) {
        return part(rank, count, at::kFloat).mul(100).abs().to(type);
      };
      Tensor out_RP = at::zeros({size, count}, type), place_RP = at::zeros({size, count}, type);
      world.all_gather(out_RP, row(world.rank()), "rows").wait();
      place_RP[world.rank()].copy_(row(world.rank()));
      world.all_gather(place_RP, place_RP[world.rank()], "rows in place").wait();
      for (int r = 0; r < world.size(); ++r) {
        EXPECT_TRUE(at::equal(out_RP[r], row(r))) << at::toString(type) << r;
        EXPECT_TRUE(at::equal(place_RP[r], row(r))) << at::toString(type) << r;
      }
    }
  });
}

TEST_P(CommunicatorSuite, GathersSeveralTensorsInOneCall) {
  on_ranks([](Communicator& world) {
    const int64_t size = world.size();
    const Tensor weights = part(world.rank(), 10, at::kFloat).to(at::kBFloat16),
                 gains = part(world.rank(), 3, at::kFloat);
    Tensor weights_RP = at::zeros({size, 10}, at::kBFloat16), gains_RP = at::zeros({size, 3});
    world.all_gather({{weights_RP, weights}, {gains_RP, gains}}, "unit 3").wait();
    for (int r = 0; r < world.size(); ++r) {
      EXPECT_TRUE(at::equal(weights_RP[r], part(r, 10, at::kFloat).to(at::kBFloat16)));
      EXPECT_TRUE(at::equal(gains_RP[r], part(r, 3, at::kFloat)));
    }
  });
}

TEST_P(CommunicatorSuite, KeepsSeveralCallsUnderWay) {
  on_ranks([](Communicator& world) {
    std::vector<Tensor> sums;
    std::vector<Work> pending;
    for (int64_t i = 0; i < 20; ++i) {
      sums.push_back(part(world.rank(), 1 + 997 * i, at::kFloat));
      pending.push_back(world.all_reduce(sums.back(), Reduce::kSum, "sum"));
    }
    for (size_t i = pending.size(); i-- > 0;) pending[i].wait();
    for (const Tensor& sum : sums)
      EXPECT_TRUE(at::equal(sum, sum_in_rank_order(world.size(), sum.numel(), at::kFloat)));
  });
}

TEST_P(CommunicatorSuite, AGroupCountsItsRanksInTheOrderGiven) {
  on_ranks([](Communicator& world) {
    // The even ranks backwards; the odd ones make no call.
    std::vector<int> members;
    for (int r = 0; r < world.size(); r += 2) members.insert(members.begin(), r);
    if (world.rank() % 2 == 0) {
      const auto group = world.create_group(members, "even ranks");
      EXPECT_EQ(group->size(), static_cast<int>(members.size()));
      EXPECT_EQ(members.at(group->rank()), world.rank());
      Tensor ranks_R = at::zeros({group->size()}, at::kLong);
      group->all_gather(ranks_R, at::full({1}, world.rank(), at::kLong), "ranks").wait();
      for (int r = 0; r < group->size(); ++r) EXPECT_EQ(ranks_R[r].item<int64_t>(), members[r]);
    }
    world.barrier("all again");
  });
}

// Over and over: what was under way as one group ended must not come up in the next.
TEST_P(CommunicatorSuite, AGroupOfItsOwnIsEndedAlone) {
  on_ranks([](Communicator& world) {
    if (world.size() == 1) return;
    std::vector<int> all;
    for (int r = 0; r < world.size(); ++r) all.push_back(r);
    constexpr int64_t kLarge = 100003;  // of the size that MPI does not send before it is asked for
    for (int64_t round = 0; round < 20; ++round) {
      const auto doomed = world.create_group(all, "doomed", 1000 + 2 * round);
      const auto calls_until_the_end = [&] {
        for (int64_t call = 0;; ++call) {
          if (doomed->rank() == 1 && call == round) doomed->end_group("the data are damaged");
          Tensor sum = at::ones({kLarge}, at::kDouble);
          doomed->all_reduce(sum, Reduce::kSum, "sum").wait();
        }
      };
      try {
        calls_until_the_end();
      } catch (const GroupEnded& ended) {
        EXPECT_STREQ(ended.what(), "the data are damaged");
      }
      EXPECT_EQ(doomed->ended(), "the data are damaged");
      EXPECT_THROW(doomed->barrier("again"), GroupEnded);

      const auto next = world.create_group(all, "next", 1001 + 2 * round);
      Tensor sum = part(world.rank(), kLarge, at::kFloat);
      next->all_reduce(sum, Reduce::kSum, "sum").wait();
      EXPECT_TRUE(at::equal(sum, sum_in_rank_order(world.size(), kLarge, at::kFloat)));
      EXPECT_EQ(next->ended(), std::nullopt);
    }
    world.barrier("the launch goes on");
  });
}

TEST_P(CommunicatorSuite, LettersArriveInOrderInTheirBox) {
  on_ranks([](Communicator& world) {
    const auto post = world.post();
    const int next = (world.rank() + 1) % world.size(), before = (world.rank() + world.size() - 1) % world.size();
    for (int i = 0; i < 50; ++i) {
      post->send(next, 0, std::to_string(i));
      post->send(next, 1, std::string(static_cast<size_t>(i) * 1000, 'x'));
    }
    for (int i = 0; i < 50; ++i) {
      const auto large = post->take(1, 60), small = post->take(0, 60);
      if (!large || !small) {
        ADD_FAILURE() << "letter " << i << " of rank " << before << " has not come";
        break;
      }
      EXPECT_EQ(large->text.size(), static_cast<size_t>(i) * 1000);
      EXPECT_EQ(small->text, std::to_string(i));
      EXPECT_EQ(small->from, before);
    }
    EXPECT_FALSE(post->take(0, 0));
    world.barrier("all read");
  });
}

TEST_P(CommunicatorSuite, RefusesRowsThatDoNotFit) {
  on_ranks([](Communicator& world) {
    const int64_t size = world.size();
    EXPECT_THROW(world.all_gather(at::empty({size * 3 + 1}), at::empty({3}), "rows"),
                 base::InvariantError);
    EXPECT_THROW(world.all_gather(at::empty({size * 3}, at::kDouble), at::empty({3}), "rows"),
                 base::InvariantError);
    EXPECT_THROW(
        world.reduce_scatter(at::empty({3}), at::empty({size * 3 + 1}), Reduce::kSum, "rows"),
        base::InvariantError);
    EXPECT_THROW(world.reduce_scatter(at::empty({3}, at::kBFloat16),
                                      at::empty({size * 3}, at::kBFloat16), Reduce::kSum, "rows"),
                 base::InvariantError);
    EXPECT_THROW(world.all_gather({}, "nothing"), base::InvariantError);
    world.barrier("still alive");
  });
}

INSTANTIATE_TEST_SUITE_P(Kinds, CommunicatorSuite, testing::Values("self", "thread1", "thread2", "thread3", "thread4",
                                         "world"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace varscale::comm
