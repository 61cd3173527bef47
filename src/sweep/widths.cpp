#include "sweep/widths.hpp"

#include "scaling/step_time.hpp"

namespace varscale::sweep {

std::vector<Speed> speeds_of(const SweepRun& run, const Throughput& throughput, const scaling::Machine& launch) {
  const RunConfig& config = run.config;
  const scaling::Machine machine = machine_for(config, launch);
  const scaling::VarShape shape = shape_of(config, run.tokens);
  scaling::StepOptions options{.batch = config.train.batch,
                               .flops_per_s = throughput.rate(config.model.depth, config.train.precision).flops_per_s,
                               .network = scaling::network_of(throughput.device())};
  options.network.node_ranks = machine.node_ranks;
  std::vector<Speed> speeds;
  for (const int64_t ranks : scaling::useful_widths(config.train.batch, machine.ranks, machine.node_ranks)) {
    scaling::Machine group = machine;
    group.ranks = ranks;
    group.node_ranks = std::min(ranks, machine.node_ranks);
    if (config.parallel.mode == "hybrid" && ranks % config.parallel.shards != 0) continue;
    options.ranks = ranks;
    if (layout_of(config, shape, group).fits) speeds.push_back({ranks, 1 / scaling::step_seconds(shape, options)});
  }
  if (speeds.empty()) {
    options.ranks = machine.ranks;
    speeds.push_back({machine.ranks, 1 / scaling::step_seconds(shape, options)});
  }
  return speeds;
}

}  // namespace varscale::sweep
