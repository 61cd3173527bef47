// What lies in the public code's state dict of a VAR: names, shapes and order, from the model's shape alone.
//
//   for (const StateEntry& entry : public_state(d16)) ...        // 220 entries, "pos_start" first
//
// Source   FoundationVision/VAR models/var.py and basic_var.py: names and order of a state dict.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "scaling/shape.hpp"

namespace varscale::scaling {

// Buffers are functions of the shape: kLevels int64, the number of each token's map; kMask float32, 0 where the row's
// map is not before the column's and minus infinity elsewhere; kZeroBias float32 zeros. Parameters are float32.
enum class StateKind { kParameter, kLevels, kMask, kZeroBias };

struct StateEntry {
  std::string name;
  std::vector<int64_t> shape;
  StateKind kind = StateKind::kParameter;
  int64_t numel() const noexcept {
    int64_t count = 1;
    for (const int64_t size : shape) count *= size;
    return count;
  }
};

std::vector<StateEntry> public_state(const VarShape& shape);
std::vector<StateEntry> parameters_of(const VarShape& shape);  // the same without the buffers

// The number of each token's map: [L].
std::vector<int64_t> token_levels(const ScaleList& scales);

}  // namespace varscale::scaling
