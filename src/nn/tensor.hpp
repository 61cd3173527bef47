// Named parameters, and tensors to and from safetensors files.
//
// Legend   A parameter's name is its key in the public code's state dict.
// Errors   UserError names the file and the key: missing, extra, or of another shape or dtype.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "archives/state_file.hpp"
#include "base/safetensors.hpp"

namespace varscale::nn {

using at::Tensor;

// A leaf of a model, or one of its buffers. Tensors are handles: copies share storage.
struct NamedTensor {
  std::string name;
  Tensor tensor;
};
using NamedTensors = std::vector<NamedTensor>;

base::DType to_dtype(at::ScalarType type);
at::ScalarType to_scalar_type(base::DType dtype);  // F32 -> kFloat, ...; U16 -> kUInt16

// A copy on the CPU of one stored tensor.
Tensor load_tensor(const base::SafetensorsFile& file, std::string_view name);
Tensor load_tensor(const archives::StateFile& file, std::string_view name);

// Fills `targets` from the file, each by its name with `prefix` in front. Shapes must agree; dtypes
// are converted, whole numbers to floating point excepted. With `strict`, a key below the prefix that no target takes is an error.
void load_tensors(const base::SafetensorsFile& file, const NamedTensors& targets,
                  const std::string& prefix = "", bool strict = true);

// Writes the tensors (moved to the CPU) with metadata; aside, fsync, rename.
void save_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                  const std::vector<std::pair<std::string, std::string>>& metadata = {});

// SHA-256 over names, shapes and bytes, in order: a model's fingerprint.
std::string fingerprint(const NamedTensors& tensors);

int64_t count_elements(const NamedTensors& tensors);

}  // namespace varscale::nn
