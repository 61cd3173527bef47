// Files that are complete or absent.
//
//   AtomicFile file("results/x/plan.json");   // writes results/x/plan.json.tmp-<host>-<pid>
//   file.write(text);
//   file.commit();                            // fsync, rename, fsync of the folder
//
// Errors   SystemError with the path; UserError where the path is the user's and cannot be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace varscale::base {

// Dropped without commit(), it removes what it has written.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  void write(const void* bytes, size_t count);
  void write_at(uint64_t offset, std::string_view bytes);  // over what is there; write() goes on at the end
  // The path being written, for libraries that open files themselves (HDF5, libarchive).
  const std::filesystem::path& temporary() const noexcept { return temporary_; }
  void commit();

 private:
  std::filesystem::path target_, temporary_;
  int descriptor_ = -1;
  bool committed_ = false;
};

// The same for a folder: fill temporary(), then commit() renames it to a target that is not there.
class AtomicFolder {
 public:
  explicit AtomicFolder(std::filesystem::path target);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  const std::filesystem::path& temporary() const noexcept { return temporary_; }
  void commit();  // fsync of every file in it and of the folder, rename, fsync of the parent

 private:
  std::filesystem::path target_, temporary_;
  bool committed_ = false;
};

// A folder that one launch works in, made if it is not there and locked while this lives. UserError: it cannot be
// written, or "<named>: <busy>" where another process has it.
class LockedFolder {
 public:
  LockedFolder() = default;  // none
  LockedFolder(std::filesystem::path folder, const std::filesystem::path& named, std::string_view busy);
  LockedFolder(LockedFolder&& other) noexcept;
  LockedFolder& operator=(LockedFolder&& other) noexcept;
  ~LockedFolder();
  void clear() const;  // but for the lock

 private:
  std::filesystem::path folder_;
  int descriptor_ = -1;
};

void write_file_atomic(const std::filesystem::path& target, std::string_view bytes);
// The same for a file that only one writer may make, whoever tries: false where it is there already.
bool write_file_once(const std::filesystem::path& target, std::string_view bytes);
std::string read_file(const std::filesystem::path& path);  // UserError if it cannot be read
void fsync_path(const std::filesystem::path& path);        // a file or a folder

// Creates the folder (and parents) and proves that files can be written in it, or UserError.
void require_writable_folder(const std::filesystem::path& folder);

// A read-only mapping of a whole file.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Lower-case hex of the first `bytes` bytes of SHA-256, for fingerprints and run ids.
std::string sha256_hex(std::string_view data, int bytes = 32);

std::string sha256_of_file(const std::filesystem::path& path);  // whole, in hex

// Incremental SHA-256, for files larger than memory.
class Sha256 {
 public:
  Sha256();
  void update(const void* data, size_t count);
  std::string hex(int bytes = 32);  // finishes; call once

 private:
  uint32_t state_[8];
  uint64_t total_ = 0;
  unsigned char block_[64];
  size_t filled_ = 0;
  void compress(const unsigned char* block);
};

}  // namespace varscale::base
