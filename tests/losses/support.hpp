// What the tests of the losses share: inputs by name, and gradients against finite differences.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>

#include "losses/network.hpp"
#include "nn/tensor.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::losses {

inline std::filesystem::path source_file(const std::string& name) {
  return std::filesystem::path(std::getenv("VARSCALE_SOURCE")) / name;
}

// Float64 [B, 3, side, side] in [-1, 1).
inline Tensor test_image(const std::string& name, int64_t batch, int64_t side) {
  return test::hash_v(name, {batch, 3, side, side});
}

inline double worst(const Tensor& got, const Tensor& want) {
  return (got.to(at::kDouble) - want.to(at::kDouble)).abs().max().item<double>();
}

// Compares a gradient along a fixed direction with the central difference of the scalar function; x float64, or
// a float32 leaf that function() reads. Relative error.
inline double difference_error(const std::function<Tensor()>& function, const Tensor& x, double step) {
  const bool needs = x.requires_grad();
  x.set_requires_grad(true);
  const Tensor gradient = torch::autograd::grad({function()}, {x})[0].to(at::kDouble);
  const at::NoGradGuard no_grad;
  const Tensor direction = test::hash_v("direction", x.sizes()), kept = x.clone();
  auto at_step = [&](double h) {
    x.copy_(kept.to(at::kDouble) + h * direction);
    return std::pair(function().item<double>(), x.to(at::kDouble).clone());
  };
  const auto [above, x_above] = at_step(step);
  const auto [below, x_below] = at_step(-step);
  x.copy_(kept);
  x.set_requires_grad(needs);
  // What was really moved: a float32 leaf rounds.
  const double want = above - below, got = (gradient * (x_above - x_below)).sum().item<double>();
  return std::abs(got - want) / std::abs(want);
}

}  // namespace varscale::losses
