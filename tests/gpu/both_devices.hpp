// The same function of the same inputs on the CPU and on the GPU, with its gradients.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::test {

inline double relative_difference(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.detach().to(at::kCPU).to(at::kDouble);
  const at::Tensor y = b.detach().to(at::kCPU).to(at::kDouble);
  return (x - y).norm().item<double>() / std::max(y.norm().item<double>(), 1e-12);
}

using Body = std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>;

// Outputs and, for floating inputs, gradients along a fixed direction, all on the CPU.
inline std::vector<at::Tensor> run_on(at::Device device, const std::vector<at::Tensor>& inputs,
                                      const Body& body) {
  std::vector<at::Tensor> moved, leaves;
  for (const at::Tensor& input : inputs) {
    moved.push_back(input.detach().to(device, /*non_blocking=*/false, /*copy=*/true));
    if (moved.back().is_floating_point()) leaves.push_back(moved.back().set_requires_grad(true));
  }
  const at::Tensor out = body(moved);
  const at::Tensor direction = hash_v("direction", out.sizes()).to(out.options());
  std::vector<at::Tensor> results{out};
  for (const at::Tensor& gradient : torch::autograd::grad({out}, leaves, {direction}))
    results.push_back(gradient);
  for (at::Tensor& result : results) result = result.detach().to(at::kCPU);
  return results;
}

// Relative L2 difference of the output and of each gradient.
inline void expect_same_on_both(const std::string& what, const std::vector<at::Tensor>& inputs,
                                const Body& body, double tolerance) {
  const std::vector<at::Tensor> cpu = run_on(at::kCPU, inputs, body);
  const std::vector<at::Tensor> gpu = run_on(comm::cuda_device(), inputs, body);
  for (size_t i = 0; i < cpu.size(); ++i) {
    EXPECT_EQ(gpu[i].scalar_type(), cpu[i].scalar_type()) << what << " " << i;
    EXPECT_LE(relative_difference(gpu[i], cpu[i]), tolerance)
        << what << ": " << (i == 0 ? "output" : "gradient of input " + std::to_string(i - 1));
  }
}

// Both devices round to 24 bits (6e-8) in orders of their own.
inline constexpr double kFloat32 = 2e-6;
// One rounding to 8 bits is 4e-3; values that differ in the last bit of float32 may be rounded apart.
inline constexpr double kBfloat16 = 1e-2;

}  // namespace varscale::test
