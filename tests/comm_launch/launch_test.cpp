// What open_world() makes of its launcher. Each case is a process of its own: MPI starts once.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "base/error.hpp"
#include "comm/communicator.hpp"

namespace varscale::comm {
namespace {

void forget_launchers() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_ID",
                           "SLURM_STEP_NUM_TASKS"})
    unsetenv(name);
}

// Runs in the child of a death test: opens the world and leaves with a program's exit code.
[[noreturn]] void open_and_exit() {
  std::exit(base::run_main("program", [] {
    const auto world = open_world();
    Tensor one = at::ones({1});
    world->all_reduce(one, Reduce::kSum, "count").wait();
    std::fprintf(stderr, "rank %d of %d, sum %g\n", world->rank(), world->size(),
                 one.item<double>());
    return base::ExitCode::kDone;
  }));
}

class OpenWorld : public testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    forget_launchers();
  }
};

TEST_F(OpenWorld, WithoutALauncherIsAGroupOfOne) {
  EXPECT_EXIT(open_and_exit(), testing::ExitedWithCode(0), "rank 0 of 1, sum 1");
}

TEST_F(OpenWorld, RefusesALaunchOfThreeRanksInWhichMpiReportsOne) {
  setenv("OMPI_COMM_WORLD_SIZE", "3", 1);
  EXPECT_EXIT(open_and_exit(), testing::ExitedWithCode(2), "started 3 ranks but MPI reports 1");
}

TEST_F(OpenWorld, ReadsTheRankCountOfOtherLaunchers) {
  setenv("PMI_SIZE", "2", 1);
  EXPECT_EXIT(open_and_exit(), testing::ExitedWithCode(2), "started 2 ranks but MPI reports 1");
  unsetenv("PMI_SIZE");
  setenv("SLURM_STEP_ID", "0", 1);
  setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  EXPECT_EXIT(open_and_exit(), testing::ExitedWithCode(2), "started 4 ranks but MPI reports 1");
}

}  // namespace
}  // namespace varscale::comm
