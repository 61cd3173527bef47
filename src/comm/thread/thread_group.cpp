#include "comm/thread_group.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <thread>

#include "comm/call.hpp"
#include "comm/post.hpp"

namespace varscale::comm {

namespace {

using Clock = std::chrono::steady_clock;

// One collective: who has come so far. The last one to come does the work for all.
struct Meeting {
  std::vector<std::optional<Call>> calls;  // by rank
  std::vector<std::string> descriptions;
  int arrived = 0, left = 0;
  bool done = false;
};

void* at_row(const Tensor& tensor, int64_t row, size_t row_bytes) {
  return static_cast<std::byte*>(tensor.data_ptr()) + static_cast<size_t>(row) * row_bytes;
}

void perform(std::vector<std::optional<Call>>& calls) {
  const Call& first = *calls[0];
  const int64_t size = static_cast<int64_t>(calls.size());
  switch (first.kind) {
    case Call::Kind::kBarrier:
      return;
    case Call::Kind::kAllReduce: {
      std::vector<const void*> rows;
      for (const auto& call : calls) rows.push_back(call->out[0].const_data_ptr());
      void* sum = calls[0]->out[0].data_ptr();
      reduce_rows(sum, rows, first.out[0].numel(), first.out[0].scalar_type(), first.op);
      for (int64_t r = 1; r < size; ++r)
        std::memcpy(calls[r]->out[0].data_ptr(), sum, first.out[0].nbytes());
      return;
    }
    case Call::Kind::kReduceScatter:
      for (size_t part = 0; part < first.in.size(); ++part) {
        for (int64_t r = 0; r < size; ++r) {
          const Tensor& out = calls[r]->out[part];
          std::vector<const void*> rows;
          for (const auto& call : calls) rows.push_back(at_row(call->in[part], r, out.nbytes()));
          reduce_rows(out.data_ptr(), rows, out.numel(), out.scalar_type(), first.op);
        }
      }
      return;
    case Call::Kind::kAllGather:
      for (const auto& target : calls) {
        for (size_t part = 0; part < first.in.size(); ++part) {
          for (int64_t r = 0; r < size; ++r) {
            const Tensor& in = calls[r]->in[part];
            void* row = at_row(target->out[part], r, in.nbytes());
            if (row != in.data_ptr()) std::memcpy(row, in.data_ptr(), in.nbytes());
          }
        }
      }
      return;
    case Call::Kind::kBroadcast:
      for (int64_t r = 0; r < size; ++r) {
        if (r != first.root)
          std::memcpy(calls[r]->out[0].data_ptr(), calls[first.root]->out[0].data_ptr(),
                      first.out[0].nbytes());
      }
      return;
  }
}

// What the ranks of one group share.
class Hub {
 public:
  Hub(int size, double deadline_s) : size_(size), deadline_s_(deadline_s), newest_(size) {}
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  int64_t join(int rank, Call call) {
    const std::scoped_lock lock(mutex_);
    throw_if_failed();
    const int64_t number = newest_[rank].number + 1;
    newest_[rank] = {number, false, call.describe()};
    Meeting& meeting = meetings_[number];
    meeting.calls.resize(size_);
    meeting.descriptions.resize(size_);
    meeting.descriptions[rank] = newest_[rank].description;
    meeting.calls[rank] = std::move(call);
    if (++meeting.arrived < size_) return number;
    for (const std::string& description : meeting.descriptions) {
      if (description != meeting.descriptions[0]) {
        fail(mismatch_message(number, meeting.descriptions));
        throw CommError(*failure_);
      }
    }
    perform(meeting.calls);
    for (auto& call_of_rank : meeting.calls) call_of_rank.reset();
    meeting.done = true;
    changed_.notify_all();
    return number;
  }

  void wait(int rank, int64_t number) {
    std::unique_lock lock(mutex_);
    const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                             std::chrono::duration<double>(deadline_s_));
    Meeting& meeting = meetings_.at(number);
    while (!meeting.done) {
      throw_if_failed();
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout && !meeting.done &&
          !failure_)
        fail(stall_message(rank, number, meeting));
    }
    leave_locked(rank, number, meeting);
  }

  void leave(int rank, int64_t number) {
    const std::scoped_lock lock(mutex_);
    const auto found = meetings_.find(number);
    if (found != meetings_.end() && found->second.done) leave_locked(rank, number, found->second);
  }

  void fail_from_outside(const std::string& why, bool ended) {
    const std::scoped_lock lock(mutex_);
    if (!failure_) ended_ = ended;
    fail(why);
  }
  std::optional<std::string> ended() {
    const std::scoped_lock lock(mutex_);
    return ended_ ? failure_ : std::nullopt;
  }

  void set_deadline(double seconds) {
    const std::scoped_lock lock(mutex_);
    deadline_s_ = seconds;
  }
  double deadline_s() {
    const std::scoped_lock lock(mutex_);
    return deadline_s_;
  }

  // The hub of a group that members make at the same call: the first to come makes it.
  std::shared_ptr<Hub> group(const std::vector<int>& ranks, const std::string& tag, int rank) {
    const std::scoped_lock lock(mutex_);
    auto& pending = groups_[{ranks, tag}];
    if (!pending.hub) {
      pending.hub = std::make_shared<Hub>(static_cast<int>(ranks.size()), deadline_s_);
      pending.missing = static_cast<int>(ranks.size());
    }
    const std::shared_ptr<Hub> hub = pending.hub;
    VARSCALE_CHECK(std::find(ranks.begin(), ranks.end(), rank) != ranks.end(),
                   "{}: rank {} is no member of the group [{}]", tag, rank, fmt::join(ranks, ", "));
    if (--pending.missing == 0) groups_.erase({ranks, tag});
    return hub;
  }

 private:
  struct PendingGroup {
    std::shared_ptr<Hub> hub;
    int missing = 0;
  };

  void throw_if_failed() const {
    if (failure_ && ended_) throw GroupEnded(*failure_);
    if (failure_) throw CommError(*failure_);
  }

  void fail(const std::string& why) {
    if (!failure_) failure_ = why;
    changed_.notify_all();
  }

  void leave_locked(int rank, int64_t number, Meeting& meeting) {
    if (newest_[rank].number == number) newest_[rank].done = true;
    if (++meeting.left == size_) meetings_.erase(number);
  }

  std::string stall_message(int rank, int64_t number, const Meeting& meeting) const {
    std::vector<std::string> missing;
    for (int r = 0; r < size_; ++r) {
      if (!meeting.calls[r]) missing.push_back(fmt::format("rank {} {}", r, newest_[r].words()));
    }
    return fmt::format("rank {} has waited {:g} s in call {}, {}: {}", rank, deadline_s_, number,
                       meeting.descriptions[rank], fmt::join(missing, "; "));
  }

  const int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  double deadline_s_;
  std::optional<std::string> failure_;
  bool ended_ = false;  // the failure is what end_group() said
  std::vector<Progress> newest_;  // by rank
  std::map<int64_t, Meeting> meetings_;
  std::map<std::pair<std::vector<int>, std::string>, PendingGroup> groups_;
};

struct ThreadState final : Work::State {
  std::shared_ptr<Hub> hub;
  int rank = 0;
  int64_t number = 0;
  void wait() override { hub->wait(rank, number); }
  void leave() noexcept override { hub->leave(rank, number); }
};

class ThreadRank final : public Communicator {
 public:
  ThreadRank(std::shared_ptr<Hub> hub, std::shared_ptr<Post> post, int rank, int size)
      : hub_(std::move(hub)), post_(std::move(post)), rank_(rank), size_(size) {}
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }

  std::unique_ptr<Communicator> create_group(const std::vector<int>& ranks, std::string_view tag,
                                             int64_t own) override {
    auto hub = hub_->group(ranks, fmt::format("{} {}", tag, own), rank_);
    const auto place = std::find(ranks.begin(), ranks.end(), rank_) - ranks.begin();
    return std::make_unique<ThreadRank>(std::move(hub), post_, static_cast<int>(place),
                                        static_cast<int>(ranks.size()));
  }

  void set_deadline(double seconds) override { hub_->set_deadline(seconds); }
  void abort(std::string_view why, int) noexcept override {
    try {
      hub_->fail_from_outside(fmt::format("rank {}: {}", rank_, why), /*ended=*/false);
    } catch (...) {
    }
  }
  void end_group(std::string_view why) noexcept override {
    try {
      hub_->fail_from_outside(std::string(why), /*ended=*/true);
    } catch (...) {
    }
  }
  std::optional<std::string> ended() override { return hub_->ended(); }
  std::shared_ptr<Post> post() override { return post_; }

 protected:
  Work start(Call call) override {
    for (const auto* tensors : {&call.out, &call.in}) {
      for (const Tensor& tensor : *tensors)
        VARSCALE_CHECK(tensor.is_cpu(), "{}: the Thread kind takes CPU tensors", call.tag);
    }
    auto state = std::make_unique<ThreadState>();
    state->hub = hub_;
    state->rank = rank_;
    state->number = hub_->join(rank_, std::move(call));
    return Work(std::move(state));
  }

 private:
  std::shared_ptr<Hub> hub_;
  std::shared_ptr<Post> post_;
  int rank_, size_;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_thread_group(int size,
                                                             const ThreadGroupOptions& options) {
  VARSCALE_CHECK(size >= 1, "a group of {} ranks", size);
  const auto hub = std::make_shared<Hub>(size, options.deadline_s);
  std::vector<std::unique_ptr<Communicator>> ranks;
  const auto post = make_local_post(size);
  for (int r = 0; r < size; ++r)
    ranks.push_back(std::make_unique<ThreadRank>(hub, post[static_cast<size_t>(r)], r, size));
  return ranks;
}

std::vector<std::exception_ptr> try_ranks(int size, const std::function<void(Communicator&)>& body,
                                          const ThreadGroupOptions& options) {
  auto group = make_thread_group(size, options);
  std::vector<std::exception_ptr> thrown(size);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      try {
        body(*group[r]);
      } catch (...) {
        thrown[r] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return thrown;
}

void run_ranks(int size, const std::function<void(Communicator&)>& body,
               const ThreadGroupOptions& options) {
  for (const std::exception_ptr& thrown : try_ranks(size, body, options)) {
    if (thrown) std::rethrow_exception(thrown);
  }
}

}  // namespace varscale::comm
