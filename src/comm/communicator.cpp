#include "comm/communicator.hpp"

#include <ATen/ATen.h>

#include <cstring>

#include "comm/call.hpp"
#include "comm/post.hpp"

namespace varscale::comm {

namespace {

class Self final : public Communicator {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  explicit Self(std::shared_ptr<Post> post) : post_(std::move(post)) {}
  std::unique_ptr<Communicator> create_group(const std::vector<int>& ranks, std::string_view tag,
                                             int64_t) override {
    VARSCALE_CHECK(ranks == std::vector<int>{0}, "{}: a group of one has rank 0 alone", tag);
    return std::make_unique<Self>(post_);
  }
  std::shared_ptr<Post> post() override { return post_; }
  void set_deadline(double) override {}
  void abort(std::string_view, int) noexcept override {}

 protected:
  Work start(Call call) override {
    for (size_t i = 0; i < call.in.size(); ++i) {
      if (call.out[i].data_ptr() != call.in[i].data_ptr())
        call.out[i].view({-1}).copy_(call.in[i].view({-1}));
    }
    return Work(nullptr);
  }

 private:
  std::shared_ptr<Post> post_;
};

struct AgreedUserError final : base::UserError, Agreed {
  explicit AgreedUserError(const std::string& sentence) : UserError(sentence) {}
};

struct AgreedError final : std::runtime_error, Agreed {
  explicit AgreedError(const std::string& sentence) : std::runtime_error(sentence) {}
};

}  // namespace

void Work::wait() {
  if (!state_) return;
  const std::unique_ptr<State> state = std::move(state_);
  state->wait();
}

Work::~Work() {
  if (!state_) return;
  if (std::uncaught_exceptions() > exceptions_) {
    state_->leave();
    return;
  }
  try {
    state_->wait();
  } catch (...) {  // the group is dead: its next call says so
  }
}

Work& Work::operator=(Work&& other) noexcept {
  Work old(std::move(*this));
  state_ = std::move(other.state_);
  exceptions_ = other.exceptions_;
  return *this;
}

namespace {

void check_contiguous(const Tensor& tensor, const char* call, std::string_view tag) {
  VARSCALE_CHECK(tensor.is_contiguous(), "{}: {} takes contiguous tensors", tag, call);
}

void check_reducible(const Tensor& tensor, const char* call, std::string_view tag) {
  const at::ScalarType type = tensor.scalar_type();
  VARSCALE_CHECK(type == at::kFloat || type == at::kDouble || type == at::kLong,
                 "{}: {} takes float32, float64 or int64, not {}", tag, call, at::toString(type));
  check_contiguous(tensor, call, tag);
}

// all_gather and reduce_scatter: `large` holds a row of the size of `small` for every rank.
void check_rows(const Tensor& large, const Tensor& small, int size, const char* call,
                std::string_view tag) {
  VARSCALE_CHECK(large.scalar_type() == small.scalar_type() && large.device() == small.device(),
                 "{}: {} from {} to {}", tag, call, at::toString(small.scalar_type()),
                 at::toString(large.scalar_type()));
  VARSCALE_CHECK(large.numel() == small.numel() * size,
                 "{}: {} of {} elements a rank and {} ranks has {} in all", tag, call,
                 small.numel(), size, large.numel());
}

}  // namespace

Work Communicator::all_reduce(Tensor inout_P, Reduce op, std::string_view tag,
                              const c10::Event* after) {
  check_reducible(inout_P, "all_reduce", tag);
  return start({.kind = Call::Kind::kAllReduce,
                .op = op,
                .out = {std::move(inout_P)},
                .after = after,
                .tag = std::string(tag)});
}

Work Communicator::reduce_scatter(Tensor out_P, Tensor in_RP, Reduce op, std::string_view tag,
                                  const c10::Event* after) {
  return reduce_scatter(std::vector<Scatter>{{std::move(out_P), std::move(in_RP)}}, op, tag, after);
}

Work Communicator::reduce_scatter(std::vector<Scatter> parts, Reduce op, std::string_view tag,
                                  const c10::Event* after) {
  Call call{.kind = Call::Kind::kReduceScatter, .op = op, .after = after, .tag = std::string(tag)};
  VARSCALE_CHECK(!parts.empty(), "{}: reduce_scatter of nothing", tag);
  for (Scatter& part : parts) {
    check_reducible(part.in_RP, "reduce_scatter", tag);
    check_contiguous(part.out_P, "reduce_scatter", tag);
    check_rows(part.in_RP, part.out_P, size(), "reduce_scatter", tag);
    call.out.push_back(std::move(part.out_P));
    call.in.push_back(std::move(part.in_RP));
  }
  return start(std::move(call));
}

Work Communicator::all_gather(Tensor out_RP, Tensor in_P, std::string_view tag,
                              const c10::Event* after) {
  return all_gather(std::vector<Gather>{{std::move(out_RP), std::move(in_P)}}, tag, after);
}

Work Communicator::all_gather(std::vector<Gather> parts, std::string_view tag,
                              const c10::Event* after) {
  Call call{.kind = Call::Kind::kAllGather, .after = after, .tag = std::string(tag)};
  VARSCALE_CHECK(!parts.empty(), "{}: all_gather of nothing", tag);
  for (Gather& part : parts) {
    check_contiguous(part.out_RP, "all_gather", tag);
    check_contiguous(part.in_P, "all_gather", tag);
    check_rows(part.out_RP, part.in_P, size(), "all_gather", tag);
    call.out.push_back(std::move(part.out_RP));
    call.in.push_back(std::move(part.in_P));
  }
  return start(std::move(call));
}

Work Communicator::broadcast(Tensor inout_P, int root, std::string_view tag,
                             const c10::Event* after) {
  VARSCALE_CHECK(root >= 0 && root < size(), "{}: broadcast from rank {} of {}", tag, root, size());
  check_contiguous(inout_P, "broadcast", tag);
  return start({.kind = Call::Kind::kBroadcast,
                .root = root,
                .out = {std::move(inout_P)},
                .after = after,
                .tag = std::string(tag)});
}

void Communicator::barrier(std::string_view tag) {
  start({.kind = Call::Kind::kBarrier, .tag = std::string(tag)}).wait();
}

base::ExitCode end_together(Communicator& world, const std::function<base::ExitCode()>& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    const bool user = dynamic_cast<const base::UserError*>(&error) != nullptr;
    const base::ExitCode code = user ? base::ExitCode::kBadInput : base::ExitCode::kFailure;
    if (dynamic_cast<const Agreed*>(&error) == nullptr)
      world.abort(error.what(), static_cast<int>(code));
    else if (world.rank() > 0)
      return code;
    throw;
  } catch (...) {
    world.abort("an exception of unknown type", static_cast<int>(base::ExitCode::kFailure));
    throw;
  }
}

std::unique_ptr<Communicator> make_self() { return std::make_unique<Self>(make_local_post(1)[0]); }

std::string Communicator::broadcast_bytes(std::string bytes, int root, std::string_view tag) {
  if (size() == 1) return bytes;
  Tensor length = at::full({1}, static_cast<int64_t>(bytes.size()), at::kLong);
  broadcast(length, root, tag).wait();
  Tensor buffer = at::empty({length.item<int64_t>()}, at::kByte);
  if (rank() == root) std::memcpy(buffer.data_ptr(), bytes.data(), bytes.size());
  if (buffer.numel() > 0) broadcast(buffer, root, tag).wait();
  return {static_cast<const char*>(buffer.data_ptr()), static_cast<size_t>(buffer.numel())};
}

void Communicator::agree(const std::string& sentence, bool user, std::string_view tag) {
  const int64_t mine = sentence.empty() ? size() : rank();
  Tensor first = at::full({1}, mine, at::kLong);
  all_reduce(first, Reduce::kMin, tag).wait();
  const auto failed = first.item<int64_t>();
  if (failed == size()) return;
  const std::string told =
      broadcast_bytes((user ? "u" : "i") + sentence, static_cast<int>(failed), tag);
  const std::string words = told.substr(1);
  if (told[0] == 'u') throw AgreedUserError(words);
  throw AgreedError(size() == 1 ? words : fmt::format("rank {}: {}", failed, words));
}

}  // namespace varscale::comm
