#include "base/signals.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <thread>

#include "base/error.hpp"

namespace varscale::base {
namespace {

// As from outside: any thread of the process may get it.
void send(int number) { kill(getpid(), number); }

// Waits for it: false after 10 s.
bool comes(const StopSignals& stop) {
  for (int i = 0; i < 10000 && !stop.requested(); ++i) usleep(1000);
  return stop.requested();
}

TEST(StopSignals, NotesEachOfItsFourSignals) {
  for (const int number : {SIGUSR1, SIGUSR2, SIGTERM, SIGINT}) {
    const StopSignals stop;
    EXPECT_FALSE(stop.requested());
    EXPECT_EQ(stop.signal_number(), 0);
    send(number);
    EXPECT_TRUE(comes(stop));
    EXPECT_EQ(stop.signal_number(), number);
  }
}

TEST(StopSignals, KeepsTheFirstSignal) {
  const StopSignals stop;
  send(SIGUSR1);
  ASSERT_TRUE(comes(stop));
  send(SIGTERM);
  usleep(20000);
  EXPECT_EQ(stop.signal_number(), SIGUSR1);
}

int handled_by_previous = 0;

TEST(StopSignals, RestoresThePreviousHandlers) {
  auto* before = std::signal(SIGUSR1, [](int) { ++handled_by_previous; });
  {
    const StopSignals stop;
    send(SIGUSR1);
    EXPECT_TRUE(comes(stop));
    EXPECT_EQ(handled_by_previous, 0);
  }
  std::raise(SIGUSR1);
  EXPECT_EQ(handled_by_previous, 1);
  std::signal(SIGUSR1, before);
}

TEST(StopSignals, MayWatchOnlyOnceAtATime) {
  const StopSignals stop;
  EXPECT_THROW(StopSignals second, InvariantError);
  send(SIGUSR2);  // the first still watches
  EXPECT_TRUE(comes(stop));
}

// No handler's frame on the stacks of this thread and of those that it starts (see signals.hpp).
TEST(StopSignals, NeverInterruptsThreadsThatCompute) {
  const auto all_blocked = [] {
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    return std::ranges::all_of(std::array{SIGUSR1, SIGUSR2, SIGTERM, SIGINT},
                               [&](int number) { return sigismember(&blocked, number) == 1; });
  };
  EXPECT_FALSE(all_blocked());
  {
    const StopSignals stop;
    EXPECT_TRUE(all_blocked());
    bool in_thread = false;
    std::thread([&] { in_thread = all_blocked(); }).join();
    EXPECT_TRUE(in_thread);
  }
  EXPECT_FALSE(all_blocked());
}

TEST(StopSignals, ASecondInterruptEndsTheProgram) {
  EXPECT_EXIT(
      {
        const StopSignals stop;
        send(SIGINT);
        comes(stop);
        send(SIGINT);
        sleep(10);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace varscale::base
