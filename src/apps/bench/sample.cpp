// var_bench sample.
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <nlohmann/json.hpp>
#include <vector>

#include "apps/bench/bench.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/times.hpp"
#include "generate/sampler.hpp"
#include "models/var/model.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::bench {
namespace {

// A model of the given depth at 256 px and a tokenizer of the published shape, both with made-up weights: milliseconds
// of drawing and of decoding, images a second of both together, and the key-value cache of one group.
class SampleBench : public Bench {
 public:
  CLI::App& add_to(CLI::App& app) override;
  void run() override;

 private:
  int64_t depth_ = 6, images_ = 8, top_k_ = 900;
  double cfg_ = 4, top_p_ = 0.95;
  Precision precision_;
  Repeats repeats_{.count = 5, .warmup = 1};
};

CLI::App& SampleBench::add_to(CLI::App& app) {
  CLI::App& command =
      *app.add_subcommand("sample", "drawing and decoding images of 256 px on the CPU, weights made up");
  command.add_option("--depth", depth_, "depth of the model")->check(CLI::PositiveNumber);
  command.add_option("--images", images_, "drawn at a time; a group has 8 slots")->check(CLI::PositiveNumber);
  precision_.add_to(command);
  command.add_option("--cfg", cfg_, "guidance")->check(CLI::NonNegativeNumber);
  command.add_option("--top-k", top_k_, "0: off")->check(CLI::NonNegativeNumber);
  command.add_option("--top-p", top_p_, "0: off")->check(CLI::Range(0.0, 1.0));
  repeats_.add_to(command);
  return command;
}

void SampleBench::run() {
  using Clock = std::chrono::steady_clock;
  tokenizer::Vqvae tokenizer{tokenizer::VqvaeConfig{}};
  tokenizer.initialise(tokenizer::Init::kPublic, 1);
  const tokenizer::QuantizerConfig& tokens = tokenizer.quantizer().config();
  constexpr int64_t kClasses = 1000;
  models::Var model(scaling::VarShape::from_depth(depth_, {tokens.vocabulary, tokens.code_width, tokens.scales}, kClasses));
  model.initialise({.seed = 1});
  const at::ScalarType compute = precision_.type();
  tokenizer.decode_in(compute);
  const generate::Sampler sampler(
      model, tokenizer.quantizer(),
      {.cfg = cfg_, .top_k = top_k_, .top_p = top_p_, .compute = compute});
  std::vector<generate::Request> requests;
  for (int64_t i = 0; i < images_; ++i) requests.push_back({.image = i, .label = i % kClasses});

  Times draw, decode;
  for (int64_t i = 0; i < repeats_.warmup + repeats_.count; ++i) {
    const auto begin = Clock::now();
    const generate::Samples samples = sampler.sample(requests);
    const auto drawn = Clock::now();
    generate::decode_each(tokenizer, samples.f_hat_BEHW);
    const auto decoded = Clock::now();
    if (i < repeats_.warmup) continue;
    draw.seconds.push_back(std::chrono::duration<double>(drawn - begin).count());
    decode.seconds.push_back(std::chrono::duration<double>(decoded - drawn).count());
  }
  const models::KvCache cache =
      model.make_cache(cfg_ > 0 ? 2 * sampler.options().group : sampler.options().group, compute);
  size_t cache_bytes = 0;
  for (const auto* halves : {&cache.k_BHLD, &cache.v_BHLD})
    for (const at::Tensor& half_BHLD : *halves) cache_bytes += half_BHLD.nbytes();
  constexpr double kMib = 1 << 20;
  const nlohmann::ordered_json json{{"what", "sample"},
          {"depth", depth_},
          {"images", images_},
          {"precision", precision_.name},
          {"cfg", cfg_},
          {"threads", at::get_num_threads()},
          {"draw", draw.json()},
          {"decode", decode.json()},
          {"images_per_s", static_cast<double>(images_) / (draw.median() + decode.median())},
          {"kv_cache_mib", static_cast<double>(cache_bytes) / kMib}};
  fmt::print("{}\n", json.dump());
}

}  // namespace

std::unique_ptr<Bench> sample_bench() { return std::make_unique<SampleBench>(); }

}  // namespace varscale::bench
