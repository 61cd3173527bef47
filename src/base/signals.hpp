// Signals as flags: a handler only notes that the program should stop; the loop asks when it can.
//
//   StopSignals stop;                       // SIGUSR1, SIGUSR2, SIGTERM, SIGINT while it lives
//   while (...) { step(); if (stop.requested()) { save(); throw Stopped("..."); } }
//
// Threads  The handler runs on a thread of its own: the thread that makes this object, and those that it starts
//          while the object lives, have the four signals blocked. Make it before any thread that computes, and let
//          it die on the thread that made it. While oneDNN's AVX-512 sgemm runs, its thread's stack pointer lies in
//          a buffer of the heap; a handler's frame there would be written over what lies before the buffer.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <thread>

namespace varscale::base {

class StopSignals {
 public:
  StopSignals();   // installs the handlers; a second SIGINT ends the program at once
  ~StopSignals();  // restores what was there
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const noexcept;
  int signal_number() const noexcept;  // 0: none yet

 private:
  sigset_t mask_before_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stop_ = false;
  std::thread receiver_;
};

}  // namespace varscale::base
