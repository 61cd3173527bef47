#include "apps/bench/place.hpp"

#include <fmt/format.h>

#include <chrono>

#include "base/error.hpp"
#include "nn/async.hpp"
#include "nn/device.hpp"

namespace varscale::bench {

Place::Place(const std::string& device) : world_(comm::open_world()), device_(at::kCPU) {
  if (device != "cuda") return;
  nn::repeatable_cuda();  // as training does
  nccl_ = comm::open_nccl(*world_);
  device_ = comm::cuda_device();
}

void Place::alone() {
  if (ranks().size() != 1) throw base::UserError("--graph: records the step of one rank, and there are {}", ranks().size());
  alone_ = comm::make_self();
  own_stream_.emplace(nn::stream_of_pool(device_));
}

double Place::seconds(const std::function<void()>& work) const {
  ranks().barrier("repeat");
  const auto begin = std::chrono::steady_clock::now();
  work();
  nn::synchronise(device_);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Times Place::repeat(const Repeats& repeats, const std::function<void()>& work) const {
  Times times;
  for (int64_t i = 0; i < repeats.warmup + repeats.count; ++i) {
    const double taken = seconds(work);
    if (i >= repeats.warmup) times.seconds.push_back(taken);
  }
  return times;
}

void Place::print(const nlohmann::ordered_json& json) const {
  if (ranks().rank() == 0) fmt::print("{}\n", json.dump());
}

}  // namespace varscale::bench
