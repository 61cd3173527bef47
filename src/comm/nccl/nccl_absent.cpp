// The Nccl kind in a build without the GPU parts.
#include "comm/communicator.hpp"

namespace varscale::comm {

std::unique_ptr<Communicator> open_nccl(Communicator&) {
  throw base::UserError(
      "train.device is cuda, but this program was built without the GPU parts; use the cuda "
      "preset");
}

}  // namespace varscale::comm
