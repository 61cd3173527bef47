#include "checkpoint/checkpoint.hpp"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/error.hpp"
#include "base/file.hpp"

namespace varscale::checkpoint {

namespace {

constexpr int64_t kSchema = 1;
constexpr const char* kManifest = "manifest.json";
constexpr const char* kTensors = "rank-00000.safetensors";
constexpr const char* kRows = "run.h5";

std::string sha256_of(const std::filesystem::path& path) {
  const base::MappedFile file(path);
  base::Sha256 hash;
  hash.update(file.data(), file.size());
  return hash.hex();
}

// The step of a folder named step-000001000; nothing for any other name.
std::optional<int64_t> step_of(const std::filesystem::path& folder) {
  constexpr std::string_view kPrefix = "step-";
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || stopped != end || step < 0) return std::nullopt;
  return step;
}

bool is_complete(const std::filesystem::path& folder) {
  return step_of(folder) && std::filesystem::exists(folder / kManifest);
}

// Whether `json` has every key that loading reads, of the right type.
bool is_manifest(const nlohmann::json& json) {
  const auto is_integer = [&](const char* key) {
    return json.contains(key) && json[key].is_number_integer();
  };
  const auto is_text = [](const nlohmann::json& object, const char* key) {
    return object.contains(key) && object[key].is_string();
  };
  if (!json.is_object() || !is_integer("schema") || json["schema"] != kSchema) return false;
  if (!is_integer("step") || !is_integer("segment")) return false;
  if (!is_text(json, "run_id") || !is_text(json, "config_hash")) return false;
  if (!json.contains("files") || !json["files"].is_object()) return false;
  for (const char* name : {kTensors, kRows}) {
    if (!json["files"].contains(name)) return false;
  }
  return std::ranges::all_of(json["files"], [&](const nlohmann::json& file) {
    return file.is_object() && file.contains("bytes") && file["bytes"].is_number_integer() &&
           is_text(file, "sha256");
  });
}

}  // namespace

nn::NamedTensors with_prefix(const std::string& prefix, const nn::NamedTensors& tensors) {
  nn::NamedTensors named;
  for (const nn::NamedTensor& tensor : tensors)
    named.push_back({prefix + tensor.name, tensor.tensor});
  return named;
}

std::filesystem::path CheckpointFolder::path_of(int64_t step) const {
  return folder_ / fmt::format("step-{:09}", step);
}

void CheckpointFolder::write(const State& state) const {
  std::filesystem::create_directories(folder_);
  const std::filesystem::path target = path_of(state.step);
  if (std::filesystem::exists(target / kManifest)) return;  // this very state is already safe
  std::filesystem::remove_all(target);
  base::AtomicFolder aside(target);
  nn::save_tensors(aside.temporary() / kTensors, state.tensors);
  records::write_run(aside.temporary() / kRows, state.rows);

  nlohmann::ordered_json manifest;
  manifest["schema"] = kSchema;
  manifest["run_id"] = state.identity.run_id;
  manifest["config_hash"] = state.identity.config_hash;
  manifest["step"] = state.step;
  manifest["segment"] = state.segment;
  for (const char* name : {kTensors, kRows}) {
    const std::filesystem::path file = aside.temporary() / name;
    manifest["files"][name] = {{"bytes", std::filesystem::file_size(file)},
                               {"sha256", sha256_of(file)}};
  }
  for (const nn::NamedTensor& named : state.tensors) {
    manifest["tensors"].push_back({{"name", named.name},
                                   {"shape", named.tensor.sizes().vec()},
                                   {"rows", {0, named.tensor.dim() > 0 ? named.tensor.size(0) : 1}},
                                   {"file", kTensors}});
  }
  base::write_file_atomic(aside.temporary() / kManifest, manifest.dump(1));
  aside.commit();
  prune();
}

void CheckpointFolder::save(const State& state, comm::Communicator& world) const {
  comm::agree_on(world, "save checkpoint", [&] {
    if (world.rank() == 0) write(state);
  });
}

std::vector<int64_t> CheckpointFolder::steps() const {
  std::vector<int64_t> steps;
  if (!std::filesystem::is_directory(folder_)) return steps;
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    if (is_complete(entry.path())) steps.push_back(*step_of(entry.path()));
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

std::optional<int64_t> CheckpointFolder::latest() const {
  const std::vector<int64_t> all = steps();
  if (all.empty()) return std::nullopt;
  return all.back();
}

void CheckpointFolder::prune() const {
  const std::vector<int64_t> all = steps();
  for (size_t i = 0; i + static_cast<size_t>(keep_) < all.size(); ++i) {
    // The manifest goes first: a kill in between leaves an unfinished folder, not a damaged
    // checkpoint.
    std::filesystem::remove(path_of(all[i]) / kManifest);
    std::filesystem::remove_all(path_of(all[i]));
  }
  // What a kill has left: unfinished folders, and temporary ones, which may be whole but for their
  // name.
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    if (entry.is_directory() && !is_complete(entry.path())) {
      std::filesystem::remove_all(entry.path());
    }
  }
}

nlohmann::json CheckpointFolder::manifest(int64_t step) const {
  const std::filesystem::path path = path_of(step) / kManifest;
  const nlohmann::json manifest =
      nlohmann::json::parse(base::read_file(path), nullptr, /*allow_exceptions=*/false);
  if (!is_manifest(manifest))
    throw base::UserError("{}: not a checkpoint manifest of schema {}", path.string(), kSchema);
  return manifest;
}

void CheckpointFolder::check_files(int64_t step, const nlohmann::json& manifest) const {
  for (const auto& [name, facts] : manifest["files"].items()) {
    const std::filesystem::path file = path_of(step) / name;
    if (!std::filesystem::exists(file))
      throw base::UserError("{}: the manifest names it, but it is missing", file.string());
    const auto bytes = std::filesystem::file_size(file), wanted = facts["bytes"].get<uintmax_t>();
    if (bytes != wanted) {
      throw base::UserError("{}: has {} bytes, its manifest says {}", file.string(), bytes, wanted);
    }
    if (sha256_of(file) != facts["sha256"].get<std::string>()) {
      throw base::UserError("{}: its contents do not have the checksum of its manifest",
                            file.string());
    }
  }
}

Position CheckpointFolder::load(int64_t step, const Identity& expected,
                                const nn::NamedTensors& targets) const {
  const nlohmann::json facts = manifest(step);
  if (facts["config_hash"].get<std::string>() != expected.config_hash) {
    throw base::UserError(
        "{}: is a checkpoint of another configuration (run {}), expected one of run {}",
        path_of(step).string(), facts["run_id"].get<std::string>(), expected.run_id);
  }
  check_files(step, facts);
  nn::load_tensors(base::SafetensorsFile(path_of(step) / kTensors), targets);
  return {facts["step"].get<int64_t>(), facts["segment"].get<int64_t>()};
}

void CheckpointFolder::load_weights(int64_t step, const nn::NamedTensors& parameters) const {
  check_files(step, manifest(step));
  nn::load_tensors(base::SafetensorsFile(path_of(step) / kTensors),
                   with_prefix("param.", parameters), "", false);
}

records::RunTables CheckpointFolder::rows(int64_t step) const {
  return records::read_run(path_of(step) / kRows);
}

}  // namespace varscale::checkpoint
