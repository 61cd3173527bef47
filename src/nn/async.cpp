#include "nn/async.hpp"

#include <ATen/ATen.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace varscale::nn {

namespace {

c10::Event mark(at::Device device, c10::EventFlag flag) {
  c10::Event event(device.type(), flag);
  event.record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  return event;
}

}  // namespace

Tensor to_device(const Tensor& x, at::Device device) {
  if (!x.defined() || device.is_cpu() || x.device() == device) return x;
  return x.pin_memory().to(device, /*non_blocking=*/true);
}

c10::Stream stream_of_pool(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/false);
}

Interval::Interval(at::Device device) : device_(device) {
  if (device_.is_cpu())
    host_begin_ = Clock::now();
  else
    begin_.emplace(mark(device_, c10::EventFlag::BACKEND_DEFAULT));  // with a time
}

void Interval::end() {
  if (device_.is_cpu())
    host_end_ = Clock::now();
  else
    end_.emplace(mark(device_, c10::EventFlag::BACKEND_DEFAULT));
}

double Interval::seconds() const {
  if (device_.is_cpu()) return std::chrono::duration<double>(host_end_ - host_begin_).count();
  end_->synchronize();
  return begin_->elapsedTime(*end_) / 1e3;
}

Fetch::Fetch(const Tensor& figures) {
  const Tensor source = figures.detach();
  if (source.is_cpu()) {
    host_ = source;
    return;
  }
  host_ = at::empty(source.sizes(), source.options().device(at::kCPU).pinned_memory(true));
  host_.copy_(source, /*non_blocking=*/true);
  arrived_.emplace(mark(source.device(), c10::EventFlag::PYTORCH_DEFAULT));
}

const Tensor& Fetch::host() const {
  if (arrived_) arrived_->synchronize();
  return host_;
}

}  // namespace varscale::nn
