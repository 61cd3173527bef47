#include "scaling/step_time.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "scaling/count.hpp"

namespace varscale::scaling {

Network network_of(std::string_view device) {
  // Two ranks of the quickstart's models wait 11 to 16 % of a step for each other.
  if (device == "cpu")
    return {.node_ranks = 1 << 20, .inside_bytes_per_s = 2e9, .between_bytes_per_s = 2e9, .call_s = 50e-6, .hidden = 0.5, .skew = 0.12};
  // An all-reduce moves 2 (n - 1) / n of its bytes through each rank; 400 GB/s and 50 GB/s are what NVLink and a
  // 400 Gb/s port give at best, of which four fifths are taken.
  return {.node_ranks = 8,
          .inside_bytes_per_s = 0.8 * 400e9,
          .between_bytes_per_s = 0.8 * 8 * 50e9,
          .call_s = 20e-6,
          .launch_s = 400e-6,
          .hidden = 0.7,
          .skew = 0.01};
}

double step_seconds(const VarShape& shape, const StepOptions& options) {
  const Network& network = options.network;
  const int64_t share = (options.batch + options.ranks - 1) / options.ranks;
  const double compute =
      std::max(training_flops(shape, static_cast<double>(share)) / options.flops_per_s,
               network.launch_s * static_cast<double>(shape.depth));
  if (options.ranks == 1) return compute;
  const double bytes = 4.0 * static_cast<double>(count_parameters(shape).total());
  const auto n = static_cast<double>(options.ranks);
  const double rate =
      options.ranks <= network.node_ranks ? network.inside_bytes_per_s : network.between_bytes_per_s;
  const double sum = 2 * bytes * (n - 1) / n / rate +
                     network.call_s * std::log2(n) * static_cast<double>(shape.depth);
  const double backward = compute * 2 / 3;
  return compute * (1 + network.skew * std::log2(n)) + std::max(0.0, sum - network.hidden * backward);
}

std::vector<int64_t> useful_widths(int64_t batch, int64_t most, int64_t node_ranks) {
  std::set<int64_t> widths;
  for (int64_t share = 1; share <= batch; ++share) {
    int64_t ranks = (batch + share - 1) / share;
    if (ranks > node_ranks) ranks = (ranks + node_ranks - 1) / node_ranks * node_ranks;
    if (ranks <= std::min(batch, most)) widths.insert(ranks);
  }
  return {widths.begin(), widths.end()};
}

}  // namespace varscale::scaling
