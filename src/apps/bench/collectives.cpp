// var_bench collectives.
#include <ATen/ATen.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <utility>

#include "apps/bench/bench.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/place.hpp"

namespace varscale::bench {
namespace {

// Bytes a second: of the data that each rank gives or gets, as nccl-tests' algorithm bandwidth.
class CollectivesBench : public Bench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    auto* command = app.add_subcommand("collectives", "each collective of its own");
    command->add_option("--mib", mib_, "size of the tensor")->check(CLI::PositiveNumber);
    add_device(*command, device_);
    repeats_.add_to(*command);
    return *command;
  }

  void run() override {
    const Place place(device_);
    comm::Communicator& ranks = place.ranks();
    const int64_t elements = (mib_ << 20) / 4 / ranks.size() * ranks.size();
    const auto floats = at::TensorOptions(at::kFloat).device(place.device());
    at::Tensor whole = at::ones({elements}, floats), part = at::ones({elements / ranks.size()}, floats),
               small = at::zeros({3}, at::kLong);  // of the host, as stop flags are
    using comm::Reduce;
    struct Call {
      std::string name;
      int64_t bytes;
      std::function<void()> run;
    };
    const int64_t bytes = 4 * elements;
    const std::vector<Call> calls{
        {"all_reduce", bytes, [&] { ranks.all_reduce(whole, Reduce::kMax, "bench").wait(); }},
        {"reduce_scatter", bytes, [&] { ranks.reduce_scatter(part, whole, Reduce::kMax, "bench").wait(); }},
        {"all_gather", bytes, [&] { ranks.all_gather(whole, part, "bench").wait(); }},
        {"broadcast", bytes, [&] { ranks.broadcast(whole, 0, "bench").wait(); }},
        {"all_reduce of 24 bytes", 24, [&] { ranks.all_reduce(small, Reduce::kMax, "bench").wait(); }},
        {"barrier", 0, [&] { ranks.barrier("bench"); }}};
    for (const Call& call : calls) {
      const Times times = place.repeat(repeats_, call.run);
      nlohmann::ordered_json json{
          {"what", call.name}, {"bytes", call.bytes}, {"device", device_}, {"ranks", ranks.size()}};
      json.update(times.json());
      if (call.bytes > 0) json["gb_per_s"] = static_cast<double>(call.bytes) / times.median() / 1e9;
      place.print(json);
    }
  }

 private:
  int64_t mib_ = 25;
  std::string device_ = "cpu";
  Repeats repeats_;
};

}  // namespace

std::unique_ptr<Bench> collectives_bench() { return std::make_unique<CollectivesBench>(); }

}  // namespace varscale::bench
