#include "data/tar_reader.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

#include "base/error.hpp"

namespace varscale::data {
namespace {

using base::UserError;

constexpr uint64_t kBlock = 512;
// Read at a time: a header, and mostly the label and the header behind it.
constexpr uint64_t kWindow = 4 * kBlock;
constexpr uint64_t kLongestName = 64 << 10;

// Where the fields of a header lie.
struct Field {
  size_t at, size;
};
constexpr Field kName{0, 100}, kSize{124, 12}, kChecksum{148, 8}, kMagic{257, 6}, kPrefix{345, 155};
constexpr size_t kType = 156;

std::string_view text_of(const std::string& block, Field field) {
  const std::string_view all(block.data() + field.at, field.size);
  return all.substr(0, all.find('\0'));
}

// Octal digits between blanks and zeros, or, with the top bit set, a big-endian number.
std::optional<uint64_t> number_of(const std::string& block, Field field) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(block.data()) + field.at;
  uint64_t value = 0;
  if (bytes[0] & 0x80) {
    for (size_t i = 0; i < field.size; ++i) {
      if (value >> 55 != 0) return std::nullopt;  // 2^63 and more, and negative numbers
      value = value << 8 | (i == 0 ? bytes[i] & 0x7fu : bytes[i]);
    }
    return value;
  }
  std::string_view digits = text_of(block, field);
  const auto is_blank = [](char c) { return c == ' '; };
  while (!digits.empty() && is_blank(digits.front())) digits.remove_prefix(1);
  while (!digits.empty() && is_blank(digits.back())) digits.remove_suffix(1);
  if (digits.empty()) return 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 8);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return value;
}

bool is_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

// The sum of the header's bytes, its own field as blanks; old programs summed signed bytes.
bool checksum_fits(const std::string& block) {
  const auto stored = number_of(block, kChecksum);
  int64_t plain = 0, with_sign = 0;
  for (size_t i = 0; i < kBlock; ++i) {
    const char c = i >= kChecksum.at && i < kChecksum.at + kChecksum.size ? ' ' : block[i];
    plain += static_cast<unsigned char>(c);
    with_sign += static_cast<signed char>(c);
  }
  return stored && (static_cast<int64_t>(*stored) == plain || static_cast<int64_t>(*stored) == with_sign);
}

const char* compression_of(const std::string& start) {
  const auto begins = [&](std::string_view magic) { return start.starts_with(magic); };
  if (begins("\x1f\x8b")) return "gzip";
  if (begins("BZh")) return "bzip2";
  if (begins(std::string_view("\xfd" "7zXZ\0", 6))) return "xz";
  if (begins("\x28\xb5\x2f\xfd")) return "zstd";
  if (begins("\x04\x22\x4d\x18")) return "lz4";
  return nullptr;
}

// "LENGTH KEY=VALUE\n", one after another; LENGTH counts all of the record. What a pax header says of one member.
struct PaxRecords {
  std::optional<std::string> path;
  std::optional<uint64_t> size;
  bool sparse = false;
};

std::optional<PaxRecords> read_pax(std::string_view text) {
  PaxRecords records;
  while (!text.empty()) {
    uint64_t length = 0;
    const auto [blank, error] = std::from_chars(text.data(), text.data() + text.size(), length);
    const auto digits = static_cast<uint64_t>(blank - text.data());
    if (error != std::errc() || length > text.size() || length < digits + 2 || text[digits] != ' ' ||
        text[length - 1] != '\n')
      return std::nullopt;
    const std::string_view record = text.substr(digits + 1, length - digits - 2);
    const size_t equals = record.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view key = record.substr(0, equals), value = record.substr(equals + 1);
    if (key == "path") records.path = std::string(value);
    if (key == "size") {
      uint64_t size = 0;
      const auto [end, fault] = std::from_chars(value.data(), value.data() + value.size(), size);
      if (fault != std::errc() || end != value.data() + value.size()) return std::nullopt;
      records.size = size;
    }
    if (key.starts_with("GNU.sparse.")) records.sparse = true;
    text.remove_prefix(length);
  }
  return records;
}

}  // namespace

RandomFile::RandomFile(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor_ < 0) throw UserError("{}: cannot be read ({})", path_.string(), std::strerror(errno));
  struct stat status;
  if (::fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(descriptor_);
    throw UserError("{}: is not a file", path_.string());
  }
  size_ = static_cast<uint64_t>(status.st_size);
}

RandomFile::~RandomFile() { ::close(descriptor_); }

std::string RandomFile::read(uint64_t offset, uint64_t bytes) const {
  if (offset >= size_) return {};
  std::string text(std::min(bytes, size_ - offset), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const ssize_t count =
        ::pread(descriptor_, text.data() + done, text.size() - done, static_cast<off_t>(offset + done));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw base::SystemError(path_.string() + ": cannot be read", errno);
    if (count == 0) break;  // has become shorter
    done += static_cast<size_t>(count);
  }
  text.resize(done);
  return text;
}

TarReader::TarReader(const std::filesystem::path& path) : file_(path) {
  if (const char* compression = compression_of(file_.read(0, kBlock)))
    throw UserError("{}: is compressed ({}); expected a plain tar archive, whose images can be read one by one",
                    path.string(), compression);
  if (file_.size() == 0) throw UserError("{}: is empty, expected a tar archive", path.string());
}

std::string TarReader::bytes_at(uint64_t offset, uint64_t bytes, const std::string& what) {
  if (offset < window_at_ || offset + bytes > window_at_ + window_.size()) {
    window_ = file_.read(offset, std::max(bytes, kWindow));
    window_at_ = offset;
  }
  if (window_.size() - (offset - window_at_) < bytes)
    throw UserError("{}: is cut short: it ends at byte {}, expected {} at byte {}", file_.path().string(), file_.size(),
                    what, offset);
  return window_.substr(offset - window_at_, bytes);
}

void TarReader::require_only_zeros_from(uint64_t offset) const {
  constexpr uint64_t kPart = 1 << 20;
  for (; offset < file_.size(); offset += kPart) {
    if (!is_zero(file_.read(offset, kPart)))
      throw UserError(
          "{}: holds more behind the mark of its end, from byte {} on; archives that were put one behind another "
          "are not read",
          file_.path().string(), offset);
  }
}

std::optional<TarMember> TarReader::next() {
  std::optional<std::string> long_name;
  PaxRecords pax;
  while (true) {
    const uint64_t header_at = at_;
    const std::string block = bytes_at(header_at, kBlock, "a member or the mark of the archive's end");
    if (is_zero(block)) {
      if (long_name || pax.path)
        throw UserError("{}: ends at byte {} behind a long name without its member", file_.path().string(), header_at);
      require_only_zeros_from(header_at);
      return std::nullopt;
    }
    if (!checksum_fits(block))
      throw UserError("{}: the header at byte {} is damaged, or this is no tar archive (its checksum does not fit)",
                      file_.path().string(), header_at);
    const auto stored_size = number_of(block, kSize);
    const char type = block[kType];
    // A pax size is that of the member, not that of a header before it.
    const bool is_extension = type == 'x' || type == 'g' || type == 'L' || type == 'K';
    const auto size = pax.size && !is_extension ? pax.size : stored_size;
    if (!size)
      throw UserError("{}: the header at byte {} has no readable size", file_.path().string(), header_at);
    const uint64_t contents_at = header_at + kBlock;
    // Links keep the size of what they point to, and have no bytes.
    const bool has_bytes = type < '1' || type > '6';
    const uint64_t stored = has_bytes ? *size : 0;
    if (stored > file_.size() - contents_at)
      throw UserError("{}: is cut short: the member at byte {} has {} bytes, but the file ends at byte {}",
                      file_.path().string(), header_at, stored, file_.size());
    at_ = contents_at + (stored + kBlock - 1) / kBlock * kBlock;
    if (is_extension) {
      if (*size > kLongestName)
        throw UserError("{}: the long name at byte {} has {} bytes, expected at most {}", file_.path().string(),
                        header_at, *size, kLongestName);
      const std::string text = bytes_at(contents_at, *size, "a long name");
      if (type == 'L') long_name = text.substr(0, text.find('\0'));
      if (type != 'x') continue;
      const auto records = read_pax(text);
      if (!records)
        throw UserError("{}: the pax header at byte {} cannot be read", file_.path().string(), header_at);
      pax = *records;
      continue;
    }
    if (type == 'S' || pax.sparse)
      throw UserError("{}: the member at byte {} is a sparse file; expected plain files", file_.path().string(),
                      header_at);
    TarMember member{{}, contents_at, stored};
    if (pax.path) {
      member.name = *pax.path;
    } else if (long_name) {
      member.name = *long_name;
    } else {
      if (text_of(block, kMagic) == "ustar") member.name = text_of(block, kPrefix);  // GNU's magic has a blank behind
      if (!member.name.empty()) member.name += '/';
      member.name += text_of(block, kName);
    }
    long_name.reset();
    pax = {};
    if (type == '0' || type == '\0' || type == '7') {
      if (member.name.ends_with('/')) continue;  // an old way to write a folder
      return member;
    }
  }
}

std::string TarReader::contents(const TarMember& member, uint64_t most) const {
  if (member.bytes > most)
    throw UserError("{}: {} (byte {}) has {} bytes, expected at most {}", file_.path().string(), member.name,
                    member.offset, member.bytes, most);
  std::string text = member.offset >= window_at_ && member.offset + member.bytes <= window_at_ + window_.size()
                         ? window_.substr(member.offset - window_at_, member.bytes)
                         : file_.read(member.offset, member.bytes);
  if (text.size() < member.bytes)
    throw UserError("{}: {} (byte {}) cannot be read in full", file_.path().string(), member.name, member.offset);
  return text;
}

}  // namespace varscale::data
