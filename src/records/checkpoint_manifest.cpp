#include "records/checkpoint_manifest.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/error.hpp"

namespace varscale::records {

namespace {

using Json = nlohmann::json;

// Looks through a manifest; what is wrong is thrown as a Fault, to which the caller adds the file's name.
class Checker {
 public:
  struct Fault {
    std::string sentence;
  };

  explicit Checker(const Json& json) : json_(json) {}

  void check() {
    require(json_.is_object(), "it is not a JSON object");
    require(json_.contains("schema") && json_["schema"] == kCheckpointSchema, "its schema is another");
    for (const char* key : {"step", "segment"}) require(is_size(json_, key), "{} is not a count", key);
    for (const char* key : {"run_id", "config_hash"}) require(is_text(json_, key), "{} is not a text", key);
    check_files();
    require(json_.contains("tensors") && json_["tensors"].is_array(), "tensors is not a list");
    for (const Json& entry : json_["tensors"]) check_tensor(entry);
    for (const auto& [name, rows] : rows_)
      require(rows.found == rows.wanted, "{} of {} rows of tensor '{}' are there", rows.found, rows.wanted, name);
  }

 private:
  struct Rows {
    Json shape, axis;
    uint64_t wanted, found = 0;
  };

  template <class... Args>
  static void require(bool holds, fmt::format_string<Args...> format, Args&&... args) {
    if (!holds) throw Fault{fmt::format(format, std::forward<Args>(args)...)};
  }
  static bool is_size(const Json& json) {
    return json.is_number_unsigned() && json.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()};
  }
  static bool is_size(const Json& object, const char* key) { return object.contains(key) && is_size(object[key]); }
  static bool is_text(const Json& object, const char* key) { return object.contains(key) && object[key].is_string(); }
  static bool is_sizes(const Json& object, const char* key) {
    return object.contains(key) && object[key].is_array() &&
           std::ranges::all_of(object[key], [](const Json& size) { return is_size(size); });
  }

  void check_files() {
    require(json_.contains("files") && json_["files"].is_object(), "files is not a map");
    require(json_["files"].contains(kCheckpointRows), "{} is not among its files", kCheckpointRows);
    for (const auto& [name, facts] : json_["files"].items()) {
      const bool plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                         name.find('\0') == std::string::npos;
      require(plain, "'{}' is no name of a file in its folder", name);
      require(facts.is_object() && is_size(facts, "bytes") && is_text(facts, "sha256"),
              "file '{}' needs bytes and sha256", name);
    }
  }

  void check_tensor(const Json& entry) {
    require(entry.is_object() && is_text(entry, "name"), "a tensor has no name");
    const auto name = entry["name"].get<std::string>();
    require(is_sizes(entry, "shape") && is_size(entry, "axis") && is_sizes(entry, "rows") && entry["rows"].size() == 2,
            "tensor '{}' needs a shape, an axis and two rows", name);
    require(is_text(entry, "file") && json_["files"].contains(entry["file"].get<std::string>()),
            "the file of tensor '{}' is not among its files", name);
    const auto shape = entry["shape"].get<std::vector<uint64_t>>();
    const auto axis = entry["axis"].get<uint64_t>(), begin = entry["rows"][0].get<uint64_t>(),
               end = entry["rows"][1].get<uint64_t>();
    require(shape.empty() ? axis == 0 : axis < shape.size(), "tensor '{}' has no axis {}", name, axis);
    const uint64_t wanted = shape.empty() ? 1 : shape[axis];
    require(begin < end && end <= wanted, "tensor '{}' has rows {} to {} of {}", name, begin, end, wanted);

    const auto [found, is_new] = rows_.try_emplace(name, Rows{entry["shape"], entry["axis"], wanted});
    require(found->second.shape == entry["shape"] && found->second.axis == entry["axis"],
            "tensor '{}' is listed with two shapes", name);
    found->second.found += end - begin;  // both at most 2^63: no wrap
    require(found->second.found <= wanted, "tensor '{}' has a row twice", name);
    // An element has at least a byte.
    const auto bytes = json_["files"][entry["file"].get<std::string>()]["bytes"].get<uint64_t>();
    uint64_t elements = end - begin;
    for (size_t i = 0; i < shape.size(); ++i) {
      if (i == axis) continue;
      require(shape[i] > 0 && elements <= bytes / shape[i], "tensor '{}' is larger than its file", name);
      elements *= shape[i];
    }
    require(elements <= bytes, "tensor '{}' is larger than its file", name);
  }

  const Json& json_;
  std::map<std::string, Rows> rows_;
};

}  // namespace

nlohmann::json parse_checkpoint_manifest(std::string_view text, const std::filesystem::path& path) {
  const auto refuse = [&](const std::string& why) {
    throw base::UserError("{}: not a checkpoint manifest of schema {}: {}", path.string(), kCheckpointSchema, why);
  };
  Json manifest = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (manifest.is_discarded()) refuse("it is not JSON");
  try {
    Checker(manifest).check();
  } catch (const Checker::Fault& fault) {
    refuse(fault.sentence);
  }
  return manifest;
}

}  // namespace varscale::records
