// Initial values of trained parameters: functions of (seed, name, index).
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "base/random.hpp"

namespace varscale::losses {

inline void fill_normal(const Tensor& tensor, uint64_t seed, const std::string& name, double deviation) {
  Tensor values = at::empty(tensor.sizes(), at::kFloat);
  base::RandomStream(seed, "discriminator.init", name)
      .fill_normal(values.mutable_data_ptr<float>(), 0, values.numel(), static_cast<float>(deviation));
  tensor.copy_(values);
}

}  // namespace varscale::losses
