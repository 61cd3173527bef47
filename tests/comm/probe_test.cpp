#include "comm/probe.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "tests/comm/world.hpp"

namespace varscale::comm {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

Libraries with_driver(int driver) {
  return {.mpi = "Open MPI v4.1.4",
          .pmix = "4.2.2",
          .cuda = CudaVersions{.runtime = 13000, .driver = driver, .nccl = 22809},
          .network = {{"NCCL_SOCKET_IFNAME", "ib0"}, {"OMPI_MCA_btl", "self,tcp"}}};
}

TEST(Probe, NamesEachLibraryOnce) {
  EXPECT_EQ(line(with_driver(13010)),
            "Open MPI v4.1.4; PMIx 4.2.2; CUDA 13.0, driver 13.1; NCCL 2.28.9; network: NCCL_SOCKET_IFNAME=ib0 "
            "OMPI_MCA_btl=self,tcp");
  EXPECT_THAT(line(with_driver(0)), HasSubstr("CUDA 13.0, no driver; NCCL"));
}

TEST(Probe, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(line({.mpi = "Open MPI v4.1.4", .pmix = "", .cuda = {}, .network = {}}), "Open MPI v4.1.4");
  EXPECT_EQ(line({}), "no MPI");
}

TEST(Probe, RefusesADriverOfAnEarlierMajorVersion) {
  for (const int driver : {12080, 12090, 11000}) {
    try {
      require_usable(with_driver(driver));
      FAIL() << driver;
    } catch (const base::UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr("CUDA 13.0; expected a driver for CUDA 13.0 (580 or newer)"));
    }
  }
}

TEST(Probe, TakesNewerDriversNoDriverAndBuildsWithoutCuda) {
  for (const int driver : {13000, 13010, 14000, 0}) require_usable(with_driver(driver));
  require_usable({});
}

TEST(Probe, FindsTheMpiOfThisLaunch) {
  const Libraries found = probe_libraries();
  if (shared_world()->size() > 1) {
    EXPECT_THAT(found.mpi, StartsWith("Open MPI v"));
  }
  EXPECT_EQ(found.mpi.find(','), std::string::npos);
}

}  // namespace
}  // namespace varscale::comm
