#include "apps/bench/products.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <string>

#include "apps/bench/bench.hpp"
#include "apps/bench/options.hpp"
#include "nn/functional.hpp"

namespace varscale::bench {

ProductRate product_rate(const Place& place, at::ScalarType type, int64_t side, int64_t repeats) {
  const at::NoGradGuard no_grad;
  const auto options = at::TensorOptions(type).device(place.device());
  const at::Tensor a = at::randn({side, side}, at::TensorOptions(at::kFloat)).to(options),
                   b = at::randn({side, side}, at::TensorOptions(at::kFloat)).to(options);
  at::Tensor out = at::empty({side, side}, options);
  const double flops = 2.0 * static_cast<double>(side) * static_cast<double>(side) * static_cast<double>(side);
  const auto best = [&](const std::function<void()>& product) {
    return flops / place.repeat({.count = repeats, .warmup = 1}, product).at_share(0) / 1e12;
  };
  ProductRate rate{best([&] { at::mm_out(out, a, b); }), false};
  if (!place.device().is_cpu()) return rate;
  // In bf16 ATen's own product goes by oneDNN.
  const double other = type == at::kFloat ? best([&] { out = nn::linear(a, b, {}, type); }) : rate.tflops;
  if (type != at::kFloat || other > rate.tflops) rate = {other, true};
  return rate;
}

ProductRate product_rate(const Place& place, at::ScalarType type) {
  return product_rate(place, type, place.device().is_cpu() ? 2048 : 8192, 4);
}

namespace {

class ProductsBench : public Bench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    auto* command = app.add_subcommand("products", "the machine's own rate of matrix products");
    command->add_option("--side", sides_, "of the square matrices")->check(CLI::PositiveNumber)->delimiter(',');
    precision_.add_to(*command);
    command->add_option("--repeats", repeats_, "of which the best counts")->check(CLI::PositiveNumber);
    add_device(*command, device_);
    return *command;
  }

  void run() override {
    const Place place(device_);
    for (const int64_t side : sides_) {
      const ProductRate rate =
          product_rate(place, precision_.type(), side, repeats_);
      nlohmann::ordered_json json{{"what", "products"},
                                  {"side", side},
                                  {"precision", precision_.name},
                                  {"device", device_},
                                  {"ranks", place.ranks().size()},
                                  {"threads_a_rank", at::get_num_threads()},
                                  {"tflops_a_rank", rate.tflops}};
      if (place.device().is_cpu()) json["by"] = rate.onednn ? "oneDNN" : "BLAS";
      place.print(json);
    }
  }

 private:
  std::vector<int64_t> sides_{512, 1024, 2048, 4096};
  std::string device_ = "cpu";
  Precision precision_;
  int64_t repeats_ = 8;
};

}  // namespace

std::unique_ptr<Bench> products_bench() { return std::make_unique<ProductsBench>(); }

}  // namespace varscale::bench
