// Whether a run goes as it should: skipped updates, spikes of the loss, a rank that holds the others up.
//
//   const Health health = health_of(records::read_run(path));
//   fmt::print("{}\n", health.words());      // "good", or "2 skipped, 1 spike (step 812)"
//
// Spike       A training loss above the median of the 50 finite losses before it by more than 0.1 nat and by
//             more than 5 x 1.4826 times their median absolute deviation (5 standard deviations, were they
//             normal).
// Straggler   Of the newest 50 steps, the median of busy_max_s over busy_min_s: how much longer the slowest
//             rank works than the fastest. Named from 1.2 on, with the rank that was slowest most often.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "records/run_file.hpp"

namespace varscale::sweep {

inline constexpr int64_t kHealthWindow = 50;  // steps

struct Health {
  int64_t skipped = 0;                 // updates not taken: loss or gradient was not finite
  int64_t spikes = 0, last_spike = 0;  // how many; the step of the last, 0: none
  double imbalance = 1;                // busy_max_s / busy_min_s; 1 with one rank
  int64_t slowest_rank = 0;
  std::string slowest_host;

  bool straggles() const { return imbalance >= 1.2; }
  std::string words() const;
  nlohmann::ordered_json json() const;
};

Health health_of(const records::RunTables& tables);

}  // namespace varscale::sweep
