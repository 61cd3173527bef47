// Checkpoint manifests: what is accepted must be fit for loading without another look.
#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "records/checkpoint_manifest.hpp"
#include "tests/fuzz/driver.hpp"

namespace varscale {
namespace {

std::string read(const std::string& input) {
  const nlohmann::json manifest = records::parse_checkpoint_manifest(input, "step-000000002/manifest.json");
  // As CheckpointFolder reads it, with every number used as the program does.
  std::map<std::string, int64_t> rows, wanted;
  manifest["step"].get<int64_t>();
  manifest["segment"].get<int64_t>();
  const std::string words = manifest["run_id"].get<std::string>() + manifest["config_hash"].get<std::string>();
  for (const auto& [name, facts] : manifest["files"].items())
    VARSCALE_CHECK(name.find('/') == std::string::npos && facts["bytes"].get<int64_t>() >= 0 &&
                       facts["sha256"].is_string(),
                   "file {}", name);
  for (const nlohmann::json& entry : manifest["tensors"]) {
    const auto name = entry["name"].get<std::string>();
    const auto shape = entry["shape"].get<std::vector<int64_t>>();
    const auto axis = entry["axis"].get<int64_t>();
    const int64_t begin = entry["rows"][0], end = entry["rows"][1];
    const int64_t length = shape.empty() ? 1 : shape.at(static_cast<size_t>(axis));
    VARSCALE_CHECK(0 <= begin && begin < end && end <= length, "rows of {}", name);
    int64_t elements = end - begin;
    for (size_t i = 0; i < shape.size(); ++i)
      if (static_cast<int64_t>(i) != axis) elements *= shape[i];  // signed: a wrap is a report of UBSan
    VARSCALE_CHECK(elements > 0 && elements <= manifest["files"][entry["file"].get<std::string>()]["bytes"].get<int64_t>(),
                   "size of {}", name);
    rows[name] += end - begin;
    wanted[name] = length;
  }
  VARSCALE_CHECK(rows == wanted, "rows are missing");
  return fmt::format("{} tensors", manifest["tensors"].empty() ? "no" : "some");
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  return varscale::fuzz::run(
      argc, argv,
      {.name = "manifest",
       .dictionary = {"\"schema\": 2", "\"step\"", "\"segment\"", "\"run_id\"", "\"config_hash\"", "\"files\"",
                      "\"run.h5\"", "\"bytes\"", "\"sha256\"", "\"tensors\"", "\"name\"", "\"shape\"", "\"axis\"",
                      "\"rows\"", "\"file\"", "{", "}", "[", "]", ",", ":", "null", "true", "[[[[[[[[", "{\"a\":",
                      "../x", "\\u0000", "[0, 1]", "[0, 9223372036854775807]", "-1", "1.5", "1e999"},
       .seeds = {},
       .read = varscale::read});
}
