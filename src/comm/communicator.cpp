#include "comm/communicator.hpp"

#include <ATen/ATen.h>

#include <cstring>

namespace varscale::comm {

namespace {

class Self final : public Communicator {
 public:
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return 1; }
  Work all_reduce(Tensor inout_P, Reduce, std::string_view tag) override {
    check_all_reduce(inout_P, tag);
    return Work(nullptr);
  }
  Work broadcast(Tensor inout_P, int root, std::string_view tag) override {
    check_broadcast(inout_P, root, tag);
    return Work(nullptr);
  }
  void barrier(std::string_view) override {}
  void abort(std::string_view, int) noexcept override {}
};

struct AgreedUserError final : base::UserError, Agreed {
  explicit AgreedUserError(const std::string& sentence) : UserError(sentence) {}
};

struct AgreedError final : std::runtime_error, Agreed {
  explicit AgreedError(const std::string& sentence) : std::runtime_error(sentence) {}
};

}  // namespace

void Communicator::check_all_reduce(const Tensor& inout_P, std::string_view tag) const {
  const at::ScalarType type = inout_P.scalar_type();
  VARSCALE_CHECK(type == at::kFloat || type == at::kDouble || type == at::kLong,
                 "{}: all_reduce takes float32, float64 or int64, not {}", tag, at::toString(type));
  VARSCALE_CHECK(inout_P.is_contiguous(), "{}: all_reduce takes a contiguous tensor", tag);
}

void Communicator::check_broadcast(const Tensor& inout_P, int root, std::string_view tag) const {
  VARSCALE_CHECK(root >= 0 && root < size(), "{}: broadcast from rank {} of {}", tag, root, size());
  VARSCALE_CHECK(inout_P.is_contiguous(), "{}: broadcast takes a contiguous tensor", tag);
}

std::unique_ptr<Communicator> make_self() { return std::make_unique<Self>(); }

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
