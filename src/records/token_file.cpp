#include "records/token_file.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/hdf5.hpp"
#include "records/token_layout.hpp"

namespace varscale::records {

using base::UserError;
using hdf5::Handle;
using Path = std::filesystem::path;

namespace {

// Opens `name` and checks type and shape; `type_words` completes the sentence.
Handle open_dataset(const Handle& parent, const Path& path, const std::string& name, hid_t type,
                    const char* type_words, const std::vector<int64_t>& shape) {
  if (H5Lexists(parent.get(), name.c_str(), H5P_DEFAULT) <= 0)
    throw UserError("{}: {} is missing; expected a token file", path.string(), name);
  Handle set(H5Dopen2(parent.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!set) throw UserError("{}: {} cannot be opened: {}", path.string(), name, hdf5::reason());
  const Handle found_type(H5Dget_type(set.get()), H5Tclose);
  if (H5Tequal(found_type.get(), type) <= 0)
    throw UserError("{}: {} does not hold {}", path.string(), name, type_words);
  const Handle space(H5Dget_space(set.get()), H5Sclose);
  std::vector<hsize_t> found(H5S_MAX_RANK);
  const int rank = H5Sget_simple_extent_dims(space.get(), found.data(), nullptr);
  found.resize(rank < 0 ? 0 : static_cast<size_t>(rank));
  if (!std::equal(found.begin(), found.end(), shape.begin(), shape.end(),
                  [](hsize_t a, int64_t b) { return a == static_cast<hsize_t>(b); }))
    throw UserError("{}: {} has shape [{}]; expected [{}]", path.string(), name,
                    fmt::join(found, ", "), fmt::join(shape, ", "));
  return set;
}

struct Extent {
  uint64_t offset = 0, bytes = 0;
};

// Where the raw data of a contiguous data set lies.
Extent place_of(const Handle& set, const Path& path, const char* name, uint64_t bytes) {
  const haddr_t offset = H5Dget_offset(set.get());
  if (offset == HADDR_UNDEF)
    throw UserError("{}: {} is not stored contiguously; expected a file as var_data writes it",
                    path.string(), name);
  return {offset, bytes};
}

std::vector<float> read_floats(const Handle& group, const Path& path, const char* name,
                               const std::vector<int64_t>& shape) {
  const Handle set = open_dataset(group, path, name, H5T_IEEE_F32LE, "32-bit floats", shape);
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  if (H5Dget_storage_size(set.get()) < count * sizeof(float))
    throw UserError("{}: {} is not stored in full", path.string(), name);
  std::vector<float> values(count);
  if (H5Dread(set.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0)
    throw UserError("{}: {} cannot be read: {}", path.string(), name, hdf5::reason());
  return values;
}

std::vector<std::string> read_class_names(const Handle& file, const Path& path, int64_t classes) {
  if (H5Lexists(file.get(), "class_names", H5P_DEFAULT) <= 0) return {};
  const Handle type = hdf5::string_type();
  const Handle set =
      open_dataset(file, path, "class_names", type.get(), "variable-length UTF-8 text", {classes});
  const Handle space(H5Dget_space(set.get()), H5Sclose);
  std::vector<char*> pointers(static_cast<size_t>(classes), nullptr);
  if (H5Dread(set.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, pointers.data()) < 0)
    throw UserError("{}: class_names cannot be read: {}", path.string(), hdf5::reason());
  std::vector<std::string> names;
  for (const char* name : pointers) names.emplace_back(name == nullptr ? "" : name);
  H5Dvlen_reclaim(type.get(), space.get(), H5P_DEFAULT, pointers.data());
  return names;
}

TokenFileInfo read_info(const Handle& file, const Path& path) {
  if (H5Aexists(file.get(), "format") <= 0 ||
      hdf5::read_attribute_as<std::string>(file.get(), path, "format") != token_layout::kFormat)
    throw UserError("{}: is not a token file (its attribute format is not '{}')", path.string(),
                    token_layout::kFormat);
  const auto integer = [&](const char* name) {
    return hdf5::read_attribute_as<int64_t>(file.get(), path, name);
  };
  const auto text = [&](const char* name) {
    return hdf5::read_attribute_as<std::string>(file.get(), path, name);
  };
  if (const int64_t version = integer("schema_version"); version != token_layout::kSchemaVersion)
    throw UserError("{}: schema_version is {}; this program reads {}", path.string(), version,
                    token_layout::kSchemaVersion);
  TokenFileInfo info;
  info.train_images = integer("train_images");
  info.validation_images = integer("validation_images");
  info.crops = integer("crops");
  info.classes = integer("classes");
  info.vocabulary = integer("vocabulary");
  info.image_side = integer("image_side");
  info.tokenizer_fingerprint = text("tokenizer_fingerprint");
  info.preprocessing = text("preprocessing");
  info.source_fingerprint = text("source_fingerprint");
  info.tokenizer_path = text("tokenizer_path");
  if (H5Aexists(file.get(), "precision") > 0) info.precision = text("precision");
  if (H5Aexists(file.get(), "crop_seed") > 0)
    info.train_source = {.crop_seed = static_cast<uint64_t>(integer("crop_seed")),
                         .keep_exact = integer("keep_exact") != 0,
                         .fingerprint = text("train_fingerprint")};
  info.scales = hdf5::read_int_array(file.get(), path, "scales");
  token_layout::check_info(path.string(), info);
  info.class_names = read_class_names(file, path, info.classes);
  return info;
}

QuantizerWeights read_quantizer(const Handle& file, const Path& path, const TokenFileInfo& info) {
  const Handle group(H5Gopen2(file.get(), "quantizer", H5P_DEFAULT), H5Gclose);
  if (!group) throw UserError("{}: group /quantizer is missing", path.string());
  QuantizerWeights weights;
  weights.phi_ratio = hdf5::read_attribute_as<double>(group.get(), path, "phi_ratio");
  // Sizes come from the arrays themselves; their product with the vocabulary is checked on opening.
  const auto last_size = [&](const char* name, int wanted_rank, int axis) -> int64_t {
    const Handle set(H5Dopen2(group.get(), name, H5P_DEFAULT), H5Dclose);
    const Handle space(H5Dget_space(set.get()), H5Sclose);
    hsize_t shape[H5S_MAX_RANK] = {};
    if (!set || H5Sget_simple_extent_dims(space.get(), shape, nullptr) != wanted_rank)
      throw UserError("{}: /quantizer/{} is missing or not of rank {}", path.string(), name,
                      wanted_rank);
    return static_cast<int64_t>(std::min<hsize_t>(shape[axis], 1 << 30));
  };
  weights.vocabulary = last_size("embedding", 2, 0);
  weights.code_width = last_size("embedding", 2, 1);
  const bool has_phi = H5Lexists(group.get(), "phi_bias", H5P_DEFAULT) > 0;
  weights.phis = has_phi ? last_size("phi_bias", 2, 0) : 0;
  token_layout::check_quantizer_sizes(path.string(), info, weights);
  const int64_t v = weights.vocabulary, c = weights.code_width, p = weights.phis;
  weights.embedding = read_floats(group, path, "embedding", {v, c});
  if (has_phi) {
    weights.phi_weight = read_floats(group, path, "phi_weight", {p, c, c, 3, 3});
    weights.phi_bias = read_floats(group, path, "phi_bias", {p, c});
  }
  return weights;
}

}  // namespace

namespace {

// Empty where the file is of before there were checksums.
std::vector<uint64_t> read_checksums(const Handle& file, const Path& path, const TokenFileInfo& info) {
  if (H5Aexists(file.get(), "checksum_rows") <= 0) return {};
  const auto rows = hdf5::read_attribute_as<int64_t>(file.get(), path, "checksum_rows");
  if (rows != token_layout::kChecksumRows)
    throw UserError("{}: checksum_rows is {}; this program reads {}", path.string(), rows, token_layout::kChecksumRows);
  const int64_t blocks = token_layout::checksum_blocks(info);
  const Handle set = open_dataset(file, path, "checksums", H5T_STD_U64LE, "unsigned 64-bit integers", {blocks});
  if (H5Dget_storage_size(set.get()) < static_cast<uint64_t>(blocks) * sizeof(uint64_t))
    throw UserError("{}: /checksums is not stored in full", path.string());
  std::vector<uint64_t> sums(static_cast<size_t>(blocks));
  if (H5Dread(set.get(), H5T_NATIVE_UINT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, sums.data()) < 0)
    throw UserError("{}: /checksums cannot be read: {}", path.string(), hdf5::reason());
  return sums;
}

}  // namespace

struct TokenFile::Impl {
  Path path;
  TokenFileInfo info;
  QuantizerWeights quantizer;
  std::string fingerprint;
  std::vector<uint64_t> checksums;
  int64_t length = 0;  // tokens an image
  Extent tokens, labels, split, source_ids;
  std::unique_ptr<base::MappedFile> mapped;

  const std::byte* at(const Extent& extent) const { return mapped->data() + extent.offset; }
  template <class T>
  T value(const Extent& extent, int64_t row) const {
    VARSCALE_CHECK(row >= 0 && row < info.rows(), "row {} of {} rows", row, info.rows());
    T result;
    std::memcpy(&result, at(extent) + static_cast<size_t>(row) * sizeof(T), sizeof(T));
    return result;
  }
};

TokenFile::TokenFile(const Path& path) : impl_(std::make_unique<Impl>()) {
  Impl& to = *impl_;
  to.path = path;
  {
    const hdf5::QuietErrors quiet;
    const Handle file = hdf5::open_for_reading(path);
    to.info = read_info(file, path);
    to.fingerprint = hdf5::read_attribute_as<std::string>(file.get(), path, "fingerprint");
    to.quantizer = read_quantizer(file, path, to.info);
    to.length = to.info.tokens_per_image();
    const int64_t rows = to.info.rows();
    const auto place = [&](const char* name, hid_t type, const char* words,
                           const std::vector<int64_t>& shape) {
      const Handle set = open_dataset(file, path, name, type, words, shape);
      uint64_t bytes = H5Tget_size(type);
      for (const int64_t size : shape) bytes *= static_cast<uint64_t>(size);
      return place_of(set, path, name, bytes);
    };
    to.tokens = place("tokens", H5T_STD_U16LE, "unsigned 16-bit integers", {rows, to.length});
    to.labels = place("labels", H5T_STD_I32LE, "32-bit integers", {rows});
    to.split = place("split", H5T_STD_U8LE, "unsigned 8-bit integers", {rows});
    to.source_ids = place("source_id", H5T_STD_I64LE, "64-bit integers", {rows});
    to.checksums = read_checksums(file, path, to.info);
  }
  to.mapped = std::make_unique<base::MappedFile>(path);
  for (const Extent& extent : {to.tokens, to.labels, to.split, to.source_ids})
    if (extent.offset > to.mapped->size() || extent.bytes > to.mapped->size() - extent.offset)
      throw UserError("{}: the file is truncated: {} bytes, but its arrays reach to byte {}",
                      path.string(), to.mapped->size(), extent.offset + extent.bytes);
  if (to.tokens.offset % alignof(uint16_t) != 0)
    throw UserError("{}: /tokens begins at the odd byte {}; expected a file as var_data writes it",
                    path.string(), to.tokens.offset);
}

TokenFile::~TokenFile() = default;
TokenFile::TokenFile(TokenFile&&) noexcept = default;

const TokenFileInfo& TokenFile::info() const noexcept { return impl_->info; }
const QuantizerWeights& TokenFile::quantizer() const noexcept { return impl_->quantizer; }
const Path& TokenFile::path() const noexcept { return impl_->path; }
const std::string& TokenFile::fingerprint() const noexcept { return impl_->fingerprint; }

const uint16_t* TokenFile::row(int64_t row) const {
  VARSCALE_CHECK(row >= 0 && row < impl_->info.rows(), "row {} of {} rows", row,
                 impl_->info.rows());
  return reinterpret_cast<const uint16_t*>(impl_->at(impl_->tokens)) + row * impl_->length;
}

int32_t TokenFile::label(int64_t row) const { return impl_->value<int32_t>(impl_->labels, row); }

int64_t TokenFile::source_id(int64_t row) const {
  return impl_->value<int64_t>(impl_->source_ids, row);
}

int64_t TokenFile::train_row(int64_t image, int64_t crop) const {
  const TokenFileInfo& info = impl_->info;
  VARSCALE_CHECK(image >= 0 && image < info.train_images, "training image {} of {}", image,
                 info.train_images);
  VARSCALE_CHECK(crop >= 0 && crop < info.crops, "crop {} of {}", crop, info.crops);
  return image * info.crops + crop;
}

int64_t TokenFile::validation_row(int64_t image) const {
  const TokenFileInfo& info = impl_->info;
  VARSCALE_CHECK(image >= 0 && image < info.validation_images, "validation image {} of {}", image,
                 info.validation_images);
  return info.train_images * info.crops + image;
}

void TokenFile::verify() const {
  const Impl& from = *impl_;
  const TokenFileInfo& info = from.info;
  for (int64_t i = 0; i < info.rows(); ++i) {
    const uint16_t* tokens_L = row(i);
    for (int64_t l = 0; l < from.length; ++l)
      if (tokens_L[l] >= info.vocabulary)
        throw UserError("{}: token {} of row {} is {}; expected less than the vocabulary, {}",
                        from.path.string(), l, i, tokens_L[l], info.vocabulary);
    if (label(i) < 0 || label(i) >= info.classes)
      throw UserError("{}: the label of row {} is {}; expected 0 to {}", from.path.string(), i,
                      label(i), info.classes - 1);
  }
  const token_layout::Columns columns{from.at(from.tokens), from.at(from.labels), from.at(from.split),
                                      from.at(from.source_ids)};
  for (size_t block = 0; block < from.checksums.size(); ++block) {
    const int64_t first = static_cast<int64_t>(block) * token_layout::kChecksumRows;
    if (token_layout::block_checksum(info, columns, static_cast<int64_t>(block)) != from.checksums[block])
      throw UserError("{}: rows {} to {} do not fit their checksum; the file is damaged there", from.path.string(),
                      first, std::min(first + token_layout::kChecksumRows, info.rows()) - 1);
  }
  const std::string found =
      token_layout::fingerprint(info, from.quantizer, from.at(from.tokens), from.at(from.labels),
                                from.at(from.split), from.at(from.source_ids));
  if (found != from.fingerprint)
    throw UserError("{}: its contents have fingerprint {}, but it says {}; the file is damaged",
                    from.path.string(), found.substr(0, 16), from.fingerprint.substr(0, 16));
}

}  // namespace varscale::records
