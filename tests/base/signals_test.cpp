#include "base/signals.hpp"

#include <gtest/gtest.h>

#include <csignal>

#include "base/error.hpp"

namespace varscale::base {
namespace {

TEST(StopSignals, NotesEachOfItsFourSignals) {
  for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}) {
    const StopSignals stop;
    EXPECT_FALSE(stop.requested());
    EXPECT_EQ(stop.signal_number(), 0);
    std::raise(number);
    EXPECT_TRUE(stop.requested());
    EXPECT_EQ(stop.signal_number(), number);
  }
}

TEST(StopSignals, KeepsTheFirstSignal) {
  const StopSignals stop;
  std::raise(SIGUSR1);
  std::raise(SIGTERM);
  EXPECT_EQ(stop.signal_number(), SIGUSR1);
}

int handled_by_previous = 0;

TEST(StopSignals, RestoresThePreviousHandlers) {
  auto* before = std::signal(SIGUSR1, [](int) { ++handled_by_previous; });
  {
    const StopSignals stop;
    std::raise(SIGUSR1);
    EXPECT_EQ(handled_by_previous, 0);
  }
  std::raise(SIGUSR1);
  EXPECT_EQ(handled_by_previous, 1);
  std::signal(SIGUSR1, before);
}

TEST(StopSignals, MayWatchOnlyOnceAtATime) {
  const StopSignals stop;
  EXPECT_THROW(StopSignals second, InvariantError);
  std::raise(SIGUSR2);  // the first still watches
  EXPECT_TRUE(stop.requested());
}

TEST(StopSignals, ASecondInterruptEndsTheProgram) {
  EXPECT_EXIT(
      {
        const StopSignals stop;
        std::raise(SIGINT);
        std::raise(SIGINT);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace varscale::base
