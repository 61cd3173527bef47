#include "checkpoint/checkpoint.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/checkpoint_manifest.hpp"

namespace varscale::checkpoint {

std::string rank_file(int rank) { return fmt::format("rank-{:05}.safetensors", rank); }

nlohmann::json file_facts(const std::filesystem::path& file) {
  return {{"bytes", std::filesystem::file_size(file)}, {"sha256", base::sha256_of_file(file)}};
}

std::vector<Piece> whole_pieces(const std::string& prefix, const nn::NamedTensors& tensors) {
  std::vector<Piece> pieces;
  for (const nn::NamedTensor& named : tensors) {
    const std::vector<int64_t> shape = named.tensor.sizes().vec();
    const auto longer = std::ranges::find_if(shape, [](int64_t size) { return size > 1; });
    const int64_t axis = longer == shape.end() ? 0 : longer - shape.begin();
    pieces.push_back(
        {prefix + named.name, shape, axis, 0, shape.empty() ? 1 : shape[axis], named.tensor});
  }
  return pieces;
}

std::filesystem::path CheckpointFolder::path_of(int64_t step) const {
  return records::checkpoint_place(folder_, step);
}

std::vector<int64_t> CheckpointFolder::steps() const { return records::checkpoint_steps(folder_); }

std::optional<int64_t> CheckpointFolder::latest() const {
  const std::vector<int64_t> all = steps();
  if (all.empty()) return std::nullopt;
  return all.back();
}

void CheckpointFolder::prune() const {
  const std::vector<int64_t> all = steps();
  for (size_t i = 0; i + static_cast<size_t>(keep_.newest) < all.size(); ++i) {
    if (keep_.steps.contains(all[i])) continue;
    // The manifest goes first: a kill in between leaves an unfinished folder, not a damaged
    // checkpoint.
    std::filesystem::remove(path_of(all[i]) / kManifest);
    std::filesystem::remove_all(path_of(all[i]));
  }
  // What a kill has left: unfinished folders, and temporary ones, which may be whole but for their
  // name.
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    if (entry.is_directory() && !records::is_checkpoint(entry.path())) {
      std::filesystem::remove_all(entry.path());
    }
  }
}

nlohmann::json CheckpointFolder::manifest(int64_t step) const {
  const std::filesystem::path path = path_of(step) / kManifest;
  return records::parse_checkpoint_manifest(base::read_file(path), path);
}

namespace {

void check_file(const std::filesystem::path& file, const nlohmann::json& facts) {
  if (!std::filesystem::exists(file))
    throw base::UserError("{}: the manifest names it, but it is missing", file.string());
  if (!std::filesystem::is_regular_file(file)) throw base::UserError("{}: is not a file", file.string());
  const auto bytes = std::filesystem::file_size(file), wanted = facts["bytes"].get<uintmax_t>();
  if (bytes != wanted)
    throw base::UserError("{}: has {} bytes, its manifest says {}", file.string(), bytes, wanted);
  if (base::sha256_of_file(file) != facts["sha256"].get<std::string>())
    throw base::UserError("{}: its contents do not have the checksum of its manifest",
                          file.string());
}

}  // namespace

void CheckpointFolder::fill(int64_t step, const nlohmann::json& manifest,
                            const std::vector<Piece>& pieces) const {
  at::NoGradGuard no_grad;
  std::map<std::string, std::vector<const nlohmann::json*>> entries;
  for (const nlohmann::json& entry : manifest["tensors"])
    entries[entry["name"].get<std::string>()].push_back(&entry);
  std::map<std::string, base::SafetensorsFile> files;
  auto file_of = [&](const std::string& name) -> const base::SafetensorsFile& {
    auto found = files.find(name);
    if (found == files.end()) {
      const std::filesystem::path path = path_of(step) / name;
      check_file(path, manifest["files"][name]);
      found = files.try_emplace(name, path).first;
    }
    return found->second;
  };
  for (const Piece& piece : pieces) {
    int64_t missing = piece.end - piece.begin;
    for (const nlohmann::json* entry : entries[piece.name]) {
      const auto shape = (*entry)["shape"].get<std::vector<int64_t>>();
      if (shape != piece.shape || (*entry)["axis"].get<int64_t>() != piece.axis) {
        throw base::UserError("{}: {} has shape [{}], expected [{}]", path_of(step).string(),
                              piece.name, fmt::join(shape, ", "), fmt::join(piece.shape, ", "));
      }
      const int64_t first = (*entry)["rows"][0], last = (*entry)["rows"][1];
      const int64_t begin = std::max(first, piece.begin), end = std::min(last, piece.end);
      if (begin >= end) continue;
      const std::string name = (*entry)["file"];
      const Tensor stored = nn::load_tensor(file_of(name), piece.name);
      std::vector<int64_t> cut = shape;
      if (!cut.empty()) cut[piece.axis] = last - first;
      if (stored.sizes() != cut)
        throw base::UserError("{}: {} has shape [{}], its manifest says [{}]", (path_of(step) / name).string(),
                              piece.name, fmt::join(stored.sizes(), ", "), fmt::join(cut, ", "));
      if (shape.empty()) {
        piece.tensor.detach().copy_(stored);
      } else {
        piece.tensor.detach()
            .slice(piece.axis, begin - piece.begin, end - piece.begin)
            .copy_(stored.slice(piece.axis, begin - first, end - first));
      }
      missing -= end - begin;
    }
    if (missing != 0) {
      throw base::UserError("{}: {} rows of {} are missing", path_of(step).string(), missing,
                            piece.name);
    }
  }
}

Position CheckpointFolder::load(int64_t step, const Identity& expected,
                                const std::vector<Piece>& pieces) const {
  const nlohmann::json facts = manifest(step);
  if (facts["config_hash"].get<std::string>() != expected.config_hash) {
    throw base::UserError(
        "{}: is a checkpoint of another configuration (run {}), expected one of run {}",
        path_of(step).string(), facts["run_id"].get<std::string>(), expected.run_id);
  }
  check_file(path_of(step) / kRows, facts["files"][kRows]);
  fill(step, facts, pieces);
  return {facts["step"].get<int64_t>(), facts["segment"].get<int64_t>()};
}

void CheckpointFolder::load_weights(int64_t step, const nn::NamedTensors& parameters) const {
  fill(step, manifest(step), whole_pieces("param.", parameters));
}

nn::NamedTensors CheckpointFolder::tensors(int64_t step) const {
  const nlohmann::json facts = manifest(step);
  nn::NamedTensors whole;
  std::set<std::string> seen;
  for (const nlohmann::json& entry : facts["tensors"]) {
    const std::string name = entry["name"];
    if (seen.insert(name).second)
      whole.push_back({name, at::empty(entry["shape"].get<std::vector<int64_t>>(), at::kFloat)});
  }
  fill(step, facts, whole_pieces("", whole));
  return whole;
}

}  // namespace varscale::checkpoint
