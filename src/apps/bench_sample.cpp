#include "apps/bench_sample.hpp"

#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <vector>

#include "apps/bench_times.hpp"
#include "generate/sampler.hpp"
#include "models/var/model.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale {

void SampleBench::add_to(CLI::App& command) {
  command.add_option("--depth", depth_, "depth of the model")->check(CLI::PositiveNumber);
  command.add_option("--images", images_, "drawn at a time; a group has 8 slots")->check(CLI::PositiveNumber);
  command.add_option("--precision", precision_, "fp32 or bf16")->check(CLI::IsMember({"fp32", "bf16"}));
  command.add_option("--cfg", cfg_, "guidance")->check(CLI::NonNegativeNumber);
  command.add_option("--top-k", top_k_, "0: off")->check(CLI::NonNegativeNumber);
  command.add_option("--top-p", top_p_, "0: off")->check(CLI::Range(0.0, 1.0));
  command.add_option("--repeats", repeats_, "measured")->check(CLI::PositiveNumber);
  command.add_option("--warmup", warmup_, "run before")->check(CLI::NonNegativeNumber);
}

nlohmann::ordered_json SampleBench::run() const {
  using Clock = std::chrono::steady_clock;
  tokenizer::Vqvae tokenizer{tokenizer::VqvaeConfig{}};
  tokenizer.initialise(tokenizer::Init::kPublic, 1);
  const tokenizer::QuantizerConfig& tokens = tokenizer.quantizer().config();
  constexpr int64_t kClasses = 1000;
  models::Var model(scaling::VarShape::from_depth(depth_, {tokens.vocabulary, tokens.code_width, tokens.scales}, kClasses));
  model.initialise({.seed = 1});
  const at::ScalarType compute = precision_ == "bf16" ? at::kBFloat16 : at::kFloat;
  tokenizer.decode_in(compute);
  const generate::Sampler sampler(
      model, tokenizer.quantizer(),
      {.cfg = cfg_, .top_k = top_k_, .top_p = top_p_, .compute = compute});
  std::vector<generate::Request> requests;
  for (int64_t i = 0; i < images_; ++i) requests.push_back({.image = i, .label = i % kClasses});

  Times draw, decode;
  for (int64_t i = 0; i < warmup_ + repeats_; ++i) {
    const auto begin = Clock::now();
    const generate::Samples samples = sampler.sample(requests);
    const auto drawn = Clock::now();
    generate::decode_each(tokenizer, samples.f_hat_BEHW);
    const auto decoded = Clock::now();
    if (i < warmup_) continue;
    draw.seconds.push_back(std::chrono::duration<double>(drawn - begin).count());
    decode.seconds.push_back(std::chrono::duration<double>(decoded - drawn).count());
  }
  const models::KvCache cache =
      model.make_cache(cfg_ > 0 ? 2 * sampler.options().group : sampler.options().group, compute);
  size_t cache_bytes = 0;
  for (const auto* halves : {&cache.k_BHLD, &cache.v_BHLD})
    for (const at::Tensor& half_BHLD : *halves) cache_bytes += half_BHLD.nbytes();
  constexpr double kMib = 1 << 20;
  return {{"what", "sample"},
          {"depth", depth_},
          {"images", images_},
          {"precision", precision_},
          {"cfg", cfg_},
          {"threads", at::get_num_threads()},
          {"draw", draw.json()},
          {"decode", decode.json()},
          {"images_per_s", static_cast<double>(images_) / (draw.median() + decode.median())},
          {"kv_cache_mib", static_cast<double>(cache_bytes) / kMib}};
}

}  // namespace varscale
