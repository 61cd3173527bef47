// The Nccl kind over a table that only pretends: order, tensors kept, deadlines, errors. Ranks are
// threads; their control group is real.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>

#include "comm/call.hpp"
#include "comm/nccl/api.hpp"
#include "comm/thread_group.hpp"

namespace varscale::comm::nccl {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Marks pass when the test says so, and calls reach the stream when it says so.
struct FakeApi final : Api {
  struct FakeMark final : Mark {
    FakeApi* api;
    std::shared_ptr<std::atomic<bool>> open;
    bool passed() override {
      TORCH_CHECK(!api->device_is_broken, "CUDA error: an illegal memory access was encountered");
      return *open;
    }
    void hold_caller() override { ++api->held; }
  };

  void enter_thread() override {
    const std::scoped_lock lock(mutex);
    threads.insert(std::this_thread::get_id());
  }

  std::string unique_id() override { return "id of rank 0"; }
  Handle init(const std::string& id, int size, int rank) override {
    note(fmt::format("init {} {}/{}", id, rank, size));
    return reinterpret_cast<Handle>(static_cast<intptr_t>(++handles));
  }
  void destroy(Handle, double) noexcept override { ++destroyed; }
  void abort(Handle handle) noexcept override {
    {
      const std::scoped_lock lock(mutex);
      ++aborts[handle];
    }
    abort_has_begun = true;
    while (abort_hangs) usleep(1000);
    ++aborted;
  }
  Status status(Handle handle) override {
    const std::scoped_lock lock(mutex);
    was_asked = true;
    if (aborts.contains(handle)) used_after_abort = true;
    return {.busy = busy, .error = error};
  }
  void group_begin() override { note("{"); }
  void group_end() override { note("}"); }
  void all_reduce(Handle, const Tensor&, Reduce) override {
    note("all_reduce");
    if (refuses) throw CommError("ncclAllReduce: invalid argument");
  }
  void reduce_scatter(Handle, const Tensor&, const Tensor&, Reduce) override {
    note("reduce_scatter");
  }
  void all_gather(Handle, const Tensor&, const Tensor&) override { note("all_gather"); }
  void broadcast(Handle, const Tensor&, int root) override {
    note(fmt::format("broadcast {}", root));
  }
  void follow_caller(const c10::Event* after) override {
    note(after == nullptr ? "follow stream" : "follow event");
  }
  std::unique_ptr<Mark> mark() override {
    auto mark = std::make_unique<FakeMark>();
    mark->api = this;
    mark->open = open;
    note("mark");
    return mark;
  }

  void note(std::string word) {
    const std::scoped_lock lock(mutex);
    log.push_back(std::move(word));
  }
  std::vector<std::string> take_log() {
    const std::scoped_lock lock(mutex);
    return std::move(log);
  }

  std::mutex mutex;
  std::vector<std::string> log;
  std::optional<std::string> error;
  std::map<Handle, int> aborts;
  std::set<std::thread::id> threads;
  std::shared_ptr<std::atomic<bool>> open = std::make_shared<std::atomic<bool>>(true);
  std::atomic<bool> busy = false, refuses = false, device_is_broken = false, abort_hangs = false;
  std::atomic<bool> was_asked = false, abort_has_begun = false, used_after_abort = false;
  std::atomic<int> handles = 0, destroyed = 0, aborted = 0, held = 0;
};

// Until the thread that clears up has aborted so many handles; then nothing more for a moment.
void wait_for_aborts(FakeApi& api, int count) {
  for (int i = 0; i < 500 && api.aborted < count; ++i) usleep(10000);
  usleep(50000);
  EXPECT_EQ(api.aborted, count);
}

std::string failure_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no CommError";
}

constexpr GroupOptions kAll{.deadline_s = 0.2, .all_tensors = true};

TEST(NcclGroup, OrdersEachCallAfterTheCallerAndMarksIt) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  const auto group = make_group(*self, api, kAll);
  EXPECT_THAT(api->take_log(), ElementsAre("init id of rank 0 0/1"));
  Tensor x = at::ones({4});
  Work work = group->all_reduce(x, Reduce::kSum, "x");
  EXPECT_THAT(api->take_log(), ElementsAre("follow stream", "{", "all_reduce", "}", "mark"));
  EXPECT_EQ(api->held, 0);
  work.wait();
  EXPECT_EQ(api->held, 1);
}

TEST(NcclGroup, SendsSeveralTensorsAsOneGroupOfCalls) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  const auto group = make_group(*self, api, kAll);
  api->take_log();
  group->all_gather({{at::empty({4}), at::ones({4})}, {at::empty({2}), at::ones({2})}}, "unit")
      .wait();
  EXPECT_THAT(api->take_log(),
              ElementsAre("follow stream", "{", "all_gather", "all_gather", "}", "mark"));
}

TEST(NcclGroup, KeepsTensorsUntilTheDeviceIsDoneNotUntilWait) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  const auto group = make_group(*self, api, {.deadline_s = 60, .all_tensors = true});
  Tensor x = at::ones({4});
  group->all_reduce(x, Reduce::kSum, "x").wait();
  EXPECT_GT(x.use_count(), 1U);
  *api->open = true;
  for (int i = 0; i < 500 && x.use_count() > 1; ++i) usleep(10000);
  EXPECT_EQ(x.use_count(), 1U);
}

TEST(NcclGroup, CpuTensorsAndBarriersGoToTheControlGroup) {
  run_ranks(3, [](Communicator& control) {
    const auto api = std::make_shared<FakeApi>();
    const auto group = make_group(control, api, {});
    api->take_log();
    Tensor sum = at::ones({2});
    group->all_reduce(sum, Reduce::kSum, "flags").wait();
    EXPECT_TRUE(at::equal(sum, at::full({2}, 3.0F)));
    group->barrier("end");
    EXPECT_THAT(api->take_log(), ElementsAre());
  });
}

TEST(NcclGroup, AStallAbortsTheLibraryAndNamesTheCall) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  const auto group = make_group(*self, api, kAll);
  Tensor x = at::ones({4});
  Work stalled = group->all_reduce(x, Reduce::kSum, "gradients");
  wait_for_aborts(*api, 1);
  EXPECT_THAT(failure_of([&] { stalled.wait(); }),
              AllOf(HasSubstr("0.2 s in call 1"), HasSubstr("'gradients'")));
  EXPECT_THROW(std::ignore = group->all_reduce(x, Reduce::kSum, "next"), CommError);
}

// NCCL frees what it aborts: a second abort, or a question after it, is of freed memory.
TEST(NcclGroup, AStallAbortsEveryGroupOfTheDeviceOnceAndTouchesNoneAgain) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  {
    const auto world = make_group(*self, api, kAll);
    const auto shards = world->create_group({0}, "shards");
    const auto idle = world->create_group({0}, "replicas");
    Tensor x = at::ones({4});
    std::vector<Work> works;
    for (int i = 0; i < 3; ++i) {
      works.push_back(world->all_reduce(x, Reduce::kSum, "x"));
      works.push_back(shards->all_reduce(x, Reduce::kSum, "x"));
    }
    wait_for_aborts(*api, 3);
  }
  for (const auto& [handle, times] : api->aborts) EXPECT_EQ(times, 1);
  EXPECT_EQ(api->destroyed, 0);
  EXPECT_FALSE(api->used_after_abort);
}

TEST(NcclGroup, AfterAFailureCallsOfTheControlGroupThrowToo) {
  const auto self = make_self();
  const auto group = make_group(*self, std::make_shared<FakeApi>(), {});
  group->barrier("before");
  group->abort("enough", 1);
  EXPECT_THAT(failure_of([&] { group->barrier("after"); }), HasSubstr("enough"));
}

TEST(NcclGroup, AnErrorOfTheLibraryIsThrownAtTheNextCall) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  const auto group = make_group(*self, api, {.deadline_s = 60, .all_tensors = true});
  Tensor x = at::ones({4});
  Work work = group->broadcast(x, 0, "weights");
  {
    const std::scoped_lock lock(api->mutex);
    api->error = "remote process exited";
  }
  wait_for_aborts(*api, 1);
  EXPECT_THAT(failure_of([&] { work.wait(); }),
              AllOf(HasSubstr("'weights'"), HasSubstr("remote process exited")));
}

TEST(NcclGroup, AnErrorOfTheDeviceIsThrownAndDoesNotEndTheProcess) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  const auto group = make_group(*self, api, {.deadline_s = 60, .all_tensors = true});
  Tensor x = at::ones({4});
  Work work = group->all_reduce(x, Reduce::kSum, "x");
  api->device_is_broken = true;
  wait_for_aborts(*api, 1);
  EXPECT_THAT(failure_of([&] { work.wait(); }),
              AllOf(HasSubstr("illegal memory access"), Not(HasSubstr("Exception raised from"))));
}

TEST(NcclGroup, ACallThatTheLibraryRefusesEndsItsGroupOfCalls) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  const auto group = make_group(*self, api, kAll);
  api->take_log();
  api->refuses = true;
  Tensor x = at::ones({4});
  EXPECT_THAT(failure_of([&] { std::ignore = group->all_reduce(x, Reduce::kSum, "x"); }),
              AllOf(HasSubstr("call 1 of 'world'"), HasSubstr("invalid argument")));
  EXPECT_THAT(api->take_log(), ElementsAre("follow stream", "{", "all_reduce", "}"));
}

TEST(NcclGroup, MarksACallOnlyWhenItHasReachedTheStream) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  const auto group = make_group(*self, api, {.deadline_s = 60, .all_tensors = true});
  api->take_log();
  api->busy = true;
  api->was_asked = false;
  Tensor x = at::ones({4});
  std::thread caller([&] { group->all_reduce(x, Reduce::kSum, "x").wait(); });
  while (!api->was_asked) usleep(1000);
  EXPECT_THAT(api->take_log(), ElementsAre("follow stream", "{", "all_reduce", "}"));
  api->busy = false;
  caller.join();
  EXPECT_THAT(api->take_log(), ElementsAre("mark"));
}

TEST(NcclGroup, ARankThatDoesNotComeToTheSetUpIsADeadlineToo) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  api->busy = true;
  EXPECT_THAT(failure_of([&] { make_group(*self, api, kAll); }),
              AllOf(HasSubstr("0.2 s in the set-up of NCCL for 'world'")));
  wait_for_aborts(*api, 1);
}

// A first collective connects to the other ranks before it reaches the stream.
TEST(NcclGroup, ARankThatDoesNotComeToAFirstCallIsADeadlineToo) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  const auto group = make_group(*self, api, kAll);
  api->busy = true;
  Tensor x = at::ones({4});
  EXPECT_THAT(failure_of([&] { std::ignore = group->all_reduce(x, Reduce::kSum, "first"); }),
              AllOf(HasSubstr("0.2 s in call 1"), HasSubstr("'first'")));
  wait_for_aborts(*api, 1);
}

TEST(NcclGroup, AbortWakesACallThatHasNotReachedTheStream) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  const auto group = make_group(*self, api, {.deadline_s = 600, .all_tensors = true});
  api->busy = true;
  Tensor x = at::ones({4});
  std::string failure;
  std::thread caller([&] {
    failure = failure_of([&] { std::ignore = group->all_reduce(x, Reduce::kSum, "x"); });
  });
  usleep(50000);
  group->abort("disk full", 1);
  caller.join();
  EXPECT_THAT(failure, HasSubstr("disk full"));
}

TEST(NcclGroup, SetDeadlineHoldsForTheNextCallEvenBehindALongerOne) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  const auto group = make_group(*self, api, {.deadline_s = 600, .all_tensors = true});
  Tensor x = at::ones({4});
  Work first = group->all_reduce(x, Reduce::kSum, "first");
  group->set_deadline(0.1);
  Work second = group->all_reduce(x, Reduce::kSum, "second");
  wait_for_aborts(*api, 1);
  EXPECT_THAT(failure_of([&] { second.wait(); }),
              AllOf(HasSubstr("0.1 s in call 1"), HasSubstr("'first'")));
}

TEST(NcclGroup, AGroupIsGivenBackWhenItsCallsHaveEnded) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  auto group = make_group(*self, api, {.deadline_s = 60, .all_tensors = true});
  Tensor x = at::ones({4});
  group->all_reduce(x, Reduce::kSum, "x").wait();
  std::thread closing([&] { group.reset(); });
  usleep(100000);
  EXPECT_EQ(api->destroyed, 0);
  EXPECT_GT(x.use_count(), 1U);
  *api->open = true;
  closing.join();
  EXPECT_EQ(api->destroyed, 1);
  EXPECT_EQ(api->aborted, 0);
}

// The others will never come to what this rank has left by an exception of its own.
TEST(NcclGroup, AGroupLeftByAnExceptionIsAbortedNotWaitedFor) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  EXPECT_THROW(
      {
        const auto group = make_group(*self, api, {.deadline_s = 600, .all_tensors = true});
        Tensor x = at::ones({4});
        const Work work = group->all_reduce(x, Reduce::kSum, "x");
        throw base::UserError("disk full");
      },
      base::UserError);
  wait_for_aborts(*api, 1);
  EXPECT_EQ(api->destroyed, 0);
}

// Alone in the library, but one rank of a group and a launch that can end.
struct OneInTheLibrary final : Communicator {
  explicit OneInTheLibrary(Communicator& group) : group_(group) {}
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  std::unique_ptr<Communicator> create_group(const std::vector<int>&, std::string_view, int64_t) override {
    return nullptr;
  }
  std::optional<std::string> ended() override { return group_.ended(); }
  void set_deadline(double) override {}
  void abort(std::string_view why, int code) noexcept override {
    group_.abort(why, code);
    aborted = true;
  }
  Work start(Call) override { return Work(nullptr); }
  Communicator& group_;
  std::atomic<bool> aborted = false;
};

// The end of a run of several: a rank that waits for the device hears of it through the control group.
TEST(NcclGroup, AGroupThatAnotherRankEndsWakesTheDevice) {
  std::atomic<bool> under_way = false;
  run_ranks(2, [&](Communicator& control) {
    if (control.rank() == 1) {
      while (!under_way) usleep(1000);
      control.end_group("rank 1 is out of memory");
      return;
    }
    const auto self = make_self();
    const auto api = std::make_shared<FakeApi>();
    *api->open = false;
    OneInTheLibrary alone(control);
    const auto group = make_group(alone, api, {.deadline_s = 60, .all_tensors = true});
    Tensor x = at::ones({4});
    Work work = group->all_reduce(x, Reduce::kSum, "x");
    under_way = true;
    wait_for_aborts(*api, 1);
    try {
      work.wait();
      ADD_FAILURE() << "an ended group answered";
    } catch (const GroupEnded& ended) {
      EXPECT_STREQ(ended.what(), "rank 1 is out of memory");
    }
    EXPECT_FALSE(alone.aborted) << "the launch was ended";
  });
}

TEST(NcclGroup, AnAbortThatHangsHoldsNobody) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  api->abort_hangs = true;
  const auto group = make_group(*self, api, kAll);
  Tensor x = at::ones({4});
  Work work = group->all_reduce(x, Reduce::kSum, "x");
  for (int i = 0; i < 500 && !api->abort_has_begun; ++i) usleep(10000);
  EXPECT_THAT(failure_of([&] { work.wait(); }), HasSubstr("0.2 s in call 1"));
  api->abort_hangs = false;
}

// The thread that waits for the device is stuck there, if NCCL cannot end its kernel.
TEST(NcclGroup, AFailureThatNobodyHearsOfEndsTheLaunch) {
  run_ranks(2, [](Communicator& control) {
    if (control.rank() == 1) {
      EXPECT_THAT(failure_of([&] { control.barrier("never"); }),
                  AllOf(HasSubstr("rank 0"), HasSubstr("0.1 s in call 1")));
      return;
    }
    const auto self = make_self();
    const auto api = std::make_shared<FakeApi>();
    *api->open = false;
    OneInTheLibrary both(control);
    const auto group =
        make_group(both, api, {.deadline_s = 0.1, .grace_s = 0.2, .all_tensors = true});
    Tensor x = at::ones({4});
    const Work work = group->all_reduce(x, Reduce::kSum, "x");
    for (int i = 0; i < 500 && !both.aborted; ++i) usleep(10000);
    EXPECT_TRUE(both.aborted);
  });
}

TEST(NcclGroup, TheWatchdogSetsTheDeviceOfItsThread) {
  const auto self = make_self();
  const auto api = std::make_shared<FakeApi>();
  *api->open = false;
  const auto group = make_group(*self, api, kAll);
  Tensor x = at::ones({4});
  Work work = group->all_reduce(x, Reduce::kSum, "x");
  wait_for_aborts(*api, 1);
  EXPECT_THROW(work.wait(), CommError);
  EXPECT_EQ(api->threads.size(), 2U);  // and so does the one that aborts
  EXPECT_FALSE(api->threads.contains(std::this_thread::get_id()));
}

// NCCL itself would hang, or add up what does not belong together.
TEST(NcclGroup, RanksThatDifferOnTheDeviceAreFoundOutAtTheNextCallOfTheControlGroup) {
  const auto thrown = try_ranks(2, [](Communicator& control) {
    const auto api = std::make_shared<FakeApi>();
    const auto group = make_group(control, api, kAll);
    Tensor x = at::ones({4});
    group->all_reduce(x, Reduce::kSum, control.rank() == 0 ? "block 1" : "block 2").wait();
    group->barrier("end of step");
  });
  for (const std::exception_ptr& one : thrown) {
    ASSERT_NE(one, nullptr);
    EXPECT_THAT(failure_of([&] { std::rethrow_exception(one); }),
                AllOf(HasSubstr("the ranks differ"), HasSubstr("1 calls on the device")));
  }
}

TEST(NcclGroup, RanksTakeTurnsOnTheDevicesTheySee) {
  EXPECT_EQ(device_index(0, 1), 0);
  EXPECT_EQ(device_index(3, 1), 0);  // Slurm shows each task a device of its own
  EXPECT_EQ(device_index(3, 8), 3);
  EXPECT_EQ(device_index(5, 4), 1);
  EXPECT_THROW(device_index(0, 0), base::UserError);
}

TEST(NcclGroup, GroupsOfSomeRanksAreOpenedByTheirMembersAlone) {
  run_ranks(4, [](Communicator& control) {
    const auto api = std::make_shared<FakeApi>();
    const auto world = make_group(control, api, kAll);
    api->take_log();
    if (control.rank() < 2) {
      const auto half = world->create_group({0, 1}, "half");
      EXPECT_EQ(half->size(), 2);
      EXPECT_THAT(api->take_log(),
                  ElementsAre(fmt::format("init id of rank 0 {}/2", control.rank())));
    }
    EXPECT_EQ(api->destroyed, control.rank() < 2 ? 1 : 0);
  });
}

}  // namespace
}  // namespace varscale::comm::nccl
