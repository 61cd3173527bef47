// What a launch runs on: versions of MPI, PMIx, NCCL and CUDA, and which network it was told to use.
//
//   const Libraries found = probe_libraries();   // after open_world()
//   require_usable(found);                       // a driver that is too old: UserError
//   fmt::print(stderr, "{}\n", line(found));
//   // Open MPI v4.1.4; PMIx 4.2.2; CUDA 13.0, driver 13.0; NCCL 2.28.9; network: NCCL_SOCKET_IFNAME=ib0
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace varscale::comm {

// As CUDA and NCCL number themselves: 13000 is CUDA 13.0, 22809 is NCCL 2.28.9.
struct CudaVersions {
  int runtime = 0;
  int driver = 0;  // the newest CUDA that the driver can run; 0: there is no driver
  int nccl = 0;
};

struct Libraries {
  std::string mpi;   // empty: not launched by MPI
  std::string pmix;  // empty: not known
  std::optional<CudaVersions> cuda;  // of a build with the GPU parts
  std::vector<std::pair<std::string, std::string>> network;  // variables that choose it, and their values
};

Libraries probe_libraries();
std::string line(const Libraries& libraries);
// UserError where a driver is there that cannot run the CUDA this program was built with. A machine without a
// driver is left to those who ask for a device.
void require_usable(const Libraries& libraries);

// Of this build; nothing without the GPU parts.
std::optional<CudaVersions> cuda_versions();

}  // namespace varscale::comm
