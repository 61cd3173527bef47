// The table in a build without the GPU parts.
#include "comm/nccl/api.hpp"

namespace varscale::comm {

namespace {
constexpr const char* kAbsent =
    "the device asked for is cuda, but this program was built without the GPU parts; use the cuda "
    "preset";
}

std::shared_ptr<nccl::Api> nccl::cuda_api() { throw base::UserError(kAbsent); }

at::Device cuda_device() { throw base::UserError(kAbsent); }

}  // namespace varscale::comm
