#include "base/file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "base/machine.hpp"

namespace varscale::base {
namespace {

namespace fs = std::filesystem;

fs::path temporary_beside(const fs::path& target) {
  fs::path temporary = target;
  temporary += fmt::format(".tmp-{}-{}", host_name(), getpid());  // several hosts may write in one folder
  return temporary;
}

fs::path folder_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

// A path that cannot exist or is not ours to write is the user's mistake; a full disk is not.
[[noreturn]] void throw_open_error(const std::string& what, const fs::path& path, int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case EACCES:
    case EPERM:
    case EROFS:
    case ENAMETOOLONG:
    case ELOOP:
    case EEXIST:
    case ENOTEMPTY:
      throw UserError("{}: {}: {}", path.string(), what, std::strerror(error));
    default:
      throw SystemError(fmt::format("{}: {}", path.string(), what), error);
  }
}

// A descriptor that closes itself.
class Descriptor {
 public:
  Descriptor(const fs::path& path, int flags) : number_(::open(path.c_str(), flags | O_CLOEXEC)) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }

 private:
  int number_;
};

struct stat require_regular_file(const Descriptor& descriptor, const fs::path& path) {
  if (descriptor.number() < 0) throw_open_error("cannot be read", path, errno);
  struct stat status;
  if (fstat(descriptor.number(), &status) != 0)
    throw SystemError(fmt::format("{}: cannot be examined", path.string()), errno);
  if (S_ISDIR(status.st_mode)) throw UserError("{}: is a folder, expected a file", path.string());
  return status;
}

void fsync_tree(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_symlink()) continue;
    if (entry.is_directory()) {
      fsync_tree(entry.path());
    } else if (entry.is_regular_file()) {
      fsync_path(entry.path());
    }
  }
  fsync_path(folder);
}

}  // namespace

AtomicFile::AtomicFile(fs::path target)
    : target_(std::move(target)), temporary_(temporary_beside(target_)) {
  descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_open_error("cannot be written", target_, errno);
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::string_view bytes) { write(bytes.data(), bytes.size()); }

void AtomicFile::write(const void* bytes, size_t count) {
  VARSCALE_CHECK(descriptor_ >= 0, "{} is written after its commit", target_.string());
  const auto* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t written = ::write(descriptor_, at, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0)
      throw SystemError(fmt::format("{}: cannot be written", target_.string()), errno);
    at += written;
    count -= static_cast<size_t>(written);
  }
}

void AtomicFile::write_at(uint64_t offset, std::string_view bytes) {
  VARSCALE_CHECK(descriptor_ >= 0, "{} is written after its commit", target_.string());
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0)
      throw SystemError(fmt::format("{}: cannot be written", target_.string()), errno);
    offset += static_cast<uint64_t>(written);
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void AtomicFile::commit() {
  VARSCALE_CHECK(!committed_ && descriptor_ >= 0, "{} is committed twice", target_.string());
  // Some network file systems report a failed write only here.
  if (::close(std::exchange(descriptor_, -1)) != 0)
    throw SystemError(fmt::format("{}: cannot be written", target_.string()), errno);
  // By path: a library that was given temporary() may have replaced the file we opened.
  fsync_path(temporary_);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0)
    throw_open_error("cannot be put in place", target_, errno);
  committed_ = true;
  fsync_path(folder_of(target_));
}

AtomicFolder::AtomicFolder(fs::path target) : target_(std::move(target)), temporary_() {
  if (!target_.has_filename()) target_ = target_.parent_path();  // "results/x/"
  temporary_ = temporary_beside(target_);
  std::error_code ignored;
  fs::remove_all(temporary_, ignored);  // left by a killed process whose number we now have
  if (::mkdir(temporary_.c_str(), 0777) != 0) throw_open_error("cannot be created", target_, errno);
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void AtomicFolder::commit() {
  VARSCALE_CHECK(!committed_, "{} is committed twice", target_.string());
  fsync_tree(temporary_);
  // rename() alone would replace an empty folder.
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, target_.c_str(), RENAME_NOREPLACE) != 0) {
    const bool unsupported = errno == EINVAL || errno == ENOSYS;
    if (!unsupported) throw_open_error("cannot be put in place", target_, errno);
    if (fs::exists(fs::symlink_status(target_)))
      throw_open_error("cannot be put in place", target_, EEXIST);
    if (::rename(temporary_.c_str(), target_.c_str()) != 0)
      throw_open_error("cannot be put in place", target_, errno);
  }
  committed_ = true;
  fsync_path(folder_of(target_));
}

LockedFolder::LockedFolder(fs::path folder, const fs::path& named, std::string_view busy) : folder_(std::move(folder)) {
  if (::mkdir(folder_.c_str(), 0777) != 0 && errno != EEXIST)
    throw UserError("{}: cannot be written: {}", named.string(), std::strerror(errno));
  descriptor_ = ::open((folder_ / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw UserError("{}: cannot be written: {}", folder_.string(), std::strerror(errno));
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor_);
    throw UserError("{}: {}", named.string(), busy);
  }
}

LockedFolder::LockedFolder(LockedFolder&& other) noexcept
    : folder_(std::move(other.folder_)), descriptor_(std::exchange(other.descriptor_, -1)) {}

LockedFolder& LockedFolder::operator=(LockedFolder&& other) noexcept {
  std::swap(folder_, other.folder_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

LockedFolder::~LockedFolder() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void LockedFolder::clear() const {
  for (const auto& entry : fs::directory_iterator(folder_))
    if (entry.path().filename() != "lock") fs::remove_all(entry.path());
}

void write_file_atomic(const fs::path& target, std::string_view bytes) {
  AtomicFile file(target);
  file.write(bytes);
  file.commit();
}

bool write_file_once(const fs::path& target, std::string_view bytes) {
  static std::atomic<int> count{0};  // threads may try for one target
  fs::path aside = temporary_beside(target);
  aside += fmt::format("-{}", count++);
  write_file_atomic(aside, bytes);
  const int result = ::link(aside.c_str(), target.c_str());
  const int error = errno;
  // Over NFS the answer to a link() that worked may be lost: then the file has two names all the same.
  struct stat status;
  const bool made = result == 0 || (::stat(aside.c_str(), &status) == 0 && status.st_nlink == 2);
  ::unlink(aside.c_str());
  if (!made && error == EEXIST) return false;
  if (!made) throw_open_error("cannot be put in place", target, error);
  fsync_path(folder_of(target));
  return true;
}

std::string read_file(const fs::path& path) {
  const Descriptor descriptor(path, O_RDONLY);
  require_regular_file(descriptor, path);
  // Until the end rather than st_size bytes: files of /proc say they are empty.
  std::string text;
  char buffer[1 << 16];
  while (true) {
    const ssize_t count = ::read(descriptor.number(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw SystemError(fmt::format("{}: cannot be read", path.string()), errno);
    if (count == 0) return text;
    text.append(buffer, static_cast<size_t>(count));
  }
}

void fsync_path(const fs::path& path) {
  const Descriptor descriptor(path, O_RDONLY);
  if (descriptor.number() < 0)
    throw SystemError(fmt::format("{}: cannot be opened to flush it", path.string()), errno);
  // EINVAL: a file system that cannot flush a folder.
  if (::fsync(descriptor.number()) != 0 && errno != EINVAL)
    throw SystemError(fmt::format("{}: cannot be flushed to disk", path.string()), errno);
}

void require_writable_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error)
    throw UserError("{}: the folder cannot be created: {}", folder.string(), error.message());
  if (!fs::is_directory(folder)) throw UserError("{}: is not a folder", folder.string());
  const fs::path probe = folder / fmt::format(".writable-{}", getpid());
  const int descriptor = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor < 0)
    throw UserError("{}: no file can be written in the folder: {}", folder.string(),
                    std::strerror(errno));
  ::close(descriptor);
  ::unlink(probe.c_str());
}

MappedFile::MappedFile(const fs::path& path) {
  const Descriptor descriptor(path, O_RDONLY);
  size_ = static_cast<size_t>(require_regular_file(descriptor, path).st_size);
  if (size_ == 0) return;
  void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor.number(), 0);
  if (address == MAP_FAILED)
    throw SystemError(fmt::format("{}: cannot be mapped", path.string()), errno);
  data_ = static_cast<const std::byte*>(address);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

}  // namespace varscale::base
