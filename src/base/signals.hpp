// Signals as flags: a handler only notes that the program should stop; the loop asks when it can.
//
//   StopSignals stop;                       // SIGUSR1, SIGUSR2, SIGTERM, SIGINT while it lives
//   while (...) { step(); if (stop.requested()) { save(); throw Stopped("..."); } }
#pragma once

namespace varscale::base {

class StopSignals {
 public:
  StopSignals();   // installs the handlers; a second SIGINT ends the program at once
  ~StopSignals();  // restores what was there
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  bool requested() const noexcept;
  int signal_number() const noexcept;  // 0: none yet
};

}  // namespace varscale::base
