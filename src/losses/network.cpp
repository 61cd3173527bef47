#include "losses/network.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "archives/state_file.hpp"
#include "base/error.hpp"
#include "losses/parts/weight_reader.hpp"

namespace varscale::losses {

using base::UserError;

WeightMap read_weights(const std::vector<std::filesystem::path>& files) {
  WeightMap map;
  std::map<std::string, std::string, std::less<>> file_of;
  for (const std::filesystem::path& path : files) {
    const auto file = std::make_shared<const archives::StateFile>(archives::StateFile::open(path));
    map.from += (map.from.empty() ? "" : ", ") + file->where();
    for (const auto& [name, tensor] : file->tensors()) {
      const auto [entry, is_new] = file_of.emplace(name, path.string());
      if (!is_new) throw UserError("{}: tensor '{}' is in {} too", path.string(), name, entry->second);
      map.stored.emplace(name, file);
    }
  }
  return map;
}

bool WeightReader::has(const std::string& name) const {
  return map_->tensors.contains(name) || map_->stored.contains(name);
}

Tensor WeightReader::take(const std::string& name, const std::vector<int64_t>& shape) {
  if (!has(name)) throw UserError("{}: no tensor '{}', which {} has", map_->from, name, network_);
  const auto in_file = map_->stored.find(name);
  const bool is_stored = in_file != map_->stored.end();
  const std::vector<int64_t> found =
      is_stored ? in_file->second->at(name).shape : map_->tensors.find(name)->second.sizes().vec();
  if (found != shape)
    throw UserError("{}: {} has shape [{}], expected [{}] for {}", map_->from, name, fmt::join(found, ", "),
                    fmt::join(shape, ", "), network_);
  const Tensor tensor = is_stored ? nn::load_tensor(*in_file->second, name) : map_->tensors.find(name)->second;
  if (!tensor.is_floating_point())
    throw UserError("{}: {} has dtype {}, expected floating point", map_->from, name,
                    at::toString(tensor.scalar_type()));
  taken_.push_back({name, tensor.detach().to(at::kCPU, at::kFloat, false, /*copy=*/!is_stored).contiguous()});
  return taken_.back().tensor;
}

Tensor WeightReader::take_either(const std::string& name, const std::vector<int64_t>& shape,
                                 const std::string& other, const std::vector<int64_t>& other_shape) {
  if (!has(name) && !has(other)) {
    throw UserError("{}: no tensor '{}' or '{}'; {} has one of them", map_->from, other, name, network_);
  }
  if (has(name)) return take(name, shape);
  const Tensor reshaped = take(other, other_shape).view(shape);
  taken_.back() = {name, reshaped};  // both forms of the same values have one fingerprint
  return reshaped;
}

void WeightReader::refuse_others(const std::string& prefix) const {
  const auto refuse = [&](const std::string& name) {
    const bool taken = std::ranges::any_of(taken_, [&](const auto& t) { return t.name == name; });
    if (name.starts_with(prefix) && !taken)
      throw UserError("{}: unexpected tensor '{}'; {} has none of that name", map_->from, name, network_);
  };
  for (const auto& [name, tensor] : map_->tensors) refuse(name);
  for (const auto& [name, file] : map_->stored) refuse(name);
}

}  // namespace varscale::losses
