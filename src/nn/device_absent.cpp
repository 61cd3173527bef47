// In a build without the GPU parts.
#include "base/error.hpp"
#include "nn/device.hpp"

namespace varscale::nn {

std::string gpu_name(c10::DeviceIndex) {
  throw base::UserError("this program was built without the GPU parts; use the cuda preset");
}

}  // namespace varscale::nn
