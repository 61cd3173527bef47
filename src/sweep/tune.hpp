// Settings that a sweep tunes: each of its points is the best of a grid of values.
//
//   tune: [optimizer.lr]           # at the top of a sweep file
//   runs: [{model.depth: [6, 8], optimizer.lr: [1e-4, 2e-4, 4e-4]}]
//
// The runs keep role main; plan.json says `tune`, and var_fit takes for each depth and budget the vertex of a
// parabola of the loss in the log of the setting.
#pragma once

#include <string>
#include <vector>

#include "sweep/spec.hpp"

namespace varscale::sweep {

// What can be tuned.
inline constexpr const char* kTunable = "optimizer.lr";

struct TuneFault {
  std::string where, sentence;
};

// Of runs of role main: a depth and budget with fewer than three values, or whose runs differ in more than the
// tuned setting and seeds.
std::vector<TuneFault> tune_faults(const std::vector<SweepRun>& runs, const std::string& where_tune);

}  // namespace varscale::sweep
