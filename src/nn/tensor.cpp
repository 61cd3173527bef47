#include "nn/tensor.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <cstring>
#include <set>

#include "base/error.hpp"

namespace varscale::nn {

using base::DType;
using base::UserError;

base::DType to_dtype(at::ScalarType type) {
  switch (type) {
    case at::kDouble:
      return DType::kF64;
    case at::kFloat:
      return DType::kF32;
    case at::kHalf:
      return DType::kF16;
    case at::kBFloat16:
      return DType::kBF16;
    case at::kLong:
      return DType::kI64;
    case at::kInt:
      return DType::kI32;
    case at::kShort:
      return DType::kI16;
    case at::kChar:
      return DType::kI8;
    case at::kByte:
      return DType::kU8;
    case at::kUInt16:
      return DType::kU16;
    case at::kBool:
      return DType::kBool;
    default:
      VARSCALE_CHECK(false, "dtype {} has no place in a safetensors file", at::toString(type));
  }
  return DType::kF32;
}

at::ScalarType to_scalar_type(base::DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return at::kDouble;
    case DType::kF32:
      return at::kFloat;
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    case DType::kI64:
      return at::kLong;
    case DType::kI32:
      return at::kInt;
    case DType::kI16:
      return at::kShort;
    case DType::kI8:
      return at::kChar;
    case DType::kU8:
      return at::kByte;
    case DType::kU16:
      return at::kUInt16;
    case DType::kBool:
      return at::kBool;
  }
  VARSCALE_CHECK(false, "unknown dtype");
  return at::kFloat;
}

Tensor load_tensor(const base::SafetensorsFile& file, std::string_view name) {
  const base::TensorView& view = file.at(name);
  Tensor tensor = at::empty(view.shape, at::TensorOptions(to_scalar_type(view.dtype)));
  std::memcpy(tensor.data_ptr(), view.data, view.bytes);
  return tensor;
}

Tensor load_tensor(const archives::StateFile& file, std::string_view name) {
  const archives::StateFile::Tensor& stored = file.at(name);
  Tensor tensor = at::empty(stored.shape, at::TensorOptions(to_scalar_type(stored.dtype)));
  file.read(name, tensor.data_ptr());
  return tensor;
}

void load_tensors(const base::SafetensorsFile& file, const NamedTensors& targets,
                  const std::string& prefix, bool strict) {
  at::NoGradGuard no_grad;
  std::set<std::string> taken;
  for (const NamedTensor& target : targets) {
    const std::string key = prefix + target.name;
    const Tensor stored = load_tensor(file, key);
    if (stored.sizes() != target.tensor.sizes()) {
      throw UserError("{}: {} has shape [{}], expected [{}]", file.path().string(), key,
                      fmt::join(stored.sizes(), ", "), fmt::join(target.tensor.sizes(), ", "));
    }
    if (target.tensor.is_floating_point() && !stored.is_floating_point())  // quantised: other numbers than the model's
      throw UserError("{}: {} has dtype {}, expected floating point", file.path().string(), key,
                      at::toString(stored.scalar_type()));
    target.tensor.copy_(stored);
    taken.insert(key);
  }
  if (!strict) return;
  for (const auto& [key, view] : file.tensors()) {
    if (key.starts_with(prefix) && !taken.contains(key)) {
      throw UserError(
          "{}: unexpected tensor {}; the model of this configuration has none of that name",
          file.path().string(), key);
    }
  }
}

void save_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                  const std::vector<std::pair<std::string, std::string>>& metadata) {
  base::SafetensorsWriter writer;
  std::vector<Tensor> kept;  // contiguous CPU copies, alive until save() returns
  kept.reserve(tensors.size());
  for (const NamedTensor& named : tensors) {
    kept.push_back(named.tensor.detach().to(at::kCPU).contiguous());
    writer.add(named.name, to_dtype(kept.back().scalar_type()), named.tensor.sizes().vec(),
               kept.back().data_ptr());
  }
  for (const auto& [key, value] : metadata) writer.set_metadata(key, value);
  writer.save(path);
}

std::string fingerprint(const NamedTensors& tensors) {
  base::Sha256 hash;
  for (const NamedTensor& named : tensors) {
    const Tensor bytes = named.tensor.detach().to(at::kCPU).contiguous();
    const std::string head = fmt::format("{}[{}]{}", named.name, fmt::join(bytes.sizes(), ","),
                                         at::toString(bytes.scalar_type()));
    hash.update(head.data(), head.size());
    hash.update(bytes.data_ptr(), bytes.nbytes());
  }
  return hash.hex();
}

int64_t count_elements(const NamedTensors& tensors) {
  int64_t count = 0;
  for (const NamedTensor& named : tensors) count += named.tensor.numel();
  return count;
}

}  // namespace varscale::nn
