// What a device and the host tell each other without making one another wait.
//
//   Tensor tokens = to_device(tokens_on_host, device);
//   Interval step(device);  launch(...);  step.end();
//   Fetch figures(sums_N);                  // on their way to the host
//   launch_the_next_step();
//   use(figures.host(), step.seconds());    // waits for what is not there yet
//
// On the CPU everything has happened when the call returns, and nothing is copied.
// Streams  All follow the current stream of the tensor's or the given device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <chrono>
#include <optional>

namespace varscale::nn {

using at::Tensor;

// A tensor of the host on the device, by way of pinned memory; x itself, if it is there or undefined, or that is the CPU.
Tensor to_device(const Tensor& x, at::Device device);

// A stream of the device beside its default one, for c10::StreamGuard.
c10::Stream stream_of_pool(at::Device device);

// From construction to end(), on the device's current stream. Move-only.
class Interval {
 public:
  explicit Interval(at::Device device);
  void end();
  // After end(); on a device it waits until the end has been passed.
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;
  at::Device device_;
  Clock::time_point host_begin_, host_end_;
  std::optional<c10::Event> begin_, end_;
};

// A tensor on its way to the host. Move-only.
class Fetch {
 public:
  explicit Fetch(const Tensor& figures);
  const Tensor& host() const;  // a CPU tensor

 private:
  Tensor host_;
  std::optional<c10::Event> arrived_;
};

}  // namespace varscale::nn
