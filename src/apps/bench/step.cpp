// var_bench step and overlap.
#include <CLI/CLI.hpp>
#include <algorithm>

#include "apps/bench/bench.hpp"
#include "apps/bench/products.hpp"
#include "apps/bench/training.hpp"
#include "base/error.hpp"
#include "nn/device.hpp"

namespace varscale::bench {
namespace {

class StepBench : public TrainingBench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    CLI::App& command =
        add_command(app, "step", "one training step, and the share of the machine's products that it reaches");
    command.add_flag("--graph", graph_, "cuda, one rank, replicated: each step as one recorded launch");
    return command;
  }

  void run() override {
    if (graph_ && (options_.device != "cuda" || options_.mode != "replicated"))
      throw base::UserError("--graph: records the step of a GPU that holds the whole model, expected --device cuda --mode replicated");
    Place place(options_.device);
    if (graph_) place.alone();
    Training training(options_, place);
    if (graph_) training.record();
    const auto step = [&] { training.step(); };
    // The first steps of a graph are launched as they are, and the next is recorded.
    const int64_t warmup = graph_ ? std::max(repeats_.warmup, train::RecordedUpdate::kFirst + 1) : repeats_.warmup;
    place.repeat({.count = 0, .warmup = warmup}, step);
    const int64_t before = nn::new_memory_events(place.device());
    const Times times = place.repeat({.count = repeats_.count, .warmup = 0}, step);
    const int64_t new_memory = nn::new_memory_events(place.device()) - before;
    const ProductRate rate = product_rate(place, options_.precision.type());
    const double tflops = training.flops() / times.median() / 1e12;
    nlohmann::ordered_json json = options_.head("train_step", place.ranks());
    json["graph"] = graph_;
    json.update(times.json());
    json["new_memory_events_a_step"] = static_cast<double>(new_memory) / static_cast<double>(repeats_.count);
    json["tokens_per_s"] = training.tokens() / times.median();
    json["gflop"] = training.flops() / 1e9;
    json["tflops"] = tflops;
    json["product_tflops_a_rank"] = rate.tflops;
    json["share_of_products"] = tflops / (rate.tflops * place.ranks().size());
    place.print(json);
  }

 private:
  bool graph_ = false;
};

// The same step with reduction during and after backward, turn by turn in one process.
class OverlapBench : public TrainingBench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    return add_command(app, "overlap", "reduction during backward against after it");
  }

  void run() override {
    const Place place(options_.device);
    Training during(options_, place, true), after(options_, place, false);
    Times with, without;
    double wait_with = 0, wait_without = 0;
    for (int64_t i = 0; i < repeats_.warmup + repeats_.count; ++i) {
      if (i == repeats_.warmup) wait_with = wait_without = 0;
      const double a = place.seconds([&] { during.step(); });
      wait_with += during.take_wait_s();
      const double b = place.seconds([&] { after.step(); });
      wait_without += after.take_wait_s();
      if (i < repeats_.warmup) continue;
      with.seconds.push_back(a);
      without.seconds.push_back(b);
    }
    nlohmann::ordered_json json = options_.head("overlap", place.ranks());
    const auto repeats = static_cast<double>(repeats_.count);
    json["overlapped"] = with.json();
    json["after_backward"] = without.json();
    json["wait_ms_overlapped"] = 1e3 * wait_with / repeats;
    json["wait_ms_after_backward"] = 1e3 * wait_without / repeats;
    json["hidden_share"] = wait_without > 0 ? 1 - wait_with / wait_without : 0.0;
    json["ratio"] = without.median() / with.median();
    place.print(json);
  }
};

}  // namespace

std::unique_ptr<Bench> step_bench() { return std::make_unique<StepBench>(); }
std::unique_ptr<Bench> overlap_bench() { return std::make_unique<OverlapBench>(); }

}  // namespace varscale::bench
