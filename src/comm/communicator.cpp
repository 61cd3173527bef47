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
    VARSCALE_CHECK(inout_P.is_contiguous(), "{}: all_reduce takes a contiguous tensor", tag);
    return Work(nullptr);
  }
  Work broadcast(Tensor inout_P, int root, std::string_view tag) override {
    VARSCALE_CHECK(inout_P.is_contiguous() && root == 0, "{}: broadcast from rank {} of 1", tag, root);
    return Work(nullptr);
  }
  void barrier(std::string_view) override {}
};

}  // namespace

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
  const std::string told = broadcast_bytes(fmt::format("{}{}", user ? 'u' : 'i', sentence), static_cast<int>(failed), tag);
  const std::string words = size() == 1 ? told.substr(1) : fmt::format("rank {}: {}", failed, told.substr(1));
  if (told[0] == 'u') throw base::UserError(told.substr(1));
  throw std::runtime_error(words);
}

}  // namespace varscale::comm
