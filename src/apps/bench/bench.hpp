// The subcommands of var_bench: each times one piece and prints one JSON object a line on stdout.
//
//   for (const auto& bench : all_benches()) bench->add_to(app);      // then parse
//   chosen->run();
#pragma once

#include <CLI/App.hpp>
#include <memory>
#include <vector>

namespace varscale::bench {

class Bench {
 public:
  virtual ~Bench() = default;
  Bench() = default;
  Bench(const Bench&) = delete;
  Bench& operator=(const Bench&) = delete;
  // Adds the subcommand with its options, which it keeps.
  virtual CLI::App& add_to(CLI::App& app) = 0;
  // Errors: UserError for options that do not go together.
  virtual void run() = 0;
};

std::unique_ptr<Bench> step_bench();         // one training step, and the machine's share that it reaches
std::unique_ptr<Bench> operations_bench();   // where a training step's time goes
std::unique_ptr<Bench> overlap_bench();      // reduction during backward against after it
std::unique_ptr<Bench> memory_bench();       // bytes held by each rank against the estimate
std::unique_ptr<Bench> products_bench();     // the machine's own rate of matrix products
std::unique_ptr<Bench> attention_bench();    // one layer's, by image size
std::unique_ptr<Bench> collectives_bench();  // each of its own
std::unique_ptr<Bench> sample_bench();       // drawing and decoding images
std::unique_ptr<Bench> encode_bench();       // images to tokens
std::unique_ptr<Bench> frechet_bench();      // the distance behind an FID

std::vector<std::unique_ptr<Bench>> all_benches();

}  // namespace varscale::bench
