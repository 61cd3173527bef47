// Numbers as the JSON files of a fit have them: six significant digits, null where there is no number.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>

#include "fit/bootstrap.hpp"

namespace varscale::analysis {

inline nlohmann::ordered_json six(double value) {
  if (!std::isfinite(value)) return nullptr;
  return std::strtod(fmt::format("{:.6g}", value).c_str(), nullptr);
}

// [low, high]
inline nlohmann::ordered_json six(const fit::Interval& interval) {
  return nlohmann::ordered_json::array({six(interval.low), six(interval.high)});
}
inline nlohmann::ordered_json six(const std::optional<fit::Interval>& interval) {
  return interval ? six(*interval) : nlohmann::ordered_json();
}

}  // namespace varscale::analysis
