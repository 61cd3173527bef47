#include "base/signals.hpp"

#include <array>
#include <atomic>
#include <csignal>

#include "base/error.hpp"

namespace varscale::base {
namespace {

constexpr std::array<int, 4> kSignals = {SIGUSR1, SIGUSR2, SIGTERM, SIGINT};

// A handler can reach nothing but statics: this is the one place that needs them.
std::atomic<int> first_signal{0};
std::atomic<bool> interrupted{false};
std::atomic<bool> installed{false};
std::array<struct sigaction, kSignals.size()> previous;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<bool>::is_always_lock_free);

void note_signal(int number) {
  int none = 0;
  first_signal.compare_exchange_strong(none, number);
  if (number == SIGINT && interrupted.exchange(true)) {
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);  // delivered when this handler returns
  }
}

}  // namespace

StopSignals::StopSignals() {
  VARSCALE_CHECK(!installed.exchange(true), "StopSignals is already watching in this process");
  first_signal = 0;
  interrupted = false;
  struct sigaction action = {};
  action.sa_handler = note_signal;
  action.sa_flags = SA_RESTART;  // reads and writes under way are not cut short
  sigemptyset(&action.sa_mask);
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &action, &previous[i]);
  receiver_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stop_; });
  });
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : kSignals) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, &mask_before_);
}

StopSignals::~StopSignals() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  receiver_.join();
  pthread_sigmask(SIG_SETMASK, &mask_before_, nullptr);
  for (size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &previous[i], nullptr);
  installed = false;
}

bool StopSignals::requested() const noexcept { return first_signal != 0; }
int StopSignals::signal_number() const noexcept { return first_signal; }

}  // namespace varscale::base
