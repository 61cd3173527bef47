// Every rank runs all tests in the same order; a failure on any rank fails all.
#include <gtest/gtest.h>

#include "tests/comm/world.hpp"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto world = varscale::comm::open_world();
  varscale::comm::shared_world() = world.get();
  if (world->rank() != 0) {  // one report is enough, failures are printed by every rank
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new varscale::comm::FailurePrinter(world->rank()));
  }
  at::Tensor failed = at::full({1}, int64_t{RUN_ALL_TESTS()}, at::kLong);
  world->all_reduce(failed, varscale::comm::Reduce::kMax, "verdict").wait();
  return static_cast<int>(failed.item<int64_t>());
}
