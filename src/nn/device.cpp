#include "nn/device.hpp"

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <c10/util/env.h>
#include <malloc.h>
#include <sys/resource.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "base/machine.hpp"

namespace varscale::nn {

namespace {

std::atomic<int64_t> cpu_held = 0, cpu_peak = 0;

void free_counted(void* data) {
  cpu_held -= static_cast<int64_t>(malloc_usable_size(data));
  c10::free_cpu(data);
}

// The default allocator's memory, counted by the sizes that malloc gave.
class CountingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    if (data != nullptr) {
      const int64_t held = cpu_held += static_cast<int64_t>(malloc_usable_size(data));
      int64_t peak = cpu_peak;
      while (held > peak && !cpu_peak.compare_exchange_weak(peak, held)) {
      }
    }
    return {data, data, &free_counted, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_counted; }
  void copy_data(void* target, const void* source, size_t bytes) const override {
    std::memcpy(target, source, bytes);
  }
};

// It knows its devices only once they have been initialised, which a first tensor would do too.
c10::DeviceAllocator& allocator_of(at::Device device) {
  at::globalContext().lazyInitDevice(device.type());
  return *c10::getDeviceAllocator(device.type());
}

c10::CachingDeviceAllocator::DeviceStats stats_of(at::Device device) {
  return allocator_of(device).getDeviceStats(device.index());
}

constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

std::string device_name(at::Device device) {
  return device.is_cpu() ? base::cpu_name() : gpu_name(device.index());
}

double memory_bytes(at::Device device) {
  if (device.is_cpu()) return base::machine_memory_bytes();
  return static_cast<double>(allocator_of(device).getMemoryInfo(device.index()).second);
}

void count_cpu_memory() {
  static std::once_flag once;
  std::call_once(once, [] {
    static CountingAllocator allocator;
    c10::SetCPUAllocator(&allocator, /*priority=*/1);
  });
}

int64_t held_bytes(at::Device device) {
  return device.is_cpu() ? cpu_held.load() : stats_of(device).allocated_bytes[kAll].current;
}

int64_t peak_bytes(at::Device device) {
  return device.is_cpu() ? cpu_peak.load() : stats_of(device).allocated_bytes[kAll].peak;
}

void reset_peak(at::Device device) {
  if (device.is_cpu())
    cpu_peak = cpu_held.load();
  else
    allocator_of(device).resetPeakStats(device.index());
}

int64_t new_memory_events(at::Device device) {
  if (!device.is_cpu()) return stats_of(device).num_device_alloc;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

void repeatable_cuda() {
  // cuBLAS repeats its sums only in a workspace of fixed size; it reads this at its first call.
  c10::utils::set_env("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/false);
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);  // for debugging, and dear
  context.setBenchmarkCuDNN(false);
  context.setAllowTF32CuBLAS(false);
  context.setAllowTF32CuDNN(false);
}

void synchronise(at::Device device) {
  if (device.is_cuda()) at::detail::getCUDAHooks().deviceSynchronize(device.index());
}

bool device_works(at::Device device) noexcept {
  try {
    return at::full({1}, 3.0F, at::TensorOptions(device)).mul(2).item<float>() == 6.0F;
  } catch (...) {
    return false;
  }
}

}  // namespace varscale::nn
