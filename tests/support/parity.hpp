// Comparisons with stored reference values, counted and summed up in one line.
//
//   Parity parity("vqvae_64");
//   parity.check_tensor("f", f_BCHW, want, 1e-5);          // max|a-b| / max|b|
//   parity.check_stat("act.mid", x, stat_rows, 1e-5);      // [2, 3 + n]: mean, std, L2 norm, samples
//   parity.check_grad("conv.weight", grad, rows, 5e-5);    // [2, 1 + n]: L2 norm, samples
//   // at the end of its life: "parity vqvae_64: 412 checks, worst relative error 2.1e-06 (f)"
//
// Where a reference has two rows, row 1 (the float64 run) is the one compared with.
#pragma once

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

#include "tests/support/hash_weights.hpp"

namespace varscale::test {

struct Parity {
  explicit Parity(std::string name) : name_(std::move(name)) {}
  Parity(const Parity&) = delete;
  Parity& operator=(const Parity&) = delete;
  ~Parity() {
    std::printf("parity %s: %lld checks, worst relative error %.1e (%s)\n", name_.c_str(),
                static_cast<long long>(checks_), worst_, worst_name_.c_str());
    testing::Test::RecordProperty("parity_" + name_ + "_checks", std::to_string(checks_));
    testing::Test::RecordProperty("parity_" + name_ + "_worst",
                                  fmt::format("{:.2e} {}", worst_, worst_name_));
  }

  // Largest difference over largest magnitude.
  void check_tensor(const std::string& name, const at::Tensor& got, const at::Tensor& want,
                    double rel_tol) {
    if (!same_shape(name, got, want)) return;
    const at::Tensor g = flat(got), w = flat(want);
    const double scale = w.abs().max().item<double>();
    note(name, (g - w).abs().max().item<double>() / (scale > 0 ? scale : 1), rel_tol);
  }

  // Largest difference; counts as a check, not towards the worst relative error.
  void check_absolute(const std::string& name, const at::Tensor& got, const at::Tensor& want,
                      double tol) {
    if (!same_shape(name, got, want)) return;
    ++checks_;
    EXPECT_LE((flat(got) - flat(want)).abs().max().item<double>(), tol) << name_ << " " << name;
  }

  void check_equal(const std::string& name, const at::Tensor& got, const at::Tensor& want) {
    if (!same_shape(name, got, want)) return;
    ++checks_;
    EXPECT_TRUE(at::equal(got.cpu(), want.to(got.scalar_type()))) << name_ << " " << name;
  }

  void check_scalar(const std::string& name, double got, double want, double rel_tol) {
    note(name, std::abs(got - want) / std::max(std::abs(want), 1e-300), rel_tol);
  }

  // `key` is the name that the samples were drawn by (a trailing ".stat" is dropped). Mean and samples
  // are compared on the tensor's own scale (largest sample or root mean square), std and norm by value.
  void check_stat(std::string key, const at::Tensor& tensor, const at::Tensor& stat_rows,
                  double rel_tol) {
    const std::string label = key;
    if (key.ends_with(".stat")) key.resize(key.size() - 5);
    const at::Tensor want = flat(stat_rows.select(0, -1)), x = flat(tensor);
    const auto n = want.numel() - 3;
    const at::Tensor samples = x.index_select(0, places(key, x.numel(), n));
    const double norm = want[2].item<double>();
    const double rms = norm / std::sqrt(static_cast<double>(x.numel()));
    const double scale = std::max(rms, want.slice(0, 3).abs().max().item<double>());
    const double got_mean = x.mean().item<double>();
    double error = std::abs(got_mean - want[0].item<double>()) / scale;
    error = std::max(
        error, std::abs(x.std(/*unbiased=*/false).item<double>() - want[1].item<double>()) / scale);
    error = std::max(error, std::abs(x.norm().item<double>() - norm) / norm);
    error = std::max(error, (samples - want.slice(0, 3)).abs().max().item<double>() / scale);
    note(label, error, rel_tol);
  }

  // Relative L2 of the norm and of the kept entries (floored at what 16 average entries have). Where the
  // true gradient is zero (norm below `floor`), what we have must stay below `floor` too.
  void check_grad(const std::string& parameter, const at::Tensor& grad, const at::Tensor& rows,
                  double rel_tol, double floor = 1e-6, const std::string& sample_prefix = "grad.") {
    if (!grad.defined()) {
      ADD_FAILURE() << name_ << ": no gradient for " << parameter;
      return;
    }
    const at::Tensor want = flat(rows.select(0, -1)), x = flat(grad);
    const auto n = want.numel() - 1;
    const at::Tensor samples = x.index_select(0, places(sample_prefix + parameter, x.numel(), n));
    const double norm = want[0].item<double>(), got = x.norm().item<double>();
    if (norm < floor) {
      ++checks_;
      EXPECT_LT(got, floor) << name_ << " " << parameter << ": the true gradient is zero";
      return;
    }
    const double kept_norm =
        std::max(want.slice(0, 1).norm().item<double>(),
                 norm * std::sqrt(static_cast<double>(n) / static_cast<double>(x.numel())));
    const double error = std::max(std::abs(got - norm) / norm,
                                  (samples - want.slice(0, 1)).norm().item<double>() / kept_norm);
    note(sample_prefix + parameter, error, rel_tol);
  }

  int64_t checks() const { return checks_; }
  double worst() const { return worst_; }

 private:
  static at::Tensor flat(const at::Tensor& t) {
    return t.detach().cpu().to(at::kDouble).reshape({-1});
  }
  static at::Tensor places(const std::string& key, int64_t numel, int64_t n) {
    return at::tensor(sample_index(key, numel, n), at::kLong);
  }
  bool same_shape(const std::string& name, const at::Tensor& got, const at::Tensor& want) {
    EXPECT_EQ(got.sizes(), want.sizes()) << name_ << " " << name;
    return got.sizes() == want.sizes();
  }
  void note(const std::string& name, double error, double tol) {
    ++checks_;
    EXPECT_LE(error, tol) << name_ << " " << name;
    if (!(error <= worst_)) worst_ = error, worst_name_ = name;
  }

  std::string name_, worst_name_ = "none";
  int64_t checks_ = 0;
  double worst_ = 0;
};

}  // namespace varscale::test
