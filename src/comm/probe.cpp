#define OMPI_SKIP_MPICXX 1  // the C interface alone, of Open MPI and of MPICH
#define MPICH_SKIP_MPICXX 1

#include "comm/probe.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <mpi.h>

#include <array>
#include <cstdlib>

#include "base/error.hpp"

namespace varscale::comm {

namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string mpi_version() {
  int initialized = 0;
  MPI_Initialized(&initialized);
  if (initialized == 0) return "";
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  const std::string whole(text.data(), static_cast<size_t>(length));
  // "Open MPI v4.1.4, package: Debian OpenMPI, ident: ..."
  return whole.substr(0, whole.find_first_of(",\n"));
}

std::string cuda_words(int version) { return fmt::format("{}.{}", version / 1000, version % 1000 / 10); }

}  // namespace

Libraries probe_libraries() {
  Libraries libraries{.mpi = mpi_version(), .pmix = environment("PMIX_VERSION"), .cuda = cuda_versions(), .network = {}};
  for (const char* name : {"UCX_NET_DEVICES", "UCX_TLS", "OMPI_MCA_pml", "OMPI_MCA_btl", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA"})
    if (const std::string value = environment(name); !value.empty()) libraries.network.emplace_back(name, value);
  return libraries;
}

std::string line(const Libraries& libraries) {
  std::vector<std::string> parts = {libraries.mpi.empty() ? "no MPI" : libraries.mpi};
  if (!libraries.pmix.empty()) parts.push_back("PMIx " + libraries.pmix);
  if (const auto& cuda = libraries.cuda) {
    parts.push_back(fmt::format("CUDA {}, {}", cuda_words(cuda->runtime),
                                cuda->driver == 0 ? "no driver" : "driver " + cuda_words(cuda->driver)));
    parts.push_back(fmt::format("NCCL {}.{}.{}", cuda->nccl / 10000, cuda->nccl / 100 % 100, cuda->nccl % 100));
  }
  std::string network;
  for (const auto& [name, value] : libraries.network) network += fmt::format(" {}={}", name, value);
  if (!network.empty()) parts.push_back("network:" + network);
  return fmt::format("{}", fmt::join(parts, "; "));
}

void require_usable(const Libraries& libraries) {
  const auto& cuda = libraries.cuda;
  // Drivers run every minor version of their own major one, and all before it.
  if (!cuda || cuda->driver == 0 || cuda->driver / 1000 >= cuda->runtime / 1000) return;
  throw base::UserError(
      "the NVIDIA driver of this machine runs CUDA {} at most, and this program was built with CUDA {}; expected a driver "
      "for CUDA {}.0{}",
      cuda_words(cuda->driver), cuda_words(cuda->runtime), cuda->runtime / 1000,
      cuda->runtime / 1000 == 13 ? " (580 or newer)" : "");
}

}  // namespace varscale::comm
