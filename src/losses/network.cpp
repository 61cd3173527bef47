#include "losses/network.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>

#include "base/error.hpp"
#include "losses/parts/weight_reader.hpp"

namespace varscale::losses {

using base::UserError;

WeightMap read_weights(const std::vector<std::filesystem::path>& files) {
  WeightMap map;
  std::map<std::string, std::string, std::less<>> file_of;
  for (const std::filesystem::path& path : files) {
    map.from += (map.from.empty() ? "" : ", ") + path.string();
    const auto file = std::make_shared<const base::SafetensorsFile>(path);
    for (const auto& [name, view] : file->tensors()) {
      const auto [entry, is_new] = file_of.emplace(name, path.string());
      if (!is_new) throw UserError("{}: tensor '{}' is in {} too", path.string(), name, entry->second);
      const auto options = at::TensorOptions(nn::to_scalar_type(view.dtype));
      // A file may hold much that nobody takes, a classifier of 500 MB for example: no copies here.
      const bool aligned = reinterpret_cast<uintptr_t>(view.data) % base::dtype_size(view.dtype) == 0;
      map.tensors.emplace(name, aligned && view.bytes > 0
                                    ? at::from_blob(const_cast<std::byte*>(view.data), view.shape,
                                                    [file](void*) {}, options)
                                    : nn::load_tensor(*file, name));
    }
  }
  return map;
}

Tensor WeightReader::take(const std::string& name, const std::vector<int64_t>& shape) {
  const auto found = map_->tensors.find(name);
  if (found == map_->tensors.end()) {
    throw UserError("{}: no tensor '{}', which {} has", map_->from, name, network_);
  }
  const Tensor& stored = found->second;
  if (stored.sizes() != at::IntArrayRef(shape)) {
    throw UserError("{}: {} has shape [{}], expected [{}] for {}", map_->from, name,
                    fmt::join(stored.sizes(), ", "), fmt::join(shape, ", "), network_);
  }
  if (!stored.is_floating_point()) {
    throw UserError("{}: {} has dtype {}, expected floating point", map_->from, name,
                    at::toString(stored.scalar_type()));
  }
  taken_.push_back({name, stored.detach().to(at::kCPU, at::kFloat, false, /*copy=*/true).contiguous()});
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
  for (const auto& [name, tensor] : map_->tensors) {
    const bool taken = std::ranges::any_of(taken_, [&](const auto& t) { return t.name == name; });
    if (name.starts_with(prefix) && !taken)
      throw UserError("{}: unexpected tensor '{}'; {} has none of that name", map_->from, name, network_);
  }
}

}  // namespace varscale::losses
