// How long repeats of one piece of work took.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace varscale::bench {

struct Times {
  std::vector<double> seconds;
  double median() const { return at_share(0.5); }
  double at_share(double share) const {
    std::vector<double> sorted = seconds;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
  }
  nlohmann::ordered_json json() const {
    return {{"median_ms", 1e3 * median()},
            {"min_ms", 1e3 * at_share(0)},
            {"max_ms", 1e3 * at_share(1)},
            {"repeats", seconds.size()}};
  }
};

}  // namespace varscale::bench
