// The table in a build without the GPU parts.
#include "comm/nccl/api.hpp"

namespace varscale::comm::nccl {

std::shared_ptr<Api> cuda_api() {
  throw base::UserError(
      "train.device is cuda, but this program was built without the GPU parts; use the cuda "
      "preset");
}

}  // namespace varscale::comm::nccl
