// Files as torch.save writes them, of tensors.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <vector>

#include "archives/pth_file.hpp"
#include "nn/tensor.hpp"

namespace varscale::test {

inline void write_pth(const std::filesystem::path& path, const nn::NamedTensors& tensors) {
  std::vector<archives::PthWriter::Tensor> heads;
  for (const nn::NamedTensor& each : tensors)
    heads.push_back({each.name, nn::to_dtype(each.tensor.scalar_type()), each.tensor.sizes().vec()});
  archives::PthWriter out(path, heads);
  for (const nn::NamedTensor& each : tensors) {
    const at::Tensor values = each.tensor.contiguous();
    out.write(values.const_data_ptr(), values.nbytes());
  }
  out.commit();
}

}  // namespace varscale::test
