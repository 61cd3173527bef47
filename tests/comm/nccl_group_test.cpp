// The Nccl kind over a table that only pretends: order, tensors kept, deadlines, errors. Ranks are
// threads; their control group is real.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <atomic>
#include <mutex>
#include <tuple>

#include "comm/nccl/api.hpp"
#include "comm/thread_group.hpp"

namespace varscale::comm::nccl {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

// Marks pass when the test says so.
struct FakeApi final : Api {
  struct FakeMark final : Mark {
    std::shared_ptr<std::atomic<bool>> open;
    std::atomic<int>* held;
    bool passed() override { return *open; }
    void hold_caller() override { ++*held; }
  };

  std::string unique_id() override { return "id of rank 0"; }
  Handle init(const std::string& id, int size, int rank) override {
    note(fmt::format("init {} {}/{}", id, rank, size));
    return reinterpret_cast<Handle>(static_cast<intptr_t>(++handles));
  }
  void destroy(Handle) noexcept override { ++destroyed; }
  void abort(Handle) noexcept override { ++aborted; }
  std::optional<std::string> async_error(Handle) override {
    const std::scoped_lock lock(mutex);
    return error;
  }
  void group_begin() override { note("{"); }
  void group_end() override { note("}"); }
  void all_reduce(Handle, const Tensor&, Reduce) override { note("all_reduce"); }
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
    mark->open = open;
    mark->held = &held;
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
  std::shared_ptr<std::atomic<bool>> open = std::make_shared<std::atomic<bool>>(true);
  std::atomic<int> handles = 0, destroyed = 0, aborted = 0, held = 0;
};

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
  for (int i = 0; i < 500 && api->aborted == 0; ++i) usleep(10000);
  EXPECT_EQ(api->aborted, 1);
  try {
    stalled.wait();
    ADD_FAILURE() << "nothing was thrown";
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("0.2 s in call 1"), HasSubstr("'gradients'")));
  }
  EXPECT_THROW(std::ignore = group->all_reduce(x, Reduce::kSum, "next"), CommError);
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
  for (int i = 0; i < 500 && api->aborted == 0; ++i) usleep(10000);
  EXPECT_THROW(work.wait(), CommError);
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
