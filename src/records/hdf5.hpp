// A thin layer over the HDF5 C API: handles that close themselves, errors as sentences.
// Private to records.
//
//   const hdf5::QuietErrors quiet;
//   hdf5::Handle file = hdf5::open_for_reading(path);
//   hdf5::Handle table(H5Dopen2(file.get(), "steps", H5P_DEFAULT), H5Dclose);
//   if (!table) throw UserError("{}: no table: {}", path.string(), hdf5::reason());
//
// Threads  Debian's library is built thread safe; error stacks and their printing are per thread.
// Errors   Reading: UserError naming the file. Writing: SystemError.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "records/record_file.hpp"

namespace varscale::records::hdf5 {

// Owns one identifier; empty if the call that made it failed.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle() = default;
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept
      : id_(std::exchange(other.id_, H5I_INVALID_HID)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    reset();
    id_ = std::exchange(other.id_, H5I_INVALID_HID);
    close_ = other.close_;
    return *this;
  }
  ~Handle() { reset(); }
  explicit operator bool() const noexcept { return id_ >= 0; }
  hid_t get() const noexcept { return id_; }
  void reset() noexcept;  // closes now
  // Never closes it. After a write that failed, as on a full disk, HDF5 1.10 crashes as it closes a file.
  void forget() noexcept { id_ = H5I_INVALID_HID; }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

// While it lives, this thread's HDF5 failures are not printed on stderr.
class QuietErrors {
 public:
  QuietErrors();
  ~QuietErrors();
  QuietErrors(const QuietErrors&) = delete;
  QuietErrors& operator=(const QuietErrors&) = delete;

 private:
  H5E_auto2_t print_ = nullptr;
  void* data_ = nullptr;
};

std::string reason();  // the innermost description of this thread's last failure

// Writing. `require` throws SystemError with the path, what was being done and reason().
void require(bool holds, const std::filesystem::path& path, std::string_view doing);
Handle create_file(const std::filesystem::path& path);  // truncates
// A complete file, aside, fsync, rename: `fill` gets the new, empty one.
void write_file(const std::filesystem::path& path, const std::function<void(const Handle&)>& fill);
Handle open_for_appending(const std::filesystem::path& path);
void set_attribute(hid_t object, const std::filesystem::path& path, const std::string& name,
                   const Fact& value);  // replaces
void set_attribute(hid_t object, const std::filesystem::path& path, const std::string& name,
                   const std::vector<int64_t>& values);

// Reading.
Handle open_for_reading(const std::filesystem::path& path);  // says: absent, not HDF5 or damaged
// The collections of texts that a file of moderate size has, each in itself. Where one is damaged, HDF5 1.10 would
// go on for ever or read beyond it.
void check_texts(const std::filesystem::path& path);
std::vector<std::string> attribute_names(hid_t object, const std::filesystem::path& path);
// An integer, a float or a UTF-8 string of fixed or variable length; anything else is refused.
Fact read_attribute(hid_t object, const std::filesystem::path& path, const std::string& name);
std::vector<int64_t> read_int_array(hid_t object, const std::filesystem::path& path,
                                    const std::string& name);
template <class T>
T read_attribute_as(hid_t object, const std::filesystem::path& path, const std::string& name);

Handle string_type();  // variable length, UTF-8

}  // namespace varscale::records::hdf5
