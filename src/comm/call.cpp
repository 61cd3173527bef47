#include "comm/call.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

namespace varscale::comm {

namespace {

const char* word_of(Reduce op) {
  return op == Reduce::kSum ? "sum" : op == Reduce::kMin ? "min" : "max";
}

std::string shapes(const std::vector<Tensor>& tensors) {
  std::string words;
  for (const Tensor& tensor : tensors)
    words += fmt::format("{}{}[{}]", words.empty() ? "" : " ", at::toString(tensor.scalar_type()),
                         tensor.numel());
  return words;
}

template <class T, class Op>
void reduce_typed(T* out, const std::vector<const void*>& rows, int64_t count, Op op) {
  // Blocks that stay in the cache; within one the rows are taken in order.
  constexpr int64_t kBlock = 4096;
  std::array<T, kBlock> sum;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    std::memcpy(sum.data(), static_cast<const T*>(rows[0]) + begin, n * sizeof(T));
    for (size_t r = 1; r < rows.size(); ++r) {
      const T* row = static_cast<const T*>(rows[r]) + begin;
      for (int64_t i = 0; i < n; ++i) sum[i] = op(sum[i], row[i]);
    }
    std::memcpy(out + begin, sum.data(), n * sizeof(T));
  }
}

template <class T>
void reduce_as(void* out, const std::vector<const void*>& rows, int64_t count, Reduce op) {
  T* target = static_cast<T*>(out);
  switch (op) {
    case Reduce::kSum:
      return reduce_typed(target, rows, count, [](T a, T b) { return static_cast<T>(a + b); });
    case Reduce::kMin:
      return reduce_typed(target, rows, count, [](T a, T b) { return b < a ? b : a; });
    case Reduce::kMax:
      return reduce_typed(target, rows, count, [](T a, T b) { return a < b ? b : a; });
  }
}

}  // namespace

std::string Call::describe() const {
  switch (kind) {
    case Kind::kAllReduce:
      return fmt::format("all_reduce {} {} '{}'", word_of(op), shapes(out), tag);
    case Kind::kReduceScatter:
      return fmt::format("reduce_scatter {} {} '{}'", word_of(op), shapes(in), tag);
    case Kind::kAllGather:
      return fmt::format("all_gather {} '{}'", shapes(in), tag);
    case Kind::kBroadcast:
      return fmt::format("broadcast {} from rank {} '{}'", shapes(out), root, tag);
    case Kind::kBarrier:
      return fmt::format("barrier '{}'", tag);
  }
  return tag;
}

std::string Progress::words() const {
  if (number == 0) return "has made no call yet";
  return fmt::format("{} call {}, {}", done ? "has finished" : kIsIn, number, description);
}

std::string mismatch_message(int64_t number, const std::vector<std::string>& descriptions,
                             const std::vector<int>& names) {
  std::vector<std::string> parts;
  std::vector<bool> told(descriptions.size(), false);
  for (size_t r = 0; r < descriptions.size(); ++r) {
    if (told[r]) continue;
    std::vector<int> ranks;
    for (size_t other = r; other < descriptions.size(); ++other) {
      if (descriptions[other] != descriptions[r]) continue;
      told[other] = true;
      ranks.push_back(names.empty() ? static_cast<int>(other) : names[other]);
    }
    parts.push_back(fmt::format("{} {} {} {}", ranks.size() == 1 ? "rank" : "ranks",
                                fmt::join(ranks, ", "), ranks.size() == 1 ? "calls" : "call",
                                descriptions[r]));
  }
  return fmt::format("the ranks differ in call {}: {}", number, fmt::join(parts, "; "));
}

uint64_t call_hash(int64_t number, const std::string& description) {
  uint64_t hash = 14695981039346656037U;
  auto mix = [&hash](unsigned char byte) { hash = (hash ^ byte) * 1099511628211U; };
  for (int shift = 0; shift < 64; shift += 8)
    mix(static_cast<unsigned char>(static_cast<uint64_t>(number) >> shift));
  for (const char c : description) mix(static_cast<unsigned char>(c));
  return hash;
}

void reduce_rows(void* out, const std::vector<const void*>& rows, int64_t count,
                 at::ScalarType type, Reduce op) {
  switch (type) {
    case at::kFloat:
      return reduce_as<float>(out, rows, count, op);
    case at::kDouble:
      return reduce_as<double>(out, rows, count, op);
    case at::kLong:
      return reduce_as<int64_t>(out, rows, count, op);
    default:
      VARSCALE_CHECK(false, "no reduction of {}", at::toString(type));
  }
}

}  // namespace varscale::comm
