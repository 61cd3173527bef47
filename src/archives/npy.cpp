#include "archives/npy.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <optional>

#include "archives/printable.hpp"
#include "base/error.hpp"

namespace varscale::archives {
namespace {

using base::UserError;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr size_t kPreamble1 = 10, kPreamble2 = 12;  // magic, version, length of the words: 2 or 4 bytes
constexpr size_t kAlign = 64;
constexpr uint64_t kMostWords = 1 << 20;  // numpy itself reads 10,000

// Bytes of one value, 0 where the dtype is none of plain numbers.
uint64_t value_size(std::string_view dtype) {
  constexpr std::string_view kOrders = "<>|=", kKinds = "biufc";
  if (dtype.size() < 3 || kOrders.find(dtype[0]) == kOrders.npos || kKinds.find(dtype[1]) == kKinds.npos) return 0;
  uint64_t size = 0;
  const auto [end, error] = std::from_chars(dtype.data() + 2, dtype.data() + dtype.size(), size);
  return error == std::errc() && end == dtype.data() + dtype.size() && size <= 32 ? size : 0;
}

// The words of a head: a Python dictionary of strings, truth values and tuples of whole numbers.
class Words {
 public:
  Words(std::string_view text, const std::string& where) : text_(text), where_(where) {}

  NpyHead read() {
    NpyHead head;
    bool order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr") head.dtype = dtype();
      else if (key == "fortran_order") head.fortran_order = truth(), order = true;
      else if (key == "shape") head.shape = tuple(), shape = true;
      else fail(fmt::format("has an unknown key '{}'", printable(key)));
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    if (head.dtype.empty() || !order || !shape) fail("lacks one of descr, fortran_order and shape");
    return head;
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw UserError("{}: the head of the array {}", where_, why); }

  void skip_blanks() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_]))) ++at_;
  }
  bool take(char c) {
    skip_blanks();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(fmt::format("has no '{}' at its byte {}", c, at_));
  }
  bool take_word(std::string_view word) {
    skip_blanks();
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  std::string string() {
    const char quote = take('"') ? '"' : '\'';
    if (quote == '\'') expect('\'');
    const size_t end = text_.find(quote, at_);
    if (end == std::string_view::npos) fail("has a string without an end");
    const std::string read(text_.substr(at_, end - at_));
    at_ = end + 1;
    return read;
  }
  std::string dtype() {
    skip_blanks();
    if (at_ < text_.size() && text_[at_] == '[') fail("has a structured dtype; expected plain numbers");
    const std::string read = string();
    if (value_size(read) == 0) fail(fmt::format("has the dtype '{}'; expected plain numbers", printable(read)));
    return read;
  }
  bool truth() {
    if (take_word("True")) return true;
    if (!take_word("False")) fail("has a fortran_order that is neither True nor False");
    return false;
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> sizes;
    expect('(');
    while (!take(')')) {
      skip_blanks();
      int64_t size = -1;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), size);
      if (error != std::errc() || size < 0) fail("has a shape that is no list of sizes");
      at_ = static_cast<size_t>(end - text_.data());
      if (at_ < text_.size() && text_[at_] == 'L') ++at_;  // of Python 2
      sizes.push_back(size);
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view text_;
  const std::string& where_;
  size_t at_ = 0;
};

// Number of values, or nothing where it or their bytes do not fit into 63 bits.
std::optional<int64_t> count_of(const NpyHead& head) {
  int64_t count = 1, bytes = 0;
  for (const int64_t size : head.shape)
    if (size < 0 || __builtin_mul_overflow(count, size, &count)) return std::nullopt;
  if (__builtin_mul_overflow(count, static_cast<int64_t>(value_size(head.dtype)), &bytes)) return std::nullopt;
  return count;
}

// Bytes of the whole head, from its first 12.
uint64_t head_bytes(std::string_view beginning, const std::string& where) {
  if (beginning.size() < kPreamble1 || !beginning.starts_with(kMagic))
    throw UserError("{}: not an array of numpy (it does not begin as .npy files do)", where);
  const auto byte = [&](size_t at) { return static_cast<uint64_t>(static_cast<unsigned char>(beginning[at])); };
  const uint64_t major = byte(6), minor = byte(7);
  if (major < 1 || major > 3 || minor != 0)
    throw UserError("{}: version {}.{} of numpy's format; expected 1.0, 2.0 or 3.0", where, major, minor);
  if (major == 1) return kPreamble1 + byte(8) + (byte(9) << 8);
  if (beginning.size() < kPreamble2) throw UserError("{}: the head of the array is cut short", where);
  return kPreamble2 + byte(8) + (byte(9) << 8) + (byte(10) << 16) + (byte(11) << 24);
}

}  // namespace

int64_t NpyHead::values() const {
  const std::optional<int64_t> count = count_of(*this);
  VARSCALE_CHECK(count.has_value(), "an array of {} dimensions and dtype {}", shape.size(), dtype);
  return *count;
}

uint64_t NpyHead::value_bytes() const { return static_cast<uint64_t>(values()) * value_size(dtype); }

std::string write_npy_head(const NpyHead& head) {
  VARSCALE_CHECK(value_size(head.dtype) > 0 && count_of(head), "an array of dtype {}", head.dtype);
  std::string sizes;
  for (const int64_t size : head.shape) sizes += fmt::format("{}{}", sizes.empty() ? "" : ", ", size);
  if (head.shape.size() == 1) sizes += ",";
  std::string words = fmt::format("{{'descr': '{}', 'fortran_order': {}, 'shape': ({}), }}", head.dtype,
                                  head.fortran_order ? "True" : "False", sizes);
  // numpy leaves room for the first size to grow to 21 digits, for files that are appended to.
  if (!head.shape.empty()) {
    const int64_t grows = head.fortran_order ? head.shape.back() : head.shape.front();
    words.append(21 - fmt::format("{}", grows).size(), ' ');
  }
  const size_t unpadded = kPreamble1 + words.size() + 1;
  words.append(kAlign - unpadded % kAlign, ' ');  // a whole block where none is needed, as numpy does
  words += '\n';
  VARSCALE_CHECK(words.size() < 65536, "a head of {} bytes", words.size());
  std::string bytes(kMagic);
  bytes += {'\x01', '\x00', static_cast<char>(words.size() & 0xff), static_cast<char>(words.size() >> 8)};
  return bytes + words;
}

NpyHead parse_npy_head(std::string_view beginning, const std::string& where) {
  const uint64_t bytes = head_bytes(beginning, where);
  if (bytes > beginning.size()) throw UserError("{}: the head of the array is cut short", where);
  const size_t words = beginning[6] == 1 ? kPreamble1 : kPreamble2;
  NpyHead head = Words(beginning.substr(words, bytes - words), where).read();
  head.bytes = bytes;
  if (!count_of(head)) throw UserError("{}: the head of the array has a shape that no file can hold", where);
  return head;
}

NpyHead read_npy_head(const ZipFile& zip, const ZipEntry& entry) {
  const std::string where = fmt::format("{}: entry '{}'", zip.path().string(), printable(entry.name));
  std::string beginning(std::min<uint64_t>(entry.bytes, kPreamble2), '\0');
  zip.read(entry, 0, beginning.data(), beginning.size());
  const uint64_t bytes = head_bytes(beginning, where);
  if (bytes > entry.bytes || bytes > kMostWords) throw UserError("{}: the head of the array is cut short", where);
  const size_t have = std::min<size_t>(beginning.size(), bytes);
  beginning.resize(bytes);
  zip.read(entry, have, beginning.data() + have, bytes - have);
  NpyHead head = parse_npy_head(beginning, where);
  if (entry.bytes - head.bytes != head.value_bytes())
    throw UserError("{}: holds {} bytes of values, its head announces {}", where, entry.bytes - head.bytes,
                    head.value_bytes());
  return head;
}

}  // namespace varscale::archives
