#include "train/step_report.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/machine.hpp"
#include "base/progress.hpp"
#include "nn/device.hpp"
#include "scaling/device.hpp"

namespace varscale::train {

GroupStep exchange(comm::Communicator& world, const RankStep& mine) {
  const std::vector<double> numbers{static_cast<double>(mine.stop),
                                    static_cast<double>(mine.save_due && world.rank() == 0),
                                    static_cast<double>(mine.writing),
                                    mine.step_s,
                                    mine.data_wait_s,
                                    mine.comm_wait_s,
                                    static_cast<double>(mine.memory_bytes)};
  const auto count = static_cast<int64_t>(numbers.size());
  at::Tensor all_RN = at::empty({world.size(), count}, at::kDouble);
  world.all_gather(all_RN.view({-1}), at::tensor(numbers, at::kDouble), "step").wait();
  const auto all = all_RN.accessor<double, 2>();
  GroupStep group;
  for (int r = 0; r < world.size(); ++r) {
    group.stop |= all[r][0] != 0;
    group.save |= all[r][1] != 0;
    group.writing |= all[r][2] != 0;
    group.step_s = std::max(group.step_s, all[r][3]);
    group.data_wait_s = std::max(group.data_wait_s, all[r][4]);
    group.comm_wait_s = std::max(group.comm_wait_s, all[r][5]);
    group.memory_bytes = std::max(group.memory_bytes, static_cast<int64_t>(all[r][6]));
    const double busy_s = std::max(0.0, all[r][3] - all[r][5]);
    if (r == 0 || busy_s < group.busy_min_s) group.busy_min_s = busy_s;
    if (r == 0 || busy_s > group.busy_max_s) {
      group.busy_max_s = busy_s;
      group.slowest_rank = r;
    }
  }
  return group;
}

Hardware hardware_of(comm::Communicator& world, at::Device device, const std::string& precision) {
  Hardware hardware;
  const std::string mine = nn::device_name(device);
  const std::string host = base::host_name();
  bool known = true;
  for (int r = 0; r < world.size(); ++r) {
    hardware.hosts.push_back(world.broadcast_bytes(host, r, "host name"));
    const std::string name = world.broadcast_bytes(mine, r, "device name");
    if (r == 0) hardware.device = name;
    const scaling::Device* facts = scaling::device_of(name);
    known &= facts != nullptr;
    if (facts != nullptr) hardware.peak_flops += facts->peak(precision);
  }
  if (!known) hardware.peak_flops = 0;
  return hardware;
}

scaling::Machine machine_of(comm::Communicator& world, at::Device device,
                            const Hardware& hardware, int64_t host_ranks) {
  const std::vector<std::string>& hosts = hardware.hosts;
  const int64_t here = host_ranks > 0 ? host_ranks : std::count(hosts.begin(), hosts.end(), hosts.at(world.rank()));
  scaling::Machine machine{.ranks = world.size(), .node_ranks = world.size()};
  // Groups of neighbouring ranks are nodes only where every node has as many, one after the other.
  const auto next = std::find_if(hosts.begin(), hosts.end(),
                                 [&](const std::string& host) { return host != hosts.front(); });
  const int64_t first = next - hosts.begin();
  bool regular = world.size() % first == 0;
  for (int64_t r = 0; regular && r < world.size(); ++r)
    regular = hosts[r] == hosts[r / first * first];
  if (regular) machine.node_ranks = first;
  const double mine =
      nn::memory_bytes(device) / (device.is_cpu() ? static_cast<double>(here) : 1.0);
  at::Tensor least = at::full({1}, mine, at::kDouble);
  world.all_reduce(least, comm::Reduce::kMin, "memory of a rank").wait();
  machine.memory_bytes = least.item<double>();
  machine.on_gpu = !device.is_cpu();
  return machine;
}

void add_rates(records::StepRow& row, const GroupStep& group, const Hardware& hardware,
               double flops, double tokens) {
  row.step_s = group.step_s;
  row.busy_min_s = group.busy_min_s;
  row.busy_max_s = group.busy_max_s;
  row.slowest_rank = group.slowest_rank;
  row.data_wait_s = group.data_wait_s;
  row.comm_wait_s = group.comm_wait_s;
  row.memory_bytes = group.memory_bytes;
  row.tokens_per_s = tokens / group.step_s;
  row.tflops = flops / group.step_s / 1e12;
  row.mfu = hardware.peak_flops > 0 ? flops / group.step_s / hardware.peak_flops
                                    : std::numeric_limits<double>::quiet_NaN();
}

std::string words(const records::StepRow& row, const Hardware& hardware) {
  std::string text = fmt::format("loss {:.4f}, {} tokens/s, {:.3g} TFLOP/s", row.loss_mean,
                                 base::format_count(row.tokens_per_s), row.tflops);
  if (!std::isnan(row.mfu)) text += fmt::format(", MFU {:.1f} %", 100 * row.mfu);
  text += fmt::format(", waits: data {:.0f} %", 100 * row.data_wait_s / row.step_s);
  const size_t ranks = hardware.hosts.size();
  if (ranks > 1) text += fmt::format(", ranks {:.0f} %", 100 * row.comm_wait_s / row.step_s);
  text += ", " + base::format_bytes(static_cast<double>(row.memory_bytes));
  // Worth saying where one rank holds the others up.
  constexpr double kStraggles = 1.2;
  if (ranks > 1 && row.busy_max_s > kStraggles * row.busy_min_s)
    text += fmt::format(", slowest rank {} on {}: {:.3g} s of work against {:.3g}",
                        row.slowest_rank, hardware.hosts.at(static_cast<size_t>(row.slowest_rank)),
                        row.busy_max_s, row.busy_min_s);
  return text;
}

}  // namespace varscale::train
