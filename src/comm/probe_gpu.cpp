#include <cuda_runtime_api.h>
#include <nccl.h>

#include "comm/probe.hpp"

namespace varscale::comm {

// What cannot be asked stays 0.
std::optional<CudaVersions> cuda_versions() {
  CudaVersions versions;
  cudaRuntimeGetVersion(&versions.runtime);
  cudaDriverGetVersion(&versions.driver);
  ncclGetVersion(&versions.nccl);
  return versions;
}

}  // namespace varscale::comm
