#include "records/token_writing.hpp"

#include <unistd.h>

#include <cerrno>
#include <vector>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/hdf5.hpp"
#include "records/token_layout.hpp"

namespace varscale::records::token_writing {

using base::SystemError;
using hdf5::Handle;

namespace {

// The raw data's place in the file; early allocation, or the offset would not be known before a
// write.
int64_t create_contiguous(const Handle& parent, const Path& path, const char* name, hid_t type,
                        const std::vector<hsize_t>& shape, const void* data = nullptr,
                        hid_t memory_type = H5I_INVALID_HID) {
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
                     H5Sclose);
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(layout.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(layout.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(layout.get(), H5D_FILL_TIME_NEVER);  // every row is written, so no pass of zeros
  H5Pset_obj_track_times(layout.get(), false);          // equal work gives equal bytes, whenever it is done
  errno = 0;
  const Handle set(
      H5Dcreate2(parent.get(), name, type, space.get(), H5P_DEFAULT, layout.get(), H5P_DEFAULT),
      H5Dclose);
  hdf5::require(static_cast<bool>(set), path, std::string("create /") + name);
  if (data != nullptr)
    hdf5::require(H5Dwrite(set.get(), memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0, path,
                  std::string("write /") + name);
  const haddr_t offset = H5Dget_offset(set.get());
  hdf5::require(offset != HADDR_UNDEF, path, std::string("place /") + name);
  return static_cast<int64_t>(offset);
}

void write_class_names(const Handle& file, const Path& path,
                       const std::vector<std::string>& names) {
  if (names.empty()) return;
  std::vector<const char*> pointers;
  for (const std::string& name : names) pointers.push_back(name.c_str());
  const hsize_t count = names.size();
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  const Handle type = hdf5::string_type();
  const Handle plain(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(plain.get(), false);
  errno = 0;
  const Handle set(H5Dcreate2(file.get(), "class_names", type.get(), space.get(), H5P_DEFAULT,
                              plain.get(), H5P_DEFAULT),
                   H5Dclose);
  hdf5::require(
      set && H5Dwrite(set.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) >= 0,
      path, "write /class_names");
}

void write_info(const Handle& file, const Path& path, const TokenFileInfo& info) {
  const auto set = [&](const char* name, const Fact& value) {
    hdf5::set_attribute(file.get(), path, name, value);
  };
  set("format", std::string(token_layout::kFormat));
  set("schema_version", token_layout::kSchemaVersion);
  set("train_images", info.train_images);
  set("validation_images", info.validation_images);
  set("crops", info.crops);
  set("classes", info.classes);
  set("vocabulary", info.vocabulary);
  set("image_side", info.image_side);
  set("tokenizer_fingerprint", info.tokenizer_fingerprint);
  set("preprocessing", info.preprocessing);
  set("source_fingerprint", info.source_fingerprint);
  set("tokenizer_path", info.tokenizer_path);
  set("precision", info.precision);
  if (info.train_source) {
    set("crop_seed", static_cast<int64_t>(info.train_source->crop_seed));  // the same 64 bits
    set("keep_exact", static_cast<int64_t>(info.train_source->keep_exact));
    set("train_fingerprint", info.train_source->fingerprint);
  }
  hdf5::set_attribute(file.get(), path, "scales", info.scales);
  write_class_names(file, path, info.class_names);
}

void write_quantizer(const Handle& file, const Path& path, const QuantizerWeights& quantizer) {
  const auto v = static_cast<hsize_t>(quantizer.vocabulary);
  const auto c = static_cast<hsize_t>(quantizer.code_width),
             p = static_cast<hsize_t>(quantizer.phis);
  const Handle plain(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
  H5Pset_obj_track_times(plain.get(), false);
  const Handle group(H5Gcreate2(file.get(), "quantizer", H5P_DEFAULT, plain.get(), H5P_DEFAULT),
                     H5Gclose);
  hdf5::require(static_cast<bool>(group), path, "create /quantizer");
  hdf5::set_attribute(group.get(), path, "phi_ratio", quantizer.phi_ratio);
  const auto write = [&](const char* name, const std::vector<hsize_t>& shape,
                         const std::vector<float>& values) {
    create_contiguous(group, path, name, H5T_IEEE_F32LE, shape, values.data(), H5T_NATIVE_FLOAT);
  };
  write("embedding", {v, c}, quantizer.embedding);
  if (p == 0) return;
  write("phi_weight", {p, c, c, 3, 3}, quantizer.phi_weight);
  write("phi_bias", {p, c}, quantizer.phi_bias);
}

}  // namespace

Places create(const Path& file_path, const Path& path, const TokenFileInfo& info, const QuantizerWeights& quantizer) {
  token_layout::check_info(path.string(), info);
  token_layout::check_quantizer_sizes(path.string(), info, quantizer);
  const auto v = static_cast<size_t>(quantizer.vocabulary);
  const auto c = static_cast<size_t>(quantizer.code_width), p = static_cast<size_t>(quantizer.phis);
  VARSCALE_CHECK(quantizer.embedding.size() == v * c, "embedding has {} numbers, expected {} x {}",
                 quantizer.embedding.size(), v, c);
  VARSCALE_CHECK(quantizer.phi_weight.size() == p * c * c * 9 && quantizer.phi_bias.size() == p * c,
                 "phi has {} weights and {} biases, expected {} x {} x {} x 3 x 3 and {} x {}",
                 quantizer.phi_weight.size(), quantizer.phi_bias.size(), p, c, c, p, c);
  const auto rows = static_cast<hsize_t>(info.rows());
  const auto length = static_cast<hsize_t>(info.tokens_per_image());
  // The metadata is complete and closed before the first row; rows then go around HDF5.
  const hdf5::QuietErrors quiet;
  const Handle file = hdf5::create_file(file_path);
  write_info(file, path, info);
  hdf5::set_attribute(file.get(), path, "fingerprint", std::string(token_layout::kFingerprintDigits, '0'));
  hdf5::set_attribute(file.get(), path, "checksum_rows", token_layout::kChecksumRows);
  write_quantizer(file, path, quantizer);
  Places places;
  places.tokens = create_contiguous(file, path, "tokens", H5T_STD_U16LE, {rows, length});
  places.labels = create_contiguous(file, path, "labels", H5T_STD_I32LE, {rows});
  places.split = create_contiguous(file, path, "split", H5T_STD_U8LE, {rows});
  places.source_ids = create_contiguous(file, path, "source_id", H5T_STD_I64LE, {rows});
  const auto blocks = static_cast<hsize_t>(token_layout::checksum_blocks(info));
  places.checksums = create_contiguous(file, path, "checksums", H5T_STD_U64LE, {blocks});
  errno = 0;
  hdf5::require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, path, "flush the file");
  return places;
}

void write_at(int descriptor, const Path& file_path, const void* data, size_t bytes, int64_t offset) {
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t count = ::pwrite(descriptor, from, bytes, static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw SystemError(file_path.string() + ": cannot be written", errno);
    from += count;
    offset += count;
    bytes -= static_cast<size_t>(count);
  }
}

void write_rows(int descriptor, const Path& file_path, const Places& places, const TokenFileInfo& info,
                const RowsToWrite& rows) {
  const auto count = static_cast<size_t>(rows.count), row = static_cast<size_t>(rows.first);
  const size_t row_bytes = static_cast<size_t>(info.tokens_per_image()) * sizeof(uint16_t);
  const auto write = [&](const void* data, size_t item, int64_t begin) {
    write_at(descriptor, file_path, data, count * item, begin + static_cast<int64_t>(row * item));
  };
  write(rows.tokens, row_bytes, places.tokens);
  write(rows.labels, sizeof(int32_t), places.labels);
  write(rows.source_ids, sizeof(int64_t), places.source_ids);
  std::vector<uint8_t> split(count);
  for (size_t i = 0; i < count; ++i) split[i] = rows.first + static_cast<int64_t>(i) >= info.train_images * info.crops;
  write(split.data(), sizeof(uint8_t), places.split);
}

void finish(const Path& file_path, const Path& path, const TokenFileInfo& info, const QuantizerWeights& quantizer,
            const Places& places) {
  std::string fingerprint;
  std::vector<uint64_t> checksums;
  {
    const base::MappedFile mapped(file_path);
    const token_layout::Columns columns = columns_of(mapped, places);
    for (int64_t block = 0; block < token_layout::checksum_blocks(info); ++block)
      checksums.push_back(token_layout::block_checksum(info, columns, block));
    fingerprint = token_layout::fingerprint(info, quantizer, columns.tokens, columns.labels, columns.split,
                                            columns.source_ids);
  }
  const hdf5::QuietErrors quiet;
  const Handle file = hdf5::open_for_appending(file_path);
  hdf5::set_attribute(file.get(), path, "fingerprint", fingerprint);
  errno = 0;
  {
    const Handle set(H5Dopen2(file.get(), "checksums", H5P_DEFAULT), H5Dclose);
    hdf5::require(set && H5Dwrite(set.get(), H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, checksums.data()) >= 0,
                  path, "write /checksums");
  }
  hdf5::require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, path, "flush the file");
}

token_layout::Columns columns_of(const base::MappedFile& mapped, const Places& places) {
  const std::byte* data = mapped.data();
  return {data + places.tokens, data + places.labels, data + places.split, data + places.source_ids};
}

}  // namespace varscale::records::token_writing
