// The members of an uncompressed tar archive, found by one pass over its headers.
//
//   TarReader tar("shards/train-000000.tar");
//   while (auto member = tar.next()) use(member->name, member->offset, member->bytes);
//
// Formats  POSIX ustar, GNU (long names, sizes of any length) and pax (path, size). Regular files are given;
//          folders, devices and links are passed over, for they have no bytes. A member's bytes are read only
//          where they are a long name, or asked for.
// Errors   UserError with the archive and the byte: compressed, no tar, a damaged header, a sparse file, cut short,
//          without the mark of its end, or with more behind that mark.
// Source   POSIX.1-2017, pax; the GNU tar manual, "Basic Tar Format".
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

namespace varscale::data {

// A file open for reading at any place. Any thread.
class RandomFile {
 public:
  explicit RandomFile(std::filesystem::path path);  // UserError if it cannot be opened or is a folder
  ~RandomFile();
  RandomFile(const RandomFile&) = delete;
  RandomFile& operator=(const RandomFile&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }
  uint64_t size() const noexcept { return size_; }  // when it was opened
  // As many of these bytes as there are. SystemError if the disk fails.
  std::string read(uint64_t offset, uint64_t bytes) const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

struct TarMember {
  std::string name;
  uint64_t offset = 0, bytes = 0;  // of its contents in the archive
};

class TarReader {
 public:
  explicit TarReader(const std::filesystem::path& path);
  std::optional<TarMember> next();
  // The contents of a member, which may have at most `most` bytes.
  std::string contents(const TarMember& member, uint64_t most) const;

 private:
  std::string bytes_at(uint64_t offset, uint64_t bytes, const std::string& what);
  void require_only_zeros_from(uint64_t offset) const;

  RandomFile file_;
  uint64_t at_ = 0;  // of the next header
  std::string window_;
  uint64_t window_at_ = 0;
};

}  // namespace varscale::data
