// The time of day, for records that say when they were written, and the time since an instant.
#pragma once

#include <chrono>
#include <string>

namespace varscale::base {

std::string utc_now();  // "2026-11-24T05:40:00Z"

inline double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace varscale::base
