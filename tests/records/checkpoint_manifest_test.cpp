#include "records/checkpoint_manifest.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.hpp"

namespace varscale::records {
namespace {

using nlohmann::json;

// Two ranks; one tensor by rows, one along its second axis, one without axes.
json sound() {
  const auto entry = [](const char* name, json shape, int axis, int begin, int end, const char* file) {
    return json{{"name", name}, {"shape", shape}, {"axis", axis}, {"rows", {begin, end}}, {"file", file}};
  };
  return {{"schema", 2}, {"run_id", "d1-s0-000000"}, {"config_hash", "5eed"}, {"step", 20}, {"segment", 1},
          {"files", {{"run.h5", {{"bytes", 9}, {"sha256", "0"}}}, {"a", {{"bytes", 100}, {"sha256", "1"}}},
                     {"b", {{"bytes", 100}, {"sha256", "2"}}}}},
          {"tensors", {entry("param.w", {4, 3}, 0, 0, 1, "a"), entry("param.w", {4, 3}, 0, 1, 4, "b"),
                       entry("param.v", {1, 5}, 1, 0, 5, "a"), entry("param.s", json::array(), 0, 0, 1, "b")}}};
}

std::string refusal_of(const std::string& text) {
  try {
    parse_checkpoint_manifest(text, "step-000000020/manifest.json");
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "";
}

TEST(CheckpointManifest, AcceptsWhatASaverWrites) {
  EXPECT_EQ(refusal_of(sound().dump(1)), "");
  EXPECT_EQ(parse_checkpoint_manifest(sound().dump(), "m")["tensors"].size(), 4u);
}

TEST(CheckpointManifest, SaysWhatIsWrong) {
  const std::pair<std::function<void(json&)>, const char*> cases[] = {
      {[](json& m) { m["schema"] = 1; }, "its schema is another"},
      {[](json& m) { m.erase("step"); }, "step is not a count"},
      {[](json& m) { m["segment"] = -1; }, "segment is not a count"},
      {[](json& m) { m["run_id"] = 3; }, "run_id is not a text"},
      {[](json& m) { m["files"].erase("run.h5"); }, "run.h5 is not among its files"},
      {[](json& m) { m["files"]["../a"] = m["files"]["a"]; }, "'../a' is no name of a file in its folder"},
      {[](json& m) { m["files"]["a"]["bytes"] = "many"; }, "file 'a' needs bytes and sha256"},
      {[](json& m) { m["tensors"] = 3; }, "tensors is not a list"},
      {[](json& m) { m["tensors"][0].erase("name"); }, "a tensor has no name"},
      {[](json& m) { m["tensors"][0]["rows"] = {0, 1, 2}; }, "'param.w' needs a shape, an axis and two rows"},
      {[](json& m) { m["tensors"][0]["file"] = "c"; }, "the file of tensor 'param.w' is not among its files"},
      {[](json& m) { m["tensors"][0]["axis"] = 2; }, "tensor 'param.w' has no axis 2"},
      {[](json& m) { m["tensors"][3]["rows"] = {0, 2}; }, "tensor 'param.s' has rows 0 to 2 of 1"},
      {[](json& m) { m["tensors"][1]["rows"] = {3, 2}; }, "tensor 'param.w' has rows 3 to 2 of 4"},
      {[](json& m) { m["tensors"][1]["shape"] = {4, 2}; }, "tensor 'param.w' is listed with two shapes"},
      {[](json& m) { m["tensors"][0]["rows"] = {0, 2}; }, "tensor 'param.w' has a row twice"},
      {[](json& m) { m["tensors"].erase(1); }, "1 of 4 rows of tensor 'param.w' are there"},
      {[](json& m) { m["files"]["a"]["bytes"] = 4; }, "tensor 'param.v' is larger than its file"},
      {[](json& m) { m["tensors"][2]["shape"] = {int64_t{1} << 62, 5}; }, "tensor 'param.v' is larger than its file"}};
  for (const auto& [change, sentence] : cases) {
    json manifest = sound();
    change(manifest);
    EXPECT_THAT(refusal_of(manifest.dump()), testing::HasSubstr(sentence));
  }
  for (const char* text : {"", "{", "[]", "3", "{\"schema\": 1e999}"})
    EXPECT_THAT(refusal_of(text), testing::StartsWith("step-000000020/manifest.json: not a checkpoint manifest of schema 2: "));
}

}  // namespace
}  // namespace varscale::records
