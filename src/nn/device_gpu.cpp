#include <ATen/cuda/CUDAContext.h>

#include "nn/device.hpp"

namespace varscale::nn {

std::string gpu_name(c10::DeviceIndex index) { return at::cuda::getDeviceProperties(index)->name; }

}  // namespace varscale::nn
