// The Nccl kind: numbering, order, deadlines and what is said when a rank does not come. The calls
// themselves are the table's.
#include <ATen/ATen.h>
#include <fmt/ranges.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

#include "base/clock.hpp"
#include "comm/call.hpp"
#include "comm/nccl/api.hpp"

namespace varscale::comm {

namespace nccl {

namespace {

using base::seconds_since;
using Clock = std::chrono::steady_clock;

constexpr size_t kRing = 64;
constexpr auto kTick = std::chrono::milliseconds(20);
constexpr auto kAbortTime = std::chrono::seconds(5);

// CUDA's errors come as libtorch's, with a list of stack frames.
std::string words_of(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  return of_torch != nullptr ? of_torch->what_without_backtrace() : error.what();
}

// A call that has begun. Its tensors are kept until its own mark has passed on the device, not until
// somebody waits.
struct Pending {
  std::string what;
  Api::Handle handle = nullptr;
  std::vector<Tensor> kept = {};
  std::shared_ptr<Mark> mark = {};  // none yet: it has not reached the stream
  Clock::time_point begun = Clock::now();
  double deadline_s = 0;
};

// Tensors that the device may still write to after a failure: never freed, and within reach, so that the
// leak check takes them for what they are.
void keep_for_ever(std::deque<Pending> pending) {
  static std::mutex mutex;
  static auto& kept = *new std::vector<std::deque<Pending>>;
  const std::scoped_lock lock(mutex);
  kept.push_back(std::move(pending));
}

// One device of a process: one order over all its groups, and a thread that watches what is under way.
//
// A failure is the end of all its groups: one thread, which nobody waits for long, aborts them; the
// tensors of what was under way stay, because the device may still write to them.
class Device {
 public:
  Device(Communicator& control, std::shared_ptr<Api> api, const GroupOptions& options)
      : control_(control),
        api_(std::move(api)),
        grace_s_(options.grace_s),
        deadline_s_(options.deadline_s) {
    watchdog_ = std::thread([this] { watch(); });
  }
  ~Device() {
    {
      const std::scoped_lock lock(mutex_);
      stop_ = true;
      changed_.notify_all();
    }
    watchdog_.join();
    if (aborted_.valid()) aborted_.wait_for(kAbortTime);
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  Api& api() { return *api_; }

  // Collective.
  Api::Handle open(const std::string& what, const std::string& id, int size, int rank) {
    const std::scoped_lock order(order_mutex_);
    std::unique_lock lock(mutex_);
    throw_if_failed_locked();
    begin({.what = what});
    Api::Handle handle = nullptr;
    guarded([&] {
      handle = api_->init(id, size, rank);
      open_.push_back(handle);
    });
    pending_.back().handle = handle;
    settle(lock, handle);
    pending_.pop_back();
    return handle;
  }

  // Waits until nothing of the handle is under way, and gives it back. Collective.
  void close(Api::Handle handle) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] {
      return failure_ || std::none_of(pending_.begin(), pending_.end(),
                                      [&](const Pending& p) { return p.handle == handle; });
    });
    if (failure_) {
      told_ = true;  // whoever closes a group is on the way out
      return;
    }
    std::erase(open_, handle);
    api_->destroy(handle, deadline_s_);
  }

  template <class Calls>
  std::shared_ptr<Mark> launch(const std::string& what, Api::Handle handle, const Call& call,
                               const Calls& calls) {
    const std::scoped_lock order(order_mutex_);
    std::unique_lock lock(mutex_);
    throw_if_failed_locked();
    ring_.push_back(what);
    if (ring_.size() > kRing) ring_.pop_front();
    std::vector<Tensor> kept = call.out;
    kept.insert(kept.end(), call.in.begin(), call.in.end());
    begin({.what = what, .handle = handle, .kept = std::move(kept)});
    guarded([&] {
      api_->follow_caller(call.after);
      calls();
    });
    settle(lock, handle);
    std::shared_ptr<Mark> mark;
    guarded([&] { mark = api_->mark(); });
    pending_.back().mark = mark;
    return mark;
  }

  void throw_if_failed() {
    const std::scoped_lock lock(mutex_);
    throw_if_failed_locked();
  }
  void set_deadline(double seconds) {
    const std::scoped_lock lock(mutex_);
    deadline_s_ = seconds;
  }
  void fail(const std::string& why) {
    const std::scoped_lock lock(mutex_);
    fail_locked(why);
    told_ = true;
  }
  void end(const std::string& why) {
    const std::scoped_lock lock(mutex_);
    end_locked(why);
  }

 private:
  void begin(Pending call) {
    call.deadline_s = deadline_s_;
    pending_.push_back(std::move(call));
    changed_.notify_all();
  }

  // Runs calls of the table for the newest pending one; what they throw is the end.
  template <class Calls>
  void guarded(const Calls& calls) {
    try {
      calls();
    } catch (const std::exception& error) {
      fail_locked(
          fmt::format("rank {} in {}: {}", control_.rank(), pending_.back().what, words_of(error)));
      throw_if_failed_locked();
    }
  }

  // Until the newest pending call has reached the stream. Lets the others have the lock meanwhile: the
  // watchdog sees to errors and to the deadline.
  void settle(std::unique_lock<std::mutex>& lock, Api::Handle handle) {
    for (int turn = 0;; ++turn) {
      throw_if_failed_locked();
      Status status;
      guarded([&] { status = api_->status(handle); });
      if (!status.busy && !status.error) return;
      lock.unlock();
      if (turn < 1000)
        sched_yield();
      else
        usleep(100);
      lock.lock();
    }
  }

  void throw_if_failed_locked() {
    if (!failure_) return;
    told_ = true;
    if (ended_) throw GroupEnded(*failure_);
    throw CommError(*failure_);
  }

  // A member has ended the group: whoever waits for the device wakes up when NCCL's kernels are aborted.
  void end_locked(const std::string& why) {
    if (!failure_) ended_ = true;
    fail_locked(why);
  }

  void fail_locked(const std::string& why) {
    if (failure_) return;
    failure_ = why;
    failed_at_ = Clock::now();
    keep_for_ever(std::move(pending_));
    pending_.clear();
    std::promise<void> aborted;
    aborted_ = aborted.get_future();
    std::thread([api = api_, handles = std::move(open_), done = std::move(aborted)]() mutable {
      try {
        api->enter_thread();
        for (const Api::Handle handle : handles) api->abort(handle);
      } catch (
          const std::exception&) {  // the failure has been told; this one is of the clearing up
      }
      done.set_value();
    }).detach();
    changed_.notify_all();
  }

  void watch() {
    std::unique_lock lock(mutex_);
    try {
      api_->enter_thread();
    } catch (const std::exception& error) {
      fail_locked(fmt::format("rank {}: {}", control_.rank(), words_of(error)));
    }
    while (!stop_) {
      changed_.wait_for(lock, kTick);
      if (failure_) {
        end_the_launch(lock);
        continue;
      }
      try {
        look();
      } catch (const std::exception& error) {
        fail_locked(fmt::format("rank {}: {}", control_.rank(), words_of(error)));
      }
    }
  }

  void look() {
    if (const auto why = control_.ended()) return end_locked(*why);
    const size_t before = pending_.size();
    while (!pending_.empty() && pending_.front().mark && pending_.front().mark->passed())
      pending_.pop_front();
    if (pending_.size() < before) changed_.notify_all();
    for (const Pending& call : pending_) {
      if (call.handle == nullptr) continue;
      if (const auto error = api_->status(call.handle).error)
        return fail_locked(fmt::format("rank {} in {}: {}", control_.rank(), call.what, *error));
    }
    for (const Pending& call : pending_) {
      if (seconds_since(call.begun) < call.deadline_s) continue;
      if (!ring_.empty())
        std::fprintf(stderr, "%s\n",
                     fmt::format("the newest collectives of rank {}:\n  {}", control_.rank(),
                                 fmt::join(ring_, "\n  "))
                         .c_str());
      // The oldest one is in the way of all others.
      return fail_locked(fmt::format("rank {} has waited {:g} s in {}", control_.rank(),
                                     call.deadline_s, pending_.front().what));
    }
  }

  // The other threads are stuck, in the device or in NCCL, and will not come to hear of the failure.
  void end_the_launch(std::unique_lock<std::mutex>& lock) {
    if (told_ || seconds_since(failed_at_) < grace_s_) return;
    told_ = true;
    const std::string why = *failure_;
    lock.unlock();
    control_.abort(why, static_cast<int>(base::ExitCode::kFailure));
    lock.lock();
  }

  Communicator& control_;
  std::shared_ptr<Api> api_;
  const double grace_s_;
  std::mutex order_mutex_;  // held by one call from its first word to its place in the stream
  std::mutex mutex_;        // of all that follows, and of every call on a handle
  std::condition_variable changed_;
  double deadline_s_;
  bool stop_ = false, told_ = false, ended_ = false;
  std::optional<std::string> failure_;
  Clock::time_point failed_at_;
  std::future<void> aborted_;
  std::vector<Api::Handle> open_;
  std::deque<Pending> pending_;
  std::deque<std::string> ring_;
  std::thread watchdog_;
};

struct MarkState final : Work::State {
  std::shared_ptr<Device> device;
  std::shared_ptr<Mark> mark;
  void wait() override {
    device->throw_if_failed();
    mark->hold_caller();
  }
};

class Group final : public Communicator {
 public:
  Group(Communicator& control, std::shared_ptr<Device> device, std::string name,
        const GroupOptions& options)
      : control_(control), device_(std::move(device)), name_(std::move(name)), options_(options) {
    open();
  }
  Group(std::unique_ptr<Communicator> control, std::shared_ptr<Device> device, std::string name,
        const GroupOptions& options)
      : owned_control_(std::move(control)),
        control_(*owned_control_),
        device_(std::move(device)),
        name_(std::move(name)),
        options_(options) {
    open();
  }
  ~Group() override {
    // Calls that an exception has left may be waiting for ranks that will not come.
    if (std::uncaught_exceptions() > exceptions_)
      device_->fail(fmt::format("rank {} has left '{}' by an error", rank(), name_));
    device_->close(handle_);
  }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const noexcept override { return control_.rank(); }
  int size() const noexcept override { return control_.size(); }

  std::unique_ptr<Communicator> create_group(const std::vector<int>& ranks, std::string_view tag,
                                             int64_t own) override {
    device_->throw_if_failed();
    return std::make_unique<Group>(control_.create_group(ranks, tag, own), device_, std::string(tag),
                                   options_);
  }

  void set_deadline(double seconds) override {
    device_->set_deadline(seconds);
    control_.set_deadline(seconds);
  }

  void end_group(std::string_view why) noexcept override {
    control_.end_group(why);
    try {
      device_->end(std::string(why));
    } catch (...) {
    }
  }
  std::optional<std::string> ended() override { return control_.ended(); }
  std::shared_ptr<Post> post() override { return control_.post(); }

  void abort(std::string_view why, int exit_code) noexcept override {
    try {
      device_->fail(fmt::format("rank {}: {}", rank(), why));
    } catch (...) {
    }
    control_.abort(why, exit_code);
  }

 protected:
  Work start(Call call) override {
    if (call.kind == Call::Kind::kBarrier || !on_device(call)) return pass_on(std::move(call));
    const std::string description = call.describe();
    calls_ = call_hash(++number_, fmt::format("{} {}", calls_, description));
    auto state = std::make_unique<MarkState>();
    state->device = device_;
    state->mark = device_->launch(fmt::format("call {} of '{}', {}", number_, name_, description),
                                  handle_, call, [&] { enqueue(call); });
    return Work(std::move(state));
  }

 private:
  void open() {
    std::string id;
    agree_on(control_, "NCCL id", [&] {
      if (rank() == 0) id = device_->api().unique_id();
    });
    id = control_.broadcast_bytes(std::move(id), 0, "NCCL id");
    handle_ = device_->open(fmt::format("the set-up of NCCL for '{}', {} ranks", name_, size()), id,
                            size(), rank());
  }

  bool on_device(const Call& call) const {
    return options_.all_tensors || call.out.at(0).is_cuda();
  }

  // NCCL compares nothing; the control group does at its next call, whose tag tells what went before.
  Work pass_on(Call call) {
    device_->throw_if_failed();
    if (number_ > 0)
      call.tag =
          fmt::format("{}; before it {} calls on the device, {:016x}", call.tag, number_, calls_);
    switch (call.kind) {
      case Call::Kind::kBarrier:
        control_.barrier(call.tag);
        return Work(nullptr);
      case Call::Kind::kAllReduce:
        return control_.all_reduce(call.out[0], call.op, call.tag);
      case Call::Kind::kBroadcast:
        return control_.broadcast(call.out[0], call.root, call.tag);
      case Call::Kind::kAllGather: {
        std::vector<Gather> parts;
        for (size_t i = 0; i < call.in.size(); ++i) parts.push_back({call.out[i], call.in[i]});
        return control_.all_gather(std::move(parts), call.tag);
      }
      case Call::Kind::kReduceScatter: {
        std::vector<Scatter> parts;
        for (size_t i = 0; i < call.in.size(); ++i) parts.push_back({call.out[i], call.in[i]});
        return control_.reduce_scatter(std::move(parts), call.op, call.tag);
      }
    }
    return Work(nullptr);
  }

  void enqueue(const Call& call) {
    Api& api = device_->api();
    api.group_begin();
    try {
      for (size_t i = 0; i < call.out.size(); ++i) enqueue_part(api, call, i);
    } catch (...) {
      // NCCL counts the beginnings: one without an end would swallow all later calls.
      try {
        api.group_end();
      } catch (const std::exception&) {
      }
      throw;
    }
    api.group_end();
  }

  void enqueue_part(Api& api, const Call& call, size_t i) {
    switch (call.kind) {
      case Call::Kind::kAllReduce:
        return api.all_reduce(handle_, call.out[i], call.op);
      case Call::Kind::kReduceScatter:
        return api.reduce_scatter(handle_, call.out[i], call.in[i], call.op);
      case Call::Kind::kAllGather:
        return api.all_gather(handle_, call.out[i], call.in[i]);
      case Call::Kind::kBroadcast:
        return api.broadcast(handle_, call.out[i], call.root);
      case Call::Kind::kBarrier:
        return;
    }
  }

  std::unique_ptr<Communicator> owned_control_;
  Communicator& control_;
  std::shared_ptr<Device> device_;
  std::string name_;
  GroupOptions options_;
  Api::Handle handle_ = nullptr;
  int64_t number_ = 0;
  uint64_t calls_ = 0;  // a hash over all calls so far: equal on all ranks
  int exceptions_ = std::uncaught_exceptions();
};

}  // namespace

int device_index(int local_rank, int devices) {
  if (devices < 1)
    throw base::UserError("the device asked for is cuda, but this process sees no CUDA device");
  return local_rank % devices;
}

std::unique_ptr<Communicator> make_group(Communicator& control, std::shared_ptr<Api> api,
                                         const GroupOptions& options) {
  return std::make_unique<Group>(
      control, std::make_shared<Device>(control, std::move(api), options), "world", options);
}

}  // namespace nccl

std::unique_ptr<Communicator> open_nccl(Communicator& control) {
  std::shared_ptr<nccl::Api> api;
  agree_on(control, "CUDA device", [&] { api = nccl::cuda_api(); });
  return nccl::make_group(control, std::move(api));
}

}  // namespace varscale::comm
