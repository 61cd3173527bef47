// Ranks that leave, stall or make another call: every other rank hears of it in time, with names.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "comm/thread_group.hpp"

namespace varscale::comm {
namespace {

using testing::AllOf;
using testing::Each;
using testing::HasSubstr;

constexpr ThreadGroupOptions kShort{.deadline_s = 0.2};

// What every rank threw; "" where nothing.
std::vector<std::string> words_of(const std::vector<std::exception_ptr>& thrown) {
  std::vector<std::string> words;
  for (const std::exception_ptr& pointer : thrown) {
    words.emplace_back();
    if (!pointer) continue;
    try {
      std::rethrow_exception(pointer);
    } catch (const std::exception& error) {
      words.back() = error.what();
    }
  }
  return words;
}

void sum(Communicator& world, int64_t count, const char* tag) {
  Tensor ones = at::ones({count});
  world.all_reduce(ones, Reduce::kSum, tag).wait();
}

TEST(Faults, AnotherTagIsReportedWithBothDescriptionsOnEveryRank) {
  const auto words = words_of(try_ranks(3, [](Communicator& world) {
    sum(world, 4, "step 1");
    sum(world, 4, world.rank() == 1 ? "flags" : "gradients");
  }));
  EXPECT_THAT(words, Each(AllOf(HasSubstr("differ in call 2"),
                                HasSubstr("ranks 0, 2 call all_reduce sum Float[4] 'gradients'"),
                                HasSubstr("rank 1 calls all_reduce sum Float[4] 'flags'"))));
}

TEST(Faults, AnotherSizeOrCollectiveIsAMismatch) {
  const auto sizes = words_of(try_ranks(2, [](Communicator& world) {
    sum(world, 4 + world.rank(), "gradients");
  }));
  EXPECT_THAT(sizes, Each(AllOf(HasSubstr("Float[4]"), HasSubstr("Float[5]"))));
  const auto kinds = words_of(try_ranks(2, [](Communicator& world) {
    if (world.rank() == 0)
      sum(world, 4, "x");
    else
      world.barrier("x");
  }));
  EXPECT_THAT(kinds, Each(AllOf(HasSubstr("all_reduce sum"), HasSubstr("barrier 'x'"))));
}

TEST(Faults, ARankThatLeavesIsNamedWithItsLastCall) {
  const auto words = words_of(try_ranks(
      3,
      [](Communicator& world) {
        sum(world, 4, "step 1");
        if (world.rank() == 2) throw std::runtime_error("disk full");
        sum(world, 4, "step 2");
      },
      kShort));
  EXPECT_EQ(words[2], "disk full");
  for (const int rank : {0, 1}) {
    EXPECT_THAT(words[rank], AllOf(HasSubstr("in call 2, all_reduce sum Float[4] 'step 2'"),
                                   HasSubstr("rank 2 has finished call 1"), HasSubstr("'step 1'")));
  }
}

TEST(Faults, AbortWakesThoseWhoWaitLongBeforeTheirDeadline) {
  // With the default deadline of a minute this test would run into its own time limit.
  const auto words = words_of(try_ranks(3, [](Communicator& world) {
    if (world.rank() == 1) {
      world.abort("out of memory", 1);
      return;
    }
    sum(world, 4, "never");
  }));
  EXPECT_EQ(words[1], "");
  EXPECT_THAT(words[0], HasSubstr("rank 1: out of memory"));
  EXPECT_THAT(words[2], HasSubstr("rank 1: out of memory"));
}

TEST(Faults, ADeadGroupStaysDead) {
  run_ranks(2, [](Communicator& world) {
    world.abort("first fault", 1);
    for (int i = 0; i < 3; ++i) {
      try {
        sum(world, 1, "again");
        ADD_FAILURE() << "a dead group answered";
      } catch (const CommError& error) {
        EXPECT_THAT(error.what(), HasSubstr("first fault"));
      }
    }
  });
}

TEST(Faults, WorkDroppedByAnExceptionIsNotWaitedFor) {
  std::promise<void> thrown;  // rank 1 stays away from the call until rank 0 has left it
  const auto words = words_of(try_ranks(2, [&](Communicator& world) {
    if (world.rank() == 1) return thrown.get_future().wait();
    try {
      Tensor ones = at::ones({4});
      const Work work = world.all_reduce(ones, Reduce::kSum, "alone");
      throw std::runtime_error("rank 0 gives up");  // a wait here would take the whole minute
    } catch (...) {
      thrown.set_value();
      throw;
    }
  }));
  EXPECT_EQ(words[0], "rank 0 gives up");
}

TEST(Faults, WorkDroppedInGoodOrderIsWaitedFor) {
  run_ranks(2, [](Communicator& world) {
    Tensor ones = at::ones({1000});
    {
      const Work work = world.all_reduce(ones, Reduce::kSum, "dropped");
    }
    EXPECT_TRUE(at::equal(ones, at::full({1000}, 2.0F)));
  });
}

TEST(Faults, OnlyTheDeadGroupIsDead) {
  run_ranks(4, [](Communicator& world) {
    const int half = world.rank() / 2;
    const auto group = world.create_group({2 * half, 2 * half + 1}, "half");
    if (half == 0) {
      group->abort("this half fails", 1);
      EXPECT_THROW(group->barrier("dead"), CommError);
    } else {
      group->barrier("alive");
    }
    world.barrier("the rest of the launch goes on");
  });
}

TEST(EndTogether, AnErrorOfOneRankAloneEndsTheOthersLongBeforeTheirDeadline) {
  const auto words = words_of(try_ranks(3, [](Communicator& world) {
    end_together(world, [&]() -> base::ExitCode {
      if (world.rank() == 1) throw std::runtime_error("disk full");
      sum(world, 4, "never");
      return base::ExitCode::kDone;
    });
  }));
  EXPECT_EQ(words[1], "disk full");
  EXPECT_THAT(words[0], HasSubstr("rank 1: disk full"));
  EXPECT_THAT(words[2], HasSubstr("rank 1: disk full"));
}

TEST(EndTogether, AnAgreedErrorIsToldByTheFirstRankAndGivesAllTheSameCode) {
  std::vector<base::ExitCode> codes(3, base::ExitCode::kDone);
  for (const bool user : {true, false}) {
    const auto words = words_of(try_ranks(3, [&](Communicator& world) {
      const auto fail_at_rank_2 = [&]() -> base::ExitCode {
        world.agree(world.rank() == 2 ? "a.yaml:3: depth is 0" : "", user, "check");
        return base::ExitCode::kDone;
      };
      if (world.rank() == 0)
        EXPECT_THROW(end_together(world, fail_at_rank_2), Agreed);
      else
        codes[world.rank()] = end_together(world, fail_at_rank_2);
      world.barrier("nothing was aborted");
    }));
    EXPECT_THAT(words, Each(std::string()));
    const auto code = user ? base::ExitCode::kBadInput : base::ExitCode::kFailure;
    EXPECT_THAT(codes, testing::ElementsAre(base::ExitCode::kDone, code, code));
  }
}

TEST(EndTogether, GivesTheCodeOfWorkInGoodOrder) {
  run_ranks(2, [](Communicator& world) {
    EXPECT_EQ(end_together(world, [] { return base::ExitCode::kStopped; }),
              base::ExitCode::kStopped);
  });
}

}  // namespace
}  // namespace varscale::comm
