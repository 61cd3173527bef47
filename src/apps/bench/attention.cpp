// var_bench attention.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <limits>
#include <map>

#include "apps/bench/bench.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/place.hpp"
#include "nn/attention.hpp"
#include "scaling/shape.hpp"

namespace varscale::bench {
namespace {

using at::Tensor;

// The published pyramids (arXiv 2404.02905, and the public configuration of 1024 px).
const std::map<int64_t, std::vector<int64_t>> kPyramids{
    {256, {1, 2, 3, 4, 5, 6, 8, 10, 13, 16}},
    {512, {1, 2, 3, 4, 6, 9, 13, 18, 24, 32}},
    {1024, {1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64}}};

// Forward and backward of one layer's attention: ours, and ATen's in one call with a mask over the square.
class AttentionBench : public Bench {
 public:
  CLI::App& add_to(CLI::App& app) override {
    auto* command = app.add_subcommand("attention", "one layer's attention, forward and backward, beside one masked call of ATen");
    command->add_option("--px", sides_, "256, 512, 1024")->check(CLI::IsMember({256, 512, 1024}))->delimiter(',');
    command->add_option("--heads", heads_, "of 64 numbers")->check(CLI::PositiveNumber);
    command->add_option("--batch", batch_, "images")->check(CLI::PositiveNumber);
    precision_.add_to(*command);
    add_device(*command, device_);
    repeats_.add_to(*command);
    return *command;
  }

  void run() override {
    const Place place(device_);
    const auto options =
        at::TensorOptions(precision_.type()).device(place.device());
    for (const int64_t side : sides_) {
      const scaling::ScaleList scales(kPyramids.at(side));
      const int64_t L = scales.tokens();
      std::vector<Tensor> qkv;
      for (int i = 0; i < 3; ++i)
        qkv.push_back(at::randn({batch_, heads_, L, 64}, at::TensorOptions(at::kFloat)).to(options).set_requires_grad(true));
      const auto spans = nn::PrefixPlan(scales, nn::PrefixPlan::kMergeBelow, place.device()).spans(L);
      const Tensor mask_LL = mask_over_the_square(scales).to(options);
      const double scale = 0.125;
      const auto both_ways = [&](const std::function<Tensor()>& attend) {
        return place.repeat(repeats_, [&] {
          const Tensor out = attend();
          torch::autograd::grad({out}, qkv, {at::ones_like(out)});
        });
      };
      const Times ours = both_ways([&] { return nn::prefix_attention(qkv[0], qkv[1], qkv[2], spans, scale); });
      const Times masked = both_ways([&] {
        return at::scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], mask_LL, 0.0, false, scale);
      });
      int64_t pairs = 0;
      for (int64_t k = 0; k < scales.count(); ++k) pairs += scales.tokens_at(k) * scales.end(k);
      // Two products forward and four backward, 64 multiplications and additions a pair each.
      const double flops = 6.0 * 2 * 64 * static_cast<double>(batch_ * heads_ * pairs);
      place.print({{"what", "attention"},
                   {"px", side},
                   {"tokens", L},
                   {"heads", heads_},
                   {"batch", batch_},
                   {"precision", precision_.name},
                   {"device", device_},
                   {"threads_a_rank", at::get_num_threads()},
                   {"calls", spans.size()},
                   {"seen_share", static_cast<double>(pairs) / static_cast<double>(L * L)},
                   {"ours", ours.json()},
                   {"masked", masked.json()},
                   {"ratio", masked.median() / ours.median()},
                   {"tflops", flops / ours.median() / 1e12}});
    }
  }

 private:
  static Tensor mask_over_the_square(const scaling::ScaleList& scales) {
    const int64_t L = scales.tokens();
    Tensor mask_LL = at::zeros({L, L}, at::TensorOptions(at::kFloat));
    for (int64_t k = 0; k < scales.count(); ++k)
      mask_LL.slice(0, scales.begin(k), scales.end(k)).slice(1, scales.end(k), L).fill_(-std::numeric_limits<float>::infinity());
    return mask_LL;
  }

  std::vector<int64_t> sides_{256, 512};
  int64_t heads_ = 4, batch_ = 1;
  std::string device_ = "cpu";
  Precision precision_;
  Repeats repeats_{.count = 5, .warmup = 1};
};

}  // namespace

std::unique_ptr<Bench> attention_bench() { return std::make_unique<AttentionBench>(); }

}  // namespace varscale::bench
