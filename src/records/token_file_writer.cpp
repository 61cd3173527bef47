#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/hdf5.hpp"
#include "records/token_file.hpp"
#include "records/token_layout.hpp"

namespace varscale::records {

using base::SystemError;
using base::UserError;
using hdf5::Handle;
using Path = std::filesystem::path;

namespace {

// The raw data's place in the file; early allocation, or the offset would not be known before a
// write.
off_t create_contiguous(const Handle& parent, const Path& path, const char* name, hid_t type,
                        const std::vector<hsize_t>& shape, const void* data = nullptr,
                        hid_t memory_type = H5I_INVALID_HID) {
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
                     H5Sclose);
  const Handle layout(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(layout.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(layout.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(layout.get(), H5D_FILL_TIME_NEVER);  // every row is written, so no pass of zeros
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
  return static_cast<off_t>(offset);
}

void write_class_names(const Handle& file, const Path& path,
                       const std::vector<std::string>& names) {
  if (names.empty()) return;
  std::vector<const char*> pointers;
  for (const std::string& name : names) pointers.push_back(name.c_str());
  const hsize_t count = names.size();
  const Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
  const Handle type = hdf5::string_type();
  errno = 0;
  const Handle set(H5Dcreate2(file.get(), "class_names", type.get(), space.get(), H5P_DEFAULT,
                              H5P_DEFAULT, H5P_DEFAULT),
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
  const Handle group(H5Gcreate2(file.get(), "quantizer", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
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

struct TokenFileWriter::Impl {
  Impl(const Path& target, const TokenFileInfo& the_info, const QuantizerWeights& weights)
      : path(target), info(the_info), quantizer(weights), file(target) {}
  ~Impl() {
    if (descriptor >= 0) ::close(descriptor);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void write_at(const void* data, size_t bytes, off_t offset) const {
    const char* from = static_cast<const char*>(data);
    while (bytes > 0) {
      const ssize_t count = ::pwrite(descriptor, from, bytes, offset);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) throw SystemError(file.temporary().string() + ": cannot be written", errno);
      from += count;
      offset += count;
      bytes -= static_cast<size_t>(count);
    }
  }

  Path path;
  TokenFileInfo info;
  QuantizerWeights quantizer;
  base::AtomicFile file;
  int descriptor = -1;
  off_t tokens_at = 0, labels_at = 0, split_at = 0, source_at = 0;
  std::vector<int32_t> labels;  // 13 bytes a row wait here for commit()
  std::vector<uint8_t> split;
  std::vector<int64_t> source_ids;
  std::vector<bool> written;
};

TokenFileWriter::TokenFileWriter(const Path& path, const TokenFileInfo& info,
                                 const QuantizerWeights& quantizer) {
  token_layout::check_info(path.string(), info);
  token_layout::check_quantizer_sizes(path.string(), info, quantizer);
  const auto v = static_cast<size_t>(quantizer.vocabulary);
  const auto c = static_cast<size_t>(quantizer.code_width), p = static_cast<size_t>(quantizer.phis);
  VARSCALE_CHECK(quantizer.embedding.size() == v * c, "embedding has {} numbers, expected {} x {}",
                 quantizer.embedding.size(), v, c);
  VARSCALE_CHECK(quantizer.phi_weight.size() == p * c * c * 9 && quantizer.phi_bias.size() == p * c,
                 "phi has {} weights and {} biases, expected {} x {} x {} x 3 x 3 and {} x {}",
                 quantizer.phi_weight.size(), quantizer.phi_bias.size(), p, c, c, p, c);

  impl_ = std::make_unique<Impl>(path, info, quantizer);
  const Path& temporary = impl_->file.temporary();
  const auto rows = static_cast<hsize_t>(info.rows());
  const auto length = static_cast<hsize_t>(info.tokens_per_image());
  {
    // The metadata is complete and closed before the first row; rows then go around HDF5.
    const hdf5::QuietErrors quiet;
    const Handle file = hdf5::create_file(temporary);
    write_info(file, path, info);
    hdf5::set_attribute(file.get(), path, "fingerprint",
                        std::string(token_layout::kFingerprintDigits, '0'));
    write_quantizer(file, path, quantizer);
    impl_->tokens_at = create_contiguous(file, path, "tokens", H5T_STD_U16LE, {rows, length});
    impl_->labels_at = create_contiguous(file, path, "labels", H5T_STD_I32LE, {rows});
    impl_->split_at = create_contiguous(file, path, "split", H5T_STD_U8LE, {rows});
    impl_->source_at = create_contiguous(file, path, "source_id", H5T_STD_I64LE, {rows});
    errno = 0;
    hdf5::require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, path, "flush the file");
  }
  impl_->descriptor = ::open(temporary.c_str(), O_WRONLY | O_CLOEXEC);
  if (impl_->descriptor < 0)
    throw SystemError(temporary.string() + ": cannot be opened for writing", errno);
  impl_->labels.resize(rows);
  impl_->split.resize(rows);
  impl_->source_ids.resize(rows);
  impl_->written.resize(rows);
}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::write_row(int64_t row, const uint16_t* tokens_L, int32_t label,
                                int64_t source_id) {
  Impl& to = *impl_;
  VARSCALE_CHECK(row >= 0 && row < to.info.rows(), "row {} of {}", row, to.info.rows());
  const auto at = static_cast<size_t>(row);
  if (to.written[at]) throw UserError("{}: row {} is written twice", to.path.string(), row);
  if (label < 0 || label >= to.info.classes)
    throw UserError("{}: row {} (image {}) has label {}; expected 0 to {}", to.path.string(), row,
                    source_id, label, to.info.classes - 1);
  const int64_t length = to.info.tokens_per_image();
  for (int64_t i = 0; i < length; ++i)
    VARSCALE_CHECK(tokens_L[i] < to.info.vocabulary, "token {} of row {} is {}, vocabulary {}", i,
                   row, tokens_L[i], to.info.vocabulary);
  const size_t bytes = static_cast<size_t>(length) * sizeof(uint16_t);
  to.write_at(tokens_L, bytes, to.tokens_at + static_cast<off_t>(at * bytes));
  to.labels[at] = label;
  to.split[at] = row < to.info.train_images * to.info.crops ? 0 : 1;
  to.source_ids[at] = source_id;
  to.written[at] = true;
}

void TokenFileWriter::commit() {
  Impl& to = *impl_;
  for (size_t row = 0; row < to.written.size(); ++row)
    VARSCALE_CHECK(to.written[row], "row {} of {} was not written", row, to.path.string());
  to.write_at(to.labels.data(), to.labels.size() * sizeof(int32_t), to.labels_at);
  to.write_at(to.split.data(), to.split.size(), to.split_at);
  to.write_at(to.source_ids.data(), to.source_ids.size() * sizeof(int64_t), to.source_at);
  std::string fingerprint;
  {
    const base::MappedFile mapped(to.file.temporary());
    fingerprint =
        token_layout::fingerprint(to.info, to.quantizer, mapped.data() + to.tokens_at,
                                  to.labels.data(), to.split.data(), to.source_ids.data());
  }
  {
    const hdf5::QuietErrors quiet;
    const Handle file = hdf5::open_for_appending(to.file.temporary());
    hdf5::set_attribute(file.get(), to.path, "fingerprint", fingerprint);
    errno = 0;
    hdf5::require(H5Fflush(file.get(), H5F_SCOPE_GLOBAL) >= 0, to.path, "flush the file");
  }
  to.file.commit();
}

}  // namespace varscale::records
