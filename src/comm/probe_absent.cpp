#include "comm/probe.hpp"

namespace varscale::comm {

std::optional<CudaVersions> cuda_versions() { return std::nullopt; }

}  // namespace varscale::comm
