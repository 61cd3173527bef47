#include "nn/device.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "nn/storage.hpp"

namespace varscale::nn {
namespace {

// malloc rounds up: a few bytes a tensor.
constexpr int64_t kSlack = 256;

TEST(DeviceMemory, CountsTensorsWhileTheyLive) {
  count_cpu_memory();
  count_cpu_memory();
  const int64_t before = held_bytes(at::kCPU);
  {
    const at::Tensor a = at::zeros({1000, 100});
    EXPECT_NEAR(held_bytes(at::kCPU) - before, 400000, kSlack);
    at::Tensor b = at::empty({10});
    b.resize_({500000});
    EXPECT_NEAR(held_bytes(at::kCPU) - before, 2400000, kSlack);
    const at::Tensor c = absent_leaf({100000}, at::kFloat, at::kCPU);
    EXPECT_NEAR(held_bytes(at::kCPU) - before, 2400000, kSlack);
    allocate_storage(c);
    EXPECT_NEAR(held_bytes(at::kCPU) - before, 2800000, kSlack);
  }
  EXPECT_EQ(held_bytes(at::kCPU), before);
}

TEST(DeviceMemory, KeepsThePeakUntilItIsReset) {
  count_cpu_memory();
  reset_peak(at::kCPU);
  const int64_t before = held_bytes(at::kCPU);
  { const at::Tensor a = at::empty({250000}); }
  EXPECT_NEAR(peak_bytes(at::kCPU) - before, 1000000, kSlack);
  reset_peak(at::kCPU);
  EXPECT_EQ(peak_bytes(at::kCPU), before);
}

TEST(Device, NamesTheProcessorAndItsMemory) {
  EXPECT_FALSE(device_name(at::kCPU).empty());
  EXPECT_GT(memory_bytes(at::kCPU), 1e8);
}

}  // namespace
}  // namespace varscale::nn
