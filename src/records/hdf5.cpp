#include "records/hdf5.hpp"

#include <cerrno>
#include <cstring>
#include <string>

#include "base/error.hpp"
#include "base/file.hpp"

namespace varscale::records::hdf5 {

using base::SystemError;
using base::UserError;
using Path = std::filesystem::path;

namespace {
// The library must not close at exit what forget() has left.
[[maybe_unused]] const herr_t kNotAtExit = H5dont_atexit();
}  // namespace

void Handle::reset() noexcept {
  if (id_ >= 0) close_(id_);
  id_ = H5I_INVALID_HID;
}

QuietErrors::QuietErrors() {
  H5Eget_auto2(H5E_DEFAULT, &print_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

QuietErrors::~QuietErrors() { H5Eset_auto2(H5E_DEFAULT, print_, data_); }

std::string reason() {
  std::string text = "no reason given";
  const auto take_first = [](unsigned n, const H5E_error2_t* error, void* out) -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, take_first, &text);
  return text.substr(0, text.find(": time = "));  // time, file and errno of a system call, over several lines
}

void require(bool holds, const Path& path, std::string_view doing) {
  if (holds) return;
  const int error_number = errno == 0 ? EIO : errno;
  throw SystemError(fmt::format("{}: HDF5 failed to {}: {}", path.string(), doing, reason()),
                    error_number);
}

namespace {

Handle access_list(const Path& path) {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  // A file system without locks (Lustre without -o flock) is no reason to refuse.
  require(access && H5Pset_file_locking(access.get(), true, true) >= 0, path, "set file locking");
  // Raw data on 8-byte boundaries, so that it can be used where it is mapped.
  require(H5Pset_alignment(access.get(), 1, 8) >= 0, path, "set the alignment");
  // The format of 1.8, whose object headers have checksums: damage in the older ones can crash the library.
  require(H5Pset_libver_bounds(access.get(), H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0, path, "set the format");
  return access;
}

}  // namespace

Handle create_file(const Path& path) {
  const Handle access = access_list(path);
  // All attributes of the root in its header, which is written as one.
  const Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  require(creation && H5Pset_attr_phase_change(creation.get(), 65535, 0) >= 0, path, "set where attributes lie");
  // Equal contents give equal bytes, whenever they are written.
  require(H5Pset_obj_track_times(creation.get(), false) >= 0, path, "leave times out");
  errno = 0;
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation.get(), access.get()), H5Fclose);
  require(static_cast<bool>(file), path, "create the file");
  return file;
}

void write_file(const Path& path, const std::function<void(const Handle&)>& fill) {
  base::AtomicFile target(path);
  const QuietErrors quiet;
  Handle file = create_file(target.temporary());
  try {
    fill(file);
    errno = 0;
    require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, path, "flush the file");
  } catch (...) {
    file.forget();
    throw;
  }
  file.reset();
  target.commit();
}

Handle open_for_appending(const Path& path) {
  const Handle access = access_list(path);
  errno = 0;
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDWR, access.get()), H5Fclose);
  require(static_cast<bool>(file), path, "open the file for writing");
  return file;
}

Handle open_for_reading(const Path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored))
    throw UserError("{}: no such file; expected an HDF5 file", path.string());
  if (!std::filesystem::is_regular_file(path, ignored))
    throw UserError("{}: is not a file; expected an HDF5 file", path.string());
  const Handle access = access_list(path);
  Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), H5Fclose);
  if (file) return file;
  const std::string why = reason();
  if (H5Fis_hdf5(path.c_str()) == 0) throw UserError("{}: is not an HDF5 file", path.string());
  throw UserError("{}: cannot be opened ({}); it is damaged, or another process is writing it",
                  path.string(), why);
}

void check_texts(const Path& path) {
  constexpr uint64_t kHead = 16, kAlignment = 8;
  constexpr std::string_view kSignature("GCOL\1\0\0\0", 8);
  const base::MappedFile file(path);
  const auto number_at = [&](uint64_t at) {
    uint64_t number = 0;
    std::memcpy(&number, file.data() + at, sizeof number);
    return number;
  };
  for (uint64_t begin = 0; begin + kHead <= file.size(); begin += kAlignment) {
    if (std::memcmp(file.data() + begin, kSignature.data(), kSignature.size()) != 0) continue;
    const uint64_t bytes = number_at(begin + 8);
    bool sound = bytes >= kHead && bytes <= file.size() - begin;
    // Objects of number, references and size; number 0 is the free rest.
    for (uint64_t at = kHead; sound && at + kHead <= bytes;) {
      const uint64_t size = number_at(begin + at + 8), left = bytes - at;
      if ((number_at(begin + at) & 0xffff) == 0) {
        sound = size == left;
        break;
      }
      sound = size <= left - kHead;
      at += kHead + (size + kAlignment - 1) / kAlignment * kAlignment;
    }
    if (!sound) throw UserError("{}: its collection of texts at byte {} is damaged", path.string(), begin);
  }
}

Handle string_type() {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

namespace {

// Makes attribute `name` anew and writes `data` of `memory_type` into it.
void write_attribute(hid_t object, const Path& path, const std::string& name, hid_t file_type,
                     hid_t memory_type, const Handle& space, const void* data) {
  errno = 0;
  if (H5Aexists(object, name.c_str()) > 0)
    require(H5Adelete(object, name.c_str()) >= 0, path, "replace attribute " + name);
  const Handle attribute(
      H5Acreate2(object, name.c_str(), file_type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  require(attribute && H5Awrite(attribute.get(), memory_type, data) >= 0, path,
          "write attribute " + name);
}

}  // namespace

void set_attribute(hid_t object, const Path& path, const std::string& name, const Fact& value) {
  VARSCALE_CHECK(!name.empty(), "an attribute of {} has no name", path.string());
  const Handle scalar(H5Screate(H5S_SCALAR), H5Sclose);
  if (const auto* number = std::get_if<int64_t>(&value)) {
    write_attribute(object, path, name, H5T_STD_I64LE, H5T_NATIVE_INT64, scalar, number);
  } else if (const auto* real = std::get_if<double>(&value)) {
    write_attribute(object, path, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, scalar, real);
  } else {
    const auto& text = std::get<std::string>(value);
    VARSCALE_CHECK(text.find('\0') == std::string::npos, "attribute {} has a zero byte", name);
    const char* pointer = text.c_str();
    const Handle type = string_type();
    write_attribute(object, path, name, type.get(), type.get(), scalar, &pointer);
  }
}

void set_attribute(hid_t object, const Path& path, const std::string& name,
                   const std::vector<int64_t>& values) {
  const hsize_t count = values.size();
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  write_attribute(object, path, name, H5T_STD_I64LE, H5T_NATIVE_INT64, space, values.data());
}

std::vector<std::string> attribute_names(hid_t object, const Path& path) {
  std::vector<std::string> names;
  const auto add = [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
    static_cast<std::vector<std::string>*>(out)->emplace_back(name);
    return 0;
  };
  hsize_t position = 0;
  // A name that no attribute has: all of them are decoded on the way. Where one cannot be, HDF5 1.10's iteration
  // crashes as it gives up.
  if (H5Aexists(object, "\x01") < 0 ||
      H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_NATIVE, &position, add, &names) < 0)
    throw UserError("{}: its attributes cannot be read: {}", path.string(), reason());
  return names;
}

namespace {

Handle open_attribute(hid_t object, const Path& path, const std::string& name) {
  Handle attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (!attribute) throw UserError("{}: attribute {} is missing", path.string(), name);
  return attribute;
}

std::string read_string(const Handle& attribute, hid_t type, const Path& path,
                        const std::string& name) {
  const auto fail = [&] {
    throw UserError("{}: attribute {} cannot be read: {}", path.string(), name, reason());
  };
  if (H5Tis_variable_str(type) > 0) {
    const Handle memory = string_type();
    H5Tset_cset(memory.get(), H5Tget_cset(type));
    char* pointer = nullptr;
    if (H5Aread(attribute.get(), memory.get(), &pointer) < 0) fail();
    std::string text = pointer == nullptr ? "" : pointer;
    H5free_memory(pointer);
    return text;
  }
  std::string text(H5Tget_size(type), '\0');
  if (H5Aread(attribute.get(), type, text.data()) < 0) fail();
  text.resize(text.find_last_not_of(std::string_view(" \0", 2)) + 1);  // padding of either kind
  return text;
}

}  // namespace

Fact read_attribute(hid_t object, const Path& path, const std::string& name) {
  const Handle attribute = open_attribute(object, path, name);
  const Handle type(H5Aget_type(attribute.get()), H5Tclose);
  const Handle space(H5Aget_space(attribute.get()), H5Sclose);
  if (!type || !space || H5Sget_simple_extent_npoints(space.get()) != 1)
    throw UserError("{}: attribute {} has more than one value; expected one", path.string(), name);
  switch (H5Tget_class(type.get())) {
    case H5T_INTEGER:
      if (int64_t value = 0; H5Aread(attribute.get(), H5T_NATIVE_INT64, &value) >= 0) return value;
      break;
    case H5T_FLOAT:
      if (double value = 0; H5Aread(attribute.get(), H5T_NATIVE_DOUBLE, &value) >= 0) return value;
      break;
    case H5T_STRING:
      return read_string(attribute, type.get(), path, name);
    default:
      throw UserError("{}: attribute {} is neither a number nor a text", path.string(), name);
  }
  throw UserError("{}: attribute {} cannot be read: {}", path.string(), name, reason());
}

std::vector<int64_t> read_int_array(hid_t object, const Path& path, const std::string& name) {
  const Handle attribute = open_attribute(object, path, name);
  const Handle type(H5Aget_type(attribute.get()), H5Tclose);
  const Handle space(H5Aget_space(attribute.get()), H5Sclose);
  const bool is_list = type && space && H5Tget_class(type.get()) == H5T_INTEGER &&
                       H5Sget_simple_extent_ndims(space.get()) == 1;
  if (!is_list) throw UserError("{}: attribute {} is not a list of integers", path.string(), name);
  // An attribute lies in an object header of at most 64 KiB, so its size needs no other bound.
  std::vector<int64_t> values(static_cast<size_t>(H5Sget_simple_extent_npoints(space.get())));
  if (!values.empty() && H5Aread(attribute.get(), H5T_NATIVE_INT64, values.data()) < 0)
    throw UserError("{}: attribute {} cannot be read: {}", path.string(), name, reason());
  return values;
}

template <class T>
T read_attribute_as(hid_t object, const Path& path, const std::string& name) {
  const Fact fact = read_attribute(object, path, name);
  if (const T* value = std::get_if<T>(&fact)) return *value;
  constexpr const char* kWanted = std::is_same_v<T, int64_t>  ? "an integer"
                                  : std::is_same_v<T, double> ? "a floating-point number"
                                                              : "a text";
  throw UserError("{}: attribute {} is not {}", path.string(), name, kWanted);
}

template int64_t read_attribute_as(hid_t, const Path&, const std::string&);
template double read_attribute_as(hid_t, const Path&, const std::string&);
template std::string read_attribute_as(hid_t, const Path&, const std::string&);

}  // namespace varscale::records::hdf5
