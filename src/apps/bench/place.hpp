// The ranks and the device that a bench runs on.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/StreamGuard.h>

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "apps/bench/options.hpp"
#include "apps/bench/times.hpp"
#include "comm/communicator.hpp"

namespace varscale::bench {

class Place {
 public:
  // "cpu", or "cuda": one rank a GPU.
  explicit Place(const std::string& device);
  // Where the work of one rank is recorded: on a stream of its own, and nothing is reduced. UserError: several ranks.
  void alone();
  comm::Communicator& ranks() const { return alone_ ? *alone_ : nccl_ ? *nccl_ : *world_; }
  at::Device device() const { return device_; }
  // Seconds of the work with what the device then still had to do; all ranks begin together.
  double seconds(const std::function<void()>& work) const;
  Times repeat(const Repeats& repeats, const std::function<void()>& work) const;
  // By rank 0 alone.
  void print(const nlohmann::ordered_json& json) const;

 private:
  std::unique_ptr<comm::Communicator> world_, nccl_, alone_;
  at::Device device_;
  std::optional<c10::StreamGuard> own_stream_;
};

}  // namespace varscale::bench
