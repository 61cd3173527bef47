// var_bench sample: how long images take, drawing and decoding apart.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace varscale {

// A model of the given depth at 256 px and a tokenizer of the published shape, both with made-up weights.
class SampleBench {
 public:
  void add_to(CLI::App& command);
  // Milliseconds of drawing and of decoding, images a second of both together, and the key-value cache of one group.
  nlohmann::ordered_json run() const;

 private:
  int64_t depth_ = 6, images_ = 8, top_k_ = 900, repeats_ = 5, warmup_ = 1;
  double cfg_ = 4, top_p_ = 0.95;
  std::string precision_ = "fp32";
};

}  // namespace varscale
