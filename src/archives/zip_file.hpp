// Zip archives: entries by name, read in ranges and written as streams. Python's .pth and .npz files are such.
//
//   ZipFile zip("weights.npz");
//   const ZipEntry& entry = zip.at("mu.npy");
//   zip.read(entry, 128, row, sizeof row);             // a range of the unpacked bytes
//
//   ZipWriter out("weights.npz");                      // complete or absent
//   out.begin("mu.npy", {.align = 64}); out.write(head, n); out.write(values, m); out.end();
//   out.commit();
//
// Memory   Neither side keeps more than a buffer.
// Threads  A ZipFile is used by one thread at a time: it reads through one place in the file.
// Errors   UserError naming file and entry: not a zip, damaged, an entry listed twice, encrypted or of an unknown
//          method, one that unpacks to more than ZipLimits allow, an unknown name (with the nearest), bytes that do
//          not have their checksum (seen where an entry is read from its beginning to its end without a gap).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.hpp"

namespace varscale::archives {

struct ZipEntry {
  std::string name;
  uint64_t index = 0;   // in the archive's directory
  uint64_t bytes = 0;   // unpacked
  uint64_t stored = 0;  // in the file
  bool deflated = false;
};

// What a file may claim before it is refused.
struct ZipLimits {
  uint64_t entries = 1'000'000;
  uint64_t bytes = uint64_t{1} << 42;  // unpacked, all entries together
  double ratio = 1100;                 // unpacked over stored, of an entry; deflate reaches 1032
};

class ZipFile {
 public:
  explicit ZipFile(const std::filesystem::path& path, const ZipLimits& limits = {});
  ~ZipFile();
  ZipFile(const ZipFile&) = delete;
  ZipFile& operator=(const ZipFile&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }
  const std::vector<ZipEntry>& entries() const noexcept { return entries_; }  // in the directory's order
  const ZipEntry* find(std::string_view name) const;
  const ZipEntry& at(std::string_view name) const;

  // Unpacked bytes [offset, offset + count). Ranges that follow one another are read in one pass; going back in a
  // deflated entry starts it again.
  void read(const ZipEntry& entry, uint64_t offset, void* out, uint64_t count) const;
  // The whole entry; UserError where it is longer than `most`.
  std::string read_text(const ZipEntry& entry, uint64_t most) const;

 private:
  struct Open;  // the archive, and the entry being read with its place
  std::filesystem::path path_;
  std::unique_ptr<Open> open_;
  std::vector<ZipEntry> entries_;
  std::map<std::string, size_t, std::less<>> by_name_;
};

struct ZipWriteOptions {
  bool deflate = false;
  uint64_t align = 1;  // the data begin at a multiple of it
};

class ZipWriter {
 public:
  // kWhereNeeded writes the 64-bit records of sizes and places that 32 bits do not hold; kAlways writes all.
  enum class Zip64 { kWhereNeeded, kAlways };
  explicit ZipWriter(const std::filesystem::path& target, Zip64 zip64 = Zip64::kWhereNeeded);
  ~ZipWriter();
  ZipWriter(const ZipWriter&) = delete;
  ZipWriter& operator=(const ZipWriter&) = delete;

  void begin(std::string name, const ZipWriteOptions& options = {});
  void write(const void* bytes, size_t count);
  void end();
  void add(std::string name, std::string_view bytes, const ZipWriteOptions& options = {});
  void commit();  // the directory, fsync, rename

 private:
  struct Deflate;
  struct Written {
    std::string name;
    uint64_t header = 0;  // where its local header begins
    uint64_t bytes = 0, stored = 0;
    uint32_t crc = 0;
    bool deflated = false;
  };
  void put(std::string_view bytes);
  base::AtomicFile file_;
  Zip64 zip64_;
  uint64_t at_ = 0;
  bool in_entry_ = false;
  std::vector<Written> written_;
  std::unique_ptr<Deflate> deflate_;
};

}  // namespace varscale::archives
