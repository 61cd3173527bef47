#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "tests/models/var_fixture.hpp"

namespace varscale::models {
namespace {

Tensor parameter(const Var& model, const std::string& name) {
  for (const nn::NamedTensor& named : model.parameters()) {
    if (named.name == name) return named.tensor.detach();
  }
  ADD_FAILURE() << "no parameter " << name;
  return {};
}

Var initialised(const scaling::VarShape& shape, const InitOptions& options) {
  Var model(shape);
  model.initialise(options);
  return model;
}

// Mean 0 and deviation as expected, each within five standard errors of a sample of this size; and
// a tail beyond two deviations as wide as a normal's (4.55 %).
void expect_normal(const Tensor& values, double deviation, const std::string& what) {
  const Tensor x = values.to(at::kDouble).flatten();
  const auto n = static_cast<double>(x.numel());
  EXPECT_NEAR(x.mean().item<double>(), 0, 5 * deviation / std::sqrt(n)) << what;
  EXPECT_NEAR(x.square().mean().sqrt().item<double>(), deviation, 5 * deviation / std::sqrt(2 * n))
      << what;
  const double tail = (x.abs() > 2 * deviation).to(at::kDouble).mean().item<double>();
  EXPECT_NEAR(tail, 0.0455, 5 * std::sqrt(0.0455 * 0.9545 / n)) << what;
}

TEST(Initialise, FollowsThePublicRule) {
  for (const bool shared : {false, true}) {
    const scaling::VarShape shape = test_shape(3, {1, 2, 3, 4}, 10, true, shared);
    const int64_t C = shape.width;
    const double std = std::sqrt(1.0 / (3.0 * static_cast<double>(C)));
    const Var model = initialised(shape, {.seed = 7});
    for (const nn::NamedTensor& named : model.parameters()) {
      const std::string& name = named.name;
      const Tensor x = named.tensor.detach();
      if (name.ends_with("bias")) {
        EXPECT_EQ(x.abs().max().item<float>(), 0) << name;
      } else if (name.ends_with("scale_mul_1H11")) {
        EXPECT_TRUE(at::equal(x, at::full_like(x, std::log(4.0)))) << name;
      } else if (name.ends_with("attn.proj.weight") || name.ends_with("ffn.fc2.weight")) {
        expect_normal(x, std / std::sqrt(2.0 * 3), name);
      } else if (name == "head.weight") {
        expect_normal(x, 0.02 * std, name);
      } else if (name == "head_nm.ada_lin.1.weight") {
        expect_normal(x, 0.5 * std, name);
      } else if (name.ends_with("ada_gss")) {  // gates first, then scales and shifts
        expect_normal(x.slice(2, 0, 2), 1e-5 / std::sqrt(static_cast<double>(C)), name + " gates");
        expect_normal(x.slice(2, 2, 6), 0.5 / std::sqrt(static_cast<double>(C)), name);
      } else if (name.starts_with("blocks.") && name.ends_with("ada_lin.1.weight")) {
        expect_normal(x.slice(0, 0, 2 * C), 1e-5 * std, name + " gates");
        expect_normal(x.slice(0, 2 * C, 6 * C), 0.5 * std, name);
      } else {
        expect_normal(x, std, name);  // linear layers, the shared AdaLN, embeddings, positions
      }
    }
  }
}

TEST(Initialise, TakesItsFactorsFromTheOptions) {
  const Var model = initialised(test_shape(2, {1, 2}, 10),
                                {.std = 0.03, .adaln = 0.25, .adaln_gamma = 1e-3, .head = 0.5});
  expect_normal(parameter(model, "blocks.0.attn.mat_qkv.weight"), 0.03, "std");
  expect_normal(parameter(model, "blocks.0.ada_lin.1.weight").slice(0, 0, 256), 3e-5, "gates");
  expect_normal(parameter(model, "blocks.0.ada_lin.1.weight").slice(0, 256), 0.0075, "adaln");
  expect_normal(parameter(model, "head.weight"), 0.015, "head");
  const Var silent = initialised(test_shape(2, {1, 2}, 10), {.head = 0});
  EXPECT_EQ(parameter(silent, "head.weight").abs().max().item<float>(), 0);
}

TEST(Initialise, DoesNotDependOnTheNumberOfThreads) {
  const scaling::VarShape shape = test_shape(2, {1, 2, 3, 4}, 10);
  const int before = at::get_num_threads();
  at::set_num_threads(1);
  const std::string one = nn::fingerprint(initialised(shape, {.seed = 3}).parameters());
  at::set_num_threads(3);
  const std::string three = nn::fingerprint(initialised(shape, {.seed = 3}).parameters());
  at::set_num_threads(before);
  EXPECT_EQ(one, three);
  EXPECT_NE(nn::fingerprint(initialised(shape, {.seed = 4}).parameters()), one);
}

TEST(Initialise, AnElementDependsOnItsParametersNameAloneNotOnTheDepth) {
  scaling::VarShape shallow = test_shape(2, {1, 2, 3, 4}, 10), deep = shallow;
  deep.depth = 5;  // the same width
  const Var a = initialised(shallow, {.seed = 3}), b = initialised(deep, {.seed = 3});
  for (const char* name : {"pos_1LC", "class_emb.weight", "blocks.1.attn.mat_qkv.weight",
                           "blocks.1.ada_lin.1.weight", "blocks.0.ffn.fc1.weight", "head.weight"}) {
    EXPECT_TRUE(at::equal(parameter(a, name), parameter(b, name))) << name;
  }
  // The residual projections are the same draws on another deviation.
  const Tensor x = parameter(a, "blocks.1.attn.proj.weight"),
               y = parameter(b, "blocks.1.attn.proj.weight");
  EXPECT_LE((x * std::sqrt(2.0 / 5) - y).abs().max().item<double>(),
            1e-6 * x.abs().max().item<double>());
  EXPECT_FALSE(at::equal(parameter(a, "blocks.0.attn.mat_qkv.weight"),
                         parameter(a, "blocks.1.attn.mat_qkv.weight")));
}

}  // namespace
}  // namespace varscale::models
