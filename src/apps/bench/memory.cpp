// var_bench memory.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>

#include "apps/bench/bench.hpp"
#include "apps/bench/training.hpp"
#include "base/error.hpp"
#include "base/machine.hpp"
#include "nn/device.hpp"
#include "scaling/count.hpp"

namespace varscale::bench {
namespace {

// Bytes of tensors that each rank holds: those of the model, what forward keeps for backward, and a whole step's peak,
// each against the estimate that plans are made with. One line a rank.
class MemoryBench : public Bench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    auto* command = app.add_subcommand("memory", "bytes held by each rank against the estimate");
    options_.add_to(*command);
    command->add_option("--fits", fits_gib_, "GiB of one rank: say the largest depth whose estimate fits, and run nothing")
        ->check(CLI::PositiveNumber);
    command->add_option("--steps", steps_, "steps whose peak is taken")->check(CLI::PositiveNumber);
    return *command;
  }

  void run() override {
    if (fits_gib_ > 0) return print_largest();
    const Place place(options_.device);
    comm::Communicator& ranks = place.ranks();
    nn::count_cpu_memory();
    const int64_t before = nn::held_bytes(place.device());
    Training training(options_, place);
    nn::reset_peak(place.device());
    int64_t kept = 0;
    for (int64_t i = 0; i < steps_; ++i) {
      const int64_t held = nn::held_bytes(place.device());
      const at::Tensor loss = training.forward();
      nn::synchronise(place.device());
      kept = nn::held_bytes(place.device()) - held;
      training.backward(loss);
    }
    const scaling::MemoryEstimate estimate = options_.memory(ranks.size());
    const auto tokens = static_cast<double>(training.rows() * options_.shape().tokens.scales.tokens());
    // Forward also keeps the logits, which are no activation of the estimate.
    const double logits = static_cast<double>(options_.vocabulary) * static_cast<double>(c10::elementSize(options_.precision.type()));
    const parallel::Held held = training.held();
    const int64_t in_pools = estimate.weights + estimate.gradients + estimate.compute_copies + estimate.reduce_buffer;
    constexpr double kMib = 1 << 20;
    nlohmann::ordered_json json = options_.head("memory", ranks);
    json["rank"] = ranks.rank();
    json["pool_mib"] = static_cast<double>(held.total()) / kMib;
    json["pool_estimate_mib"] = static_cast<double>(in_pools) / kMib;
    if (options_.recompute != "full") {  // the estimate of that mode has a block's worth besides, for backward
      json["activation_bytes_per_token"] = static_cast<double>(kept) / tokens - logits;
      json["activation_estimate_bytes_per_token"] = static_cast<double>(estimate.activations) / tokens;
    }
    json["peak_mib"] = static_cast<double>(nn::peak_bytes(place.device()) - before) / kMib;
    json["peak_estimate_mib"] = static_cast<double>(estimate.total()) / kMib;
    json["peak_gathered_blocks"] = held.peak_gathered_blocks;
    json["resident_mib"] = static_cast<double>(base::resident_bytes()) / kMib;
    const std::string line = json.dump();
    for (int r = 0; r < ranks.size(); ++r) {
      const std::string of_rank = ranks.broadcast_bytes(line, r, "line");
      if (ranks.rank() == 0) fmt::print("{}\n", of_rank);
    }
  }

 private:
  void print_largest() {
    const auto world = comm::open_world();
    const double most = fits_gib_ * (1 << 30);
    options_.depth = 0;
    do {
      ++options_.depth;
    } while (static_cast<double>(options_.memory(world->size()).total()) <= most);
    --options_.depth;
    if (options_.depth == 0)
      throw base::UserError("--fits {}: a step of {} images does not fit, even at depth 1", fits_gib_, options_.batch);
    nlohmann::ordered_json json = options_.head("largest", *world);
    json["fits_gib"] = fits_gib_;
    json["parameters"] = scaling::count_parameters(options_.shape()).total();
    json["peak_estimate_gib"] = static_cast<double>(options_.memory(world->size()).total()) / (1 << 30);
    if (world->rank() == 0) fmt::print("{}\n", json.dump());
  }

  TrainingOptions options_;
  int64_t steps_ = 3;
  double fits_gib_ = 0;
};

}  // namespace

std::unique_ptr<Bench> memory_bench() { return std::make_unique<MemoryBench>(); }

}  // namespace varscale::bench
