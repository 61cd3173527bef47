#include "base/safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/config.hpp"
#include "base/error.hpp"

namespace varscale::base {
namespace {

using Json = nlohmann::json;
static_assert(std::endian::native == std::endian::little, "the format is little-endian");

constexpr std::string_view kMetadataKey = "__metadata__";
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr size_t kAlignment = 8;

struct DTypeRow {
  DType dtype;
  std::string_view name;
  size_t bytes;
};
constexpr std::array<DTypeRow, 11> kDTypes = {{{DType::kF64, "F64", 8},
                                               {DType::kF32, "F32", 4},
                                               {DType::kF16, "F16", 2},
                                               {DType::kBF16, "BF16", 2},
                                               {DType::kI64, "I64", 8},
                                               {DType::kI32, "I32", 4},
                                               {DType::kI16, "I16", 2},
                                               {DType::kI8, "I8", 1},
                                               {DType::kU8, "U8", 1},
                                               {DType::kU16, "U16", 2},
                                               {DType::kBool, "BOOL", 1}}};

const DTypeRow& row_of(DType dtype) noexcept { return kDTypes[static_cast<size_t>(dtype)]; }

// Bytes of a tensor, or nothing where a size is negative or the product leaves int64.
std::optional<uint64_t> byte_count(const std::vector<int64_t>& shape, DType dtype) {
  uint64_t count = dtype_size(dtype);
  bool empty = false;
  for (const int64_t size : shape) {
    if (size < 0) return std::nullopt;
    empty = empty || size == 0;
    if (size > 0 &&
        count > uint64_t{std::numeric_limits<int64_t>::max()} / static_cast<uint64_t>(size))
      return std::nullopt;
    count *= static_cast<uint64_t>(std::max<int64_t>(size, 1));
  }
  return empty ? 0 : count;
}

struct Extent {
  uint64_t begin, end;
  std::string name;
};

// Reads and checks one header. Everything that is wrong is thrown as "file: sentence".
class HeaderReader {
 public:
  HeaderReader(const std::filesystem::path& path, const MappedFile& file)
      : path_(path.string()), file_(file) {}

  Json header() {
    uint64_t header_bytes = 0;
    if (file_.size() < sizeof header_bytes)
      fail("not a safetensors file: {} bytes long, the header alone needs 8", file_.size());
    std::memcpy(&header_bytes, file_.data(), sizeof header_bytes);
    if (header_bytes > kMaxHeaderBytes)
      fail("not a safetensors file: a header of {} bytes, at most {} are allowed", header_bytes,
           kMaxHeaderBytes);
    if (header_bytes > file_.size() - sizeof header_bytes)
      fail("truncated: a header of {} bytes in a file of {}", header_bytes, file_.size());
    const auto* text = reinterpret_cast<const char*>(file_.data()) + sizeof header_bytes;
    data_ = file_.data() + sizeof header_bytes + header_bytes;
    data_bytes_ = file_.size() - sizeof header_bytes - header_bytes;

    // The JSON library keeps the last of two equal keys without a word.
    std::set<std::string> seen;
    const auto refuse_duplicates = [&](int depth, Json::parse_event_t event, Json& key) {
      if (event == Json::parse_event_t::key && depth == 1 &&
          !seen.insert(key.get<std::string>()).second)
        fail("tensor '{}' is listed twice", key.get<std::string>());
      return true;
    };
    Json json;
    try {
      json = Json::parse(text, text + header_bytes, refuse_duplicates);
    } catch (const Json::exception&) {
      fail("not a safetensors file: its header is not valid JSON");
    }
    if (!json.is_object()) fail("not a safetensors file: its header is not a JSON object");
    return json;
  }

  TensorView tensor(const std::string& name, const Json& json) {
    if (!json.is_object() || !json.contains("dtype") || !json["dtype"].is_string() ||
        !is_sizes(json, "shape") || !is_sizes(json, "data_offsets") ||
        json["data_offsets"].size() != 2)
      fail("tensor '{}' needs a dtype, a shape and two data_offsets", name);
    const auto dtype_text = json["dtype"].get<std::string>();
    const auto row = std::ranges::find(kDTypes, dtype_text, &DTypeRow::name);
    if (row == kDTypes.end()) fail("tensor '{}' has the unknown dtype '{}'", name, dtype_text);
    auto shape = json["shape"].get<std::vector<int64_t>>();
    const auto begin = json["data_offsets"][0].get<uint64_t>();
    const auto end = json["data_offsets"][1].get<uint64_t>();
    if (begin > end) fail("tensor '{}' ends at byte {}, before it begins at {}", name, end, begin);
    if (end > data_bytes_)
      fail("tensor '{}' ends at byte {} of the data, but only {} are there (truncated?)", name, end,
           data_bytes_);
    const auto bytes = byte_count(shape, row->dtype);
    if (!bytes || *bytes != end - begin)
      fail("tensor '{}' has {} bytes, which is not what {} of shape [{}] takes", name, end - begin,
           dtype_text, fmt::join(shape, ", "));
    extents_.push_back({begin, end, name});
    return {row->dtype, std::move(shape), data_ + begin, static_cast<size_t>(*bytes)};
  }

  // The format wants the tensors to tile the data: no overlap, no hole, nothing behind the last.
  void check_tiling() {
    std::ranges::sort(extents_, {}, [](const Extent& e) { return std::pair(e.begin, e.end); });
    uint64_t at = 0;
    const std::string* before = nullptr;
    for (const Extent& extent : extents_) {
      if (extent.begin < at) fail("tensors '{}' and '{}' overlap", *before, extent.name);
      if (extent.begin > at)
        fail("{} bytes before tensor '{}' belong to no tensor", extent.begin - at, extent.name);
      at = extent.end;
      before = &extent.name;
    }
    if (at != data_bytes_) fail("{} bytes behind the last tensor belong to none", data_bytes_ - at);
  }

  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw UserError(path_ + ": " + fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  static bool is_sizes(const Json& json, const char* key) {
    if (!json.contains(key) || !json[key].is_array()) return false;
    return std::ranges::all_of(json[key], [](const Json& size) {
      return size.is_number_unsigned() &&
             size.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()};
    });
  }

  std::string path_;
  const MappedFile& file_;
  const std::byte* data_ = nullptr;
  uint64_t data_bytes_ = 0;
  std::vector<Extent> extents_;
};

}  // namespace

size_t dtype_size(DType dtype) noexcept { return row_of(dtype).bytes; }
std::string_view dtype_name(DType dtype) noexcept { return row_of(dtype).name; }

int64_t TensorView::numel() const noexcept {
  return static_cast<int64_t>(bytes / dtype_size(dtype));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  HeaderReader reader(path_, file_);
  const Json header = reader.header();
  for (const auto& [name, value] : header.items()) {
    if (name != kMetadataKey) {
      tensors_.emplace(name, reader.tensor(name, value));
      continue;
    }
    if (!value.is_object()) reader.fail("{} is not a map of texts", kMetadataKey);
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) reader.fail("{} '{}' is not a text", kMetadataKey, key);
      metadata_.emplace(key, text.get<std::string>());
    }
  }
  reader.check_tiling();
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [key, view] : tensors_) names.push_back(key);
  const auto near = nearest(name, names);
  throw UserError("{}: no tensor '{}' among {}{}", path_.string(), name, names.size(),
                  near ? fmt::format("; did you mean '{}'?", *near) : "");
}

bool SafetensorsFile::contains(std::string_view name) const { return tensors_.contains(name); }

void SafetensorsWriter::add(std::string name, DType dtype, std::vector<int64_t> shape,
                            const void* data) {
  add_entry({std::move(name), dtype, std::move(shape), data});
}

void SafetensorsWriter::add(std::string name, DType dtype, std::vector<int64_t> shape, Fill fill) {
  add_entry({std::move(name), dtype, std::move(shape), nullptr, std::move(fill)});
}

void SafetensorsWriter::add_entry(Entry entry) {
  VARSCALE_CHECK(entry.name != kMetadataKey &&
                     std::ranges::find(entries_, entry.name, &Entry::name) == entries_.end(),
                 "tensor name '{}' is taken", entry.name);
  const auto bytes = byte_count(entry.shape, entry.dtype);
  VARSCALE_CHECK(bytes.has_value(), "tensor '{}' has the impossible shape [{}]", entry.name,
                 fmt::join(entry.shape, ", "));
  VARSCALE_CHECK(*bytes == 0 || entry.data != nullptr || entry.fill, "tensor '{}' has no data",
                 entry.name);
  entries_.push_back(std::move(entry));
}

void SafetensorsWriter::set_metadata(std::string key, std::string value) {
  metadata_[std::move(key)] = std::move(value);
}

void SafetensorsWriter::save(const std::filesystem::path& path) const {
  // Wide types first: then every tensor is aligned to its own element size without padding.
  std::vector<const Entry*> order;
  for (const Entry& entry : entries_) order.push_back(&entry);
  std::ranges::sort(order, {}, [](const Entry* entry) {
    return std::pair(-static_cast<int>(dtype_size(entry->dtype)), std::string_view(entry->name));
  });

  auto header = nlohmann::ordered_json::object();
  if (!metadata_.empty()) header[std::string(kMetadataKey)] = metadata_;
  uint64_t at = 0;
  for (const Entry* entry : order) {
    const uint64_t end = at + *byte_count(entry->shape, entry->dtype);
    header[entry->name] = {
        {"dtype", dtype_name(entry->dtype)}, {"shape", entry->shape}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.append((kAlignment - text.size() % kAlignment) % kAlignment, ' ');

  AtomicFile file(path);
  const uint64_t header_bytes = text.size();
  file.write(&header_bytes, sizeof header_bytes);
  file.write(text);
  std::vector<std::byte> made;
  for (const Entry* entry : order) {
    const uint64_t bytes = *byte_count(entry->shape, entry->dtype);
    if (entry->fill) {
      made.resize(bytes);
      entry->fill(made.data());
    }
    file.write(entry->fill ? made.data() : entry->data, bytes);
  }
  file.commit();
}

}  // namespace varscale::base
