// The Nccl kind: numbering, order, deadlines and what is said when a rank does not come. The calls
// themselves are the table's.
#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <mutex>
#include <thread>

#include "comm/call.hpp"
#include "comm/nccl/api.hpp"

namespace varscale::comm::nccl {

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kRing = 64;
constexpr auto kTick = std::chrono::milliseconds(20);

// A collective on the stream: its tensors are kept until its own mark has passed on the device, not
// until somebody waits.
struct Pending {
  int64_t number;
  std::string group, description;
  Api::Handle handle;
  std::vector<Tensor> kept;
  std::shared_ptr<Mark> mark;
  Clock::time_point begun;
  double deadline_s;
};

// One device of a process: one order over all its groups, and a thread that watches what is under way.
class Device {
 public:
  Device(std::shared_ptr<Api> api, double deadline_s)
      : api_(std::move(api)), deadline_s_(deadline_s) {
    watchdog_ = std::thread([this] { watch(); });
  }
  ~Device() {
    {
      const std::scoped_lock lock(mutex_);
      stop_ = true;
      changed_.notify_all();
    }
    watchdog_.join();
  }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  Api& api() { return *api_; }

  template <class Launch>
  std::shared_ptr<Mark> launch(const std::string& group, Api::Handle handle, int64_t number,
                               const Call& call, const Launch& launch_on_stream) {
    const std::scoped_lock lock(mutex_);
    if (failure_) throw CommError(*failure_);
    std::string description = call.describe();
    order_ = call_hash(static_cast<int64_t>(order_ >> 1), group + description);
    api_->follow_caller(call.after);
    launch_on_stream();
    const std::shared_ptr<Mark> mark = api_->mark();
    std::vector<Tensor> kept = call.out;
    kept.insert(kept.end(), call.in.begin(), call.in.end());
    ring_.push_back(fmt::format("{} call {}: {}", group, number, description));
    if (ring_.size() > kRing) ring_.pop_front();
    pending_.push_back({number, group, std::move(description), handle, std::move(kept), mark,
                        Clock::now(), deadline_s_});
    changed_.notify_all();
    return mark;
  }

  void throw_if_failed() {
    const std::scoped_lock lock(mutex_);
    if (failure_) throw CommError(*failure_);
  }
  void set_deadline(double seconds) {
    const std::scoped_lock lock(mutex_);
    deadline_s_ = seconds;
  }
  // The order of all launches so far: equal on all ranks of a launch, or they will hang.
  uint64_t order() {
    const std::scoped_lock lock(mutex_);
    return order_;
  }
  void fail(const std::string& why) {
    const std::scoped_lock lock(mutex_);
    fail_locked(why);
  }
  // Nothing of this group is under way any more.
  void forget(Api::Handle handle) {
    const std::scoped_lock lock(mutex_);
    std::erase_if(pending_, [&](const Pending& p) { return p.handle == handle; });
    if (failure_)
      api_->abort(handle);
    else
      api_->destroy(handle);
  }
  std::vector<std::string> recent() {
    const std::scoped_lock lock(mutex_);
    return {ring_.begin(), ring_.end()};
  }

 private:
  void fail_locked(const std::string& why) {
    if (!failure_) failure_ = why;
    for (const Pending& p : pending_) api_->abort(p.handle);
    pending_.clear();
    changed_.notify_all();
  }

  void watch() {
    std::unique_lock lock(mutex_);
    while (!stop_) {
      changed_.wait_for(lock, kTick);
      while (!pending_.empty() && pending_.front().mark->passed()) pending_.pop_front();
      if (pending_.empty()) continue;
      const Pending& oldest = pending_.front();
      if (const auto error = api_->async_error(oldest.handle)) {
        fail_locked(fmt::format("{} call {}, {}: {}", oldest.group, oldest.number,
                                oldest.description, *error));
        continue;
      }
      const double waited = std::chrono::duration<double>(Clock::now() - oldest.begun).count();
      if (waited < oldest.deadline_s) continue;
      std::fprintf(stderr, "the newest collectives of this rank:\n  %s\n",
                   fmt::format("{}", fmt::join(ring_, "\n  ")).c_str());
      fail_locked(fmt::format("{} has waited {:g} s in call {}, {}", oldest.group,
                              oldest.deadline_s, oldest.number, oldest.description));
    }
  }

  std::shared_ptr<Api> api_;
  std::mutex mutex_;
  std::condition_variable changed_;
  double deadline_s_;
  bool stop_ = false;
  std::optional<std::string> failure_;
  std::deque<Pending> pending_;
  std::deque<std::string> ring_;
  uint64_t order_ = 0;
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
  ~Group() override { device_->forget(handle_); }
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const noexcept override { return control_.rank(); }
  int size() const noexcept override { return control_.size(); }

  std::unique_ptr<Communicator> create_group(const std::vector<int>& ranks,
                                             std::string_view tag) override {
    return std::make_unique<Group>(control_.create_group(ranks, tag), device_, std::string(tag),
                                   options_);
  }

  void set_deadline(double seconds) override {
    device_->set_deadline(seconds);
    control_.set_deadline(seconds);
  }

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
    auto state = std::make_unique<MarkState>();
    state->device = device_;
    state->mark = device_->launch(name_, handle_, ++number_, call, [&] { enqueue(call); });
    return Work(std::move(state));
  }

 private:
  void open() {
    const std::string id = control_.broadcast_bytes(
        control_.rank() == 0 ? device_->api().unique_id() : std::string(), 0, "NCCL id");
    handle_ = device_->api().init(id, control_.size(), control_.rank());
  }

  bool on_device(const Call& call) const {
    return options_.all_tensors || call.out.at(0).is_cuda();
  }

  Work pass_on(Call call) {
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
    for (size_t i = 0; i < call.out.size(); ++i) {
      switch (call.kind) {
        case Call::Kind::kAllReduce:
          api.all_reduce(handle_, call.out[i], call.op);
          break;
        case Call::Kind::kReduceScatter:
          api.reduce_scatter(handle_, call.out[i], call.in[i], call.op);
          break;
        case Call::Kind::kAllGather:
          api.all_gather(handle_, call.out[i], call.in[i]);
          break;
        case Call::Kind::kBroadcast:
          api.broadcast(handle_, call.out[i], call.root);
          break;
        case Call::Kind::kBarrier:
          break;
      }
    }
    api.group_end();
  }

  std::unique_ptr<Communicator> owned_control_;
  Communicator& control_;
  std::shared_ptr<Device> device_;
  std::string name_;
  GroupOptions options_;
  Api::Handle handle_ = nullptr;
  int64_t number_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> make_group(Communicator& control, std::shared_ptr<Api> api,
                                         const GroupOptions& options) {
  return std::make_unique<Group>(control, std::make_shared<Device>(std::move(api), options.deadline_s),
                                 "world", options);
}

}  // namespace varscale::comm::nccl

namespace varscale::comm {

std::unique_ptr<Communicator> open_nccl(Communicator& control) {
  return nccl::make_group(control, nccl::cuda_api());
}

}  // namespace varscale::comm
