// var_bench: how long the pieces take here. One JSON object a line on stdout; nothing is written.
#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "apps/bench/bench.hpp"
#include "base/command_line.hpp"
#include "base/error.hpp"

namespace varscale {
namespace bench {

std::vector<std::unique_ptr<Bench>> all_benches() {
  std::vector<std::unique_ptr<Bench>> benches;
  for (const auto make : {step_bench, operations_bench, overlap_bench, memory_bench, products_bench, attention_bench, collectives_bench,
                          sample_bench, encode_bench, frechet_bench})
    benches.push_back(make());
  return benches;
}

}  // namespace bench

namespace {

constexpr const char* kExamples = R"(Examples:
  var_bench step --depth 4 --batch 4                             one training step at 256 px, fp32
  var_bench step --depth 4 --batch 4 --precision bf16 --repeats 20
  var_bench operations --depth 4 --batch 4                       where its time goes
  var_bench products --precision bf16                            what the machine can do at best
  var_bench attention --px 256,512,1024 --heads 2                one layer's, beside one masked call
  mpirun -n 2 var_bench step --depth 6 --batch 4 --mode zero3    over ranks
  mpirun -n 2 var_bench overlap --depth 6 --batch 4              what reduction during backward saves
  mpirun -n 4 var_bench memory --depth 12 --batch 4 --mode zero3     bytes held against the estimate
  var_bench memory --fits 139 --batch 8 --precision bf16 --device cuda --recompute full     the largest depth by the estimate
  mpirun -n 2 var_bench collectives --mib 25
  var_bench sample --depth 6 --images 8 --precision bf16         drawing and decoding at 256 px, apart
  var_bench encode --images 4 --precision bf16                   images to tokens
  var_bench frechet --features 2048 --repeats 3                  the distance behind an FID
  mpirun -n 8 var_bench step --depth 16 --batch 768 --precision bf16 --device cuda     one rank a GPU)";

base::ExitCode parse_and_run(int argc, char** argv) {
  CLI::App app("Measures training steps, collectives, sampling, encoding and Fréchet distances on this machine.", "var_bench");
  app.footer(kExamples);
  app.require_subcommand(1);
  const std::vector<std::unique_ptr<bench::Bench>> benches = bench::all_benches();
  std::vector<const CLI::App*> commands;
  for (const auto& bench : benches) commands.push_back(&bench->add_to(app));
  if (!base::parse_command_line(app, argc, argv)) return base::ExitCode::kDone;
  for (size_t i = 0; i < benches.size(); ++i) {
    if (commands[i]->parsed()) benches[i]->run();
  }
  return base::ExitCode::kDone;
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  return varscale::base::run_main("var_bench", [&] { return varscale::parse_and_run(argc, argv); });
}
