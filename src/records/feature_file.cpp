#include "records/feature_file.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/hdf5.hpp"

namespace varscale::records {

using base::UserError;
using hdf5::Handle;
using Path = std::filesystem::path;

namespace {

constexpr const char* kFormat = "varscale features";
constexpr int64_t kSchemaVersion = 1;
constexpr int64_t kLargest = int64_t{1} << 31;  // of any size, so that products of two stay numbers
constexpr int64_t kMostChunkRows = 64;
constexpr std::array<const char*, 3> kNames = {"features", "spatial", "logits"};

std::array<int64_t, 3> widths_of(const FeatureFileInfo& info) { return {info.features, info.spatial, info.classes}; }

void set_facts(const Handle& file, const Path& path, const FeatureFileInfo& info) {
  const auto set = [&](const char* name, const Fact& value) { hdf5::set_attribute(file.get(), path, name, value); };
  set("format", std::string(kFormat));
  set("schema_version", kSchemaVersion);
  set("images", info.images);
  set("group", info.group);
  set("network", info.network);
  set("network_identity", info.network_identity);
  set("random_weights", static_cast<int64_t>(info.random_weights));
  set("images_path", info.images_path);
  set("images_fingerprint", info.images_fingerprint);
  set("width", info.width);
  set("height", info.height);
}

Handle create_array(const Handle& file, const Path& path, const char* name, int64_t rows, int64_t width,
                    int64_t group) {
  const hsize_t shape[] = {static_cast<hsize_t>(rows), static_cast<hsize_t>(width)};
  const hsize_t chunk[] = {static_cast<hsize_t>(std::min({rows, group, kMostChunkRows})), shape[1]};
  const Handle space(H5Screate_simple(2, shape, nullptr), H5Sclose);
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(layout.get(), 2, chunk);
  H5Pset_fletcher32(layout.get());
  H5Pset_fill_time(layout.get(), H5D_FILL_TIME_NEVER);  // every row is written
  H5Pset_obj_track_times(layout.get(), false);          // equal contents, equal bytes
  errno = 0;
  Handle set(H5Dcreate2(file.get(), name, H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, layout.get(), H5P_DEFAULT),
             H5Dclose);
  hdf5::require(static_cast<bool>(set), path, std::string("create /") + name);
  return set;
}

// Rows [begin, begin + count) of an array, in the file and in memory.
std::pair<Handle, Handle> rows_of(const Handle& set, int64_t begin, int64_t count, int64_t width) {
  const hsize_t start[] = {static_cast<hsize_t>(begin), 0};
  const hsize_t size[] = {static_cast<hsize_t>(count), static_cast<hsize_t>(width)};
  Handle in_file(H5Dget_space(set.get()), H5Sclose), in_memory(H5Screate_simple(2, size, nullptr), H5Sclose);
  VARSCALE_CHECK(
      in_file && in_memory && H5Sselect_hyperslab(in_file.get(), H5S_SELECT_SET, start, nullptr, size, nullptr) >= 0,
      "rows {} to {} of an array", begin, begin + count);
  return {std::move(in_file), std::move(in_memory)};
}

}  // namespace

struct FeatureFileWriter::Impl {
  Impl(const Path& target, const FeatureFileInfo& the_info) : path(target), info(the_info), target_file(target) {}
  // After a write that failed nothing may be closed.
  void forget() noexcept {
    for (Handle& set : sets) set.forget();
    file.forget();
  }

  Path path;
  FeatureFileInfo info;
  base::AtomicFile target_file;
  Handle file;
  std::array<Handle, 3> sets;
  int64_t written = 0;
};

FeatureFileWriter::FeatureFileWriter(const Path& path, const FeatureFileInfo& info)
    : impl_(std::make_unique<Impl>(path, info)) {
  Impl& to = *impl_;
  VARSCALE_CHECK(info.images > 0 && info.group > 0 && info.features > 0 && info.spatial >= 0 && info.classes >= 0,
                 "a feature file of {} images in groups of {}, with {}, {} and {} numbers", info.images, info.group,
                 info.features, info.spatial, info.classes);
  const hdf5::QuietErrors quiet;
  try {
    to.file = hdf5::create_file(to.target_file.temporary());
    set_facts(to.file, path, info);
    const auto widths = widths_of(info);
    for (size_t i = 0; i < kNames.size(); ++i)
      if (widths[i] > 0) to.sets[i] = create_array(to.file, path, kNames[i], info.images, widths[i], info.group);
  } catch (...) {
    to.forget();
    throw;
  }
}

FeatureFileWriter::~FeatureFileWriter() = default;

void FeatureFileWriter::append(const FeatureRows& rows) {
  Impl& to = *impl_;
  VARSCALE_CHECK(rows.count > 0 && to.written + rows.count <= to.info.images, "rows {} to {} of {}", to.written,
                 to.written + rows.count, to.info.images);
  const auto widths = widths_of(to.info);
  const float* const data[] = {rows.features, rows.spatial, rows.logits};
  const hdf5::QuietErrors quiet;
  try {
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (widths[i] == 0) continue;
      VARSCALE_CHECK(data[i] != nullptr, "rows of {} without their {}", to.path.string(), kNames[i]);
      const auto [in_file, in_memory] = rows_of(to.sets[i], to.written, rows.count, widths[i]);
      errno = 0;
      hdf5::require(
          H5Dwrite(to.sets[i].get(), H5T_NATIVE_FLOAT, in_memory.get(), in_file.get(), H5P_DEFAULT, data[i]) >= 0,
          to.path, std::string("write /") + kNames[i]);
    }
  } catch (...) {
    to.forget();
    throw;
  }
  to.written += rows.count;
}

void FeatureFileWriter::commit() {
  Impl& to = *impl_;
  VARSCALE_CHECK(to.written == to.info.images, "{} of {} rows of {} were written", to.written, to.info.images,
                 to.path.string());
  const hdf5::QuietErrors quiet;
  errno = 0;
  const bool flushed = H5Fflush(to.file.get(), H5F_SCOPE_GLOBAL) >= 0;
  if (!flushed) to.forget();
  hdf5::require(flushed, to.path, "flush the file");
  for (Handle& set : to.sets) set.reset();
  to.file.reset();
  to.target_file.commit();
}

struct FeatureFile::Impl {
  Path path;
  FeatureFileInfo info;
  Handle file;
  std::array<Handle, 3> sets;
};

namespace {

// The array's width; its rows are to be those of the file's attribute.
int64_t check_array(const Handle& set, const Path& path, const char* name, int64_t images) {
  const Handle type(H5Dget_type(set.get()), H5Tclose), space(H5Dget_space(set.get()), H5Sclose);
  if (!type || H5Tequal(type.get(), H5T_IEEE_F32LE) <= 0)
    throw UserError("{}: /{} does not hold 32-bit floats", path.string(), name);
  hsize_t shape[H5S_MAX_RANK] = {};
  const int rank = space ? H5Sget_simple_extent_dims(space.get(), shape, nullptr) : -1;
  if (rank != 2 || shape[0] != static_cast<hsize_t>(images) || shape[1] < 1 || shape[1] >= hsize_t{kLargest})
    throw UserError("{}: /{} has shape [{}]; expected a row for each of its {} images", path.string(), name,
                    fmt::join(shape, shape + std::max(rank, 0), ", "), images);
  if (H5Dget_storage_size(set.get()) / sizeof(float) < shape[0] * shape[1])
    throw UserError("{}: /{} is not stored in full", path.string(), name);
  return static_cast<int64_t>(shape[1]);
}

}  // namespace

FeatureFile::FeatureFile(const Path& path) : impl_(std::make_unique<Impl>()) {
  Impl& from = *impl_;
  const hdf5::QuietErrors quiet;
  from.path = path;
  from.file = hdf5::open_for_reading(path);
  hdf5::check_texts(path);
  const hid_t file = from.file.get();
  if (H5Aexists(file, "format") <= 0 || hdf5::read_attribute_as<std::string>(file, path, "format") != kFormat)
    throw UserError("{}: is not a feature file (its attribute format is not '{}')", path.string(), kFormat);
  const auto integer = [&](const char* name) { return hdf5::read_attribute_as<int64_t>(file, path, name); };
  const auto text = [&](const char* name) { return hdf5::read_attribute_as<std::string>(file, path, name); };
  if (const int64_t version = integer("schema_version"); version != kSchemaVersion)
    throw UserError("{}: schema_version is {}; this program reads {}", path.string(), version, kSchemaVersion);
  FeatureFileInfo& info = from.info;
  const auto size = [&](const char* name) {
    const int64_t value = integer(name);
    if (value < 1 || value >= kLargest)
      throw UserError("{}: attribute {} is {}, expected 1 to {}", path.string(), name, value, kLargest - 1);
    return value;
  };
  info.images = size("images");
  info.group = size("group");
  info.network = text("network");
  info.network_identity = text("network_identity");
  info.random_weights = integer("random_weights") != 0;
  info.images_path = text("images_path");
  info.images_fingerprint = text("images_fingerprint");
  info.width = size("width");
  info.height = size("height");
  int64_t* const widths[] = {&info.features, &info.spatial, &info.classes};
  for (size_t i = 0; i < kNames.size(); ++i) {
    const bool is_there = H5Lexists(file, kNames[i], H5P_DEFAULT) > 0;
    if (!is_there && i == 0) throw UserError("{}: /features is missing", path.string());
    if (!is_there) continue;
    from.sets[i] = Handle(H5Dopen2(file, kNames[i], H5P_DEFAULT), H5Dclose);
    if (!from.sets[i]) throw UserError("{}: /{} cannot be opened: {}", path.string(), kNames[i], hdf5::reason());
    *widths[i] = check_array(from.sets[i], path, kNames[i], info.images);
  }
}

FeatureFile::~FeatureFile() = default;
FeatureFile::FeatureFile(FeatureFile&&) noexcept = default;
const FeatureFileInfo& FeatureFile::info() const noexcept { return impl_->info; }
const Path& FeatureFile::path() const noexcept { return impl_->path; }

void FeatureFile::read(FeaturePart part, int64_t begin, int64_t count, float* out) const {
  const auto i = static_cast<size_t>(part);
  const Handle& set = impl_->sets[i];
  VARSCALE_CHECK(set && begin >= 0 && count >= 1 && count <= impl_->info.images - begin, "rows {} to {} of {} in {}",
                 begin, begin + count, kNames[i], impl_->path.string());
  const hdf5::QuietErrors quiet;
  const auto [in_file, in_memory] = rows_of(set, begin, count, widths_of(impl_->info)[i]);
  if (H5Dread(set.get(), H5T_NATIVE_FLOAT, in_memory.get(), in_file.get(), H5P_DEFAULT, out) < 0)
    throw UserError("{}: rows {} to {} of /{} cannot be read: {}; make the file again", impl_->path.string(), begin,
                    begin + count - 1, kNames[i], hdf5::reason());
}

}  // namespace varscale::records
