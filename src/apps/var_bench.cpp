// var_bench: how long the pieces take here. One JSON object a line on stdout; nothing is written.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "apps/bench_sample.hpp"
#include "apps/bench_times.hpp"
#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/machine.hpp"
#include "comm/communicator.hpp"
#include "evaluate/frechet.hpp"
#include "models/var/model.hpp"
#include "nn/async.hpp"
#include "nn/device.hpp"
#include "nn/functional.hpp"
#include "optim/adamw.hpp"
#include "parallel/parallel.hpp"
#include "scaling/count.hpp"
#include "scaling/memory.hpp"
#include "train/set_up.hpp"
#include "train/validate.hpp"

namespace varscale {
namespace {

using base::ExitCode;
using base::UserError;
using Clock = std::chrono::steady_clock;

constexpr const char* kExamples = R"(Examples:
  var_bench step --depth 4 --batch 4                             one training step at 256 px, fp32
  var_bench step --depth 4 --batch 4 --precision bf16 --repeats 20
  mpirun -n 2 var_bench step --depth 6 --batch 4 --mode zero3    over ranks
  mpirun -n 2 var_bench overlap --depth 6 --batch 4              what reduction during backward saves
  mpirun -n 4 var_bench memory --depth 12 --batch 4 --mode zero3     bytes held against the estimate
  mpirun -n 2 var_bench collectives --mib 25
  var_bench sample --depth 6 --images 8 --precision bf16         drawing and decoding at 256 px, apart
  var_bench frechet --features 2048 --repeats 3                  the distance behind an FID
  mpirun -n 8 var_bench step --depth 16 --batch 768 --precision bf16 --device cuda     one rank a GPU)";

struct Options {
  int64_t depth = 4, batch = 4, classes = 1000, vocabulary = 4096, code_width = 32;
  std::vector<int64_t> scales{1, 2, 3, 4, 5, 6, 8, 10, 13, 16};
  std::string precision = "fp32", mode = "replicated", device = "cpu";
  int shards = 0;
  int64_t repeats = 10, warmup = 3, mib = 25, features = 2048;
  bool recompute = false;
};

// With what the device still had to do.
double once(at::Device device, const std::function<void()>& work) {
  const auto begin = Clock::now();
  work();
  nn::synchronise(device);
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

Times measure(const Options& options, comm::Communicator& world, at::Device device,
              const std::function<void()>& work) {
  Times times;
  for (int64_t i = 0; i < options.warmup + options.repeats; ++i) {
    world.barrier("repeat");
    const double seconds = once(device, work);
    if (i >= options.warmup) times.seconds.push_back(seconds);
  }
  return times;
}

scaling::VarShape shape_of(const Options& options) {
  return scaling::VarShape::from_depth(
      options.depth, {options.vocabulary, options.code_width, scaling::ScaleList(options.scales)},
      options.classes);
}

// A model in training on made-up tokens: time does not depend on their values.
class StepBench {
 public:
  StepBench(const Options& options, comm::Communicator& world, at::Device device, bool overlap)
      : options_(options),
        device_(device),
        shape_(shape_of(options)),
        compute_(options.precision == "bf16" ? at::kBFloat16 : at::kFloat),
        model_(shape_, {.device = device, .weights = compute_, .allocate = false}) {
    parallel_ = parallel::make_parallel(train::units_of(model_), world,
                                        {.mode = parallel::mode_named(options.mode),
                                         .shards = options.shards,
                                         .recompute = options.recompute,
                                         .overlap = overlap});
    for (const parallel::Owned& part : parallel_->owned())
      models::fill_initial(part.name, shape_, {.seed = 1}, part.first_element(), part.weight);
    parallel_->weights_changed();
    optimizer_ = std::make_unique<optim::AdamW>(parallel::owned_weights(*parallel_), optim::AdamWOptions{});
    const parallel::Share share = parallel::share_of(options.batch, world.rank(), world.size());
    rows_ = share.count();
    const int64_t L = shape_.tokens.scales.tokens();
    labels_B_ = at::randint(0, options.classes, {rows_}, at::kLong).to(device);
    teacher_BLE_ =
        at::randn({rows_, L - 1, options.code_width}, at::TensorOptions(at::kFloat)).to(device);
    targets_N_ = at::randint(0, options.vocabulary, {rows_ * L}, at::kLong).to(device);
    for (int64_t i = 0; i < rows_; ++i) ids_.push_back(share.begin + i);
  }

  void step() {
    parallel_->begin_step();
    parallel_->begin_micro(true);
    at::Tensor drop_path_SB = models::drop_path_factors(shape_, 1, steps_, ids_);
    if (drop_path_SB.defined()) drop_path_SB = nn::to_device(drop_path_SB, device_);
    const at::Tensor logits_BLV = model_.forward(labels_B_, teacher_BLE_,
                                                 {.compute = compute_,
                                                  .drop_path_SB = drop_path_SB,
                                                  .run_block = parallel::block_runner(*parallel_)});
    const nn::TokenScores scores = nn::score_tokens(logits_BLV.flatten(0, 1), targets_N_);
    const double count = static_cast<double>(options_.batch * shape_.tokens.scales.tokens());
    (scores.loss_N.sum() / count).backward();
    parallel_->finish_backward();
    const at::Tensor norm_squared = parallel_->gradient_norm_squared();
    optimizer_->step(parallel::owned_gradients(*parallel_), 1e-4, 0.05,
                     optim::guard(norm_squared, scores.loss_N.detach().sum(at::kDouble), 2.0));
    parallel_->weights_changed();
    ++steps_;
  }

  double flops() const {
    return scaling::training_flops(shape_, static_cast<double>(options_.batch));
  }
  double tokens() const {
    return static_cast<double>(options_.batch * shape_.tokens.scales.tokens());
  }
  parallel::Held held() const { return parallel_->held(); }
  double take_wait_s() {
    double seconds = 0;
    for (const nn::Interval& wait : parallel_->take_waits()) seconds += wait.seconds();
    return seconds;
  }

 private:
  const Options& options_;
  at::Device device_;
  scaling::VarShape shape_;
  at::ScalarType compute_;
  models::Var model_;
  std::unique_ptr<parallel::Parallel> parallel_;
  std::unique_ptr<optim::AdamW> optimizer_;
  at::Tensor labels_B_, teacher_BLE_, targets_N_;
  std::vector<int64_t> ids_;
  int64_t rows_ = 0, steps_ = 0;
};

nlohmann::ordered_json head(const std::string& what, const Options& options,
                            const comm::Communicator& world) {
  return {{"what", what},
          {"depth", options.depth},
          {"batch", options.batch},
          {"tokens_per_image", scaling::ScaleList(options.scales).tokens()},
          {"precision", options.precision},
          {"mode", options.mode},
          {"device", options.device},
          {"recompute", options.recompute},
          {"ranks", world.size()},
          {"threads_a_rank", at::get_num_threads()}};
}

void print(const nlohmann::ordered_json& json, const comm::Communicator& world) {
  if (world.rank() == 0) fmt::print("{}\n", json.dump());
}

void bench_step(const Options& options, comm::Communicator& world, at::Device device) {
  StepBench bench(options, world, device, /*overlap=*/true);
  const Times times = measure(options, world, device, [&] { bench.step(); });
  nlohmann::ordered_json json = head("train_step", options, world);
  json.update(times.json());
  json["tokens_per_s"] = bench.tokens() / times.median();
  json["tflops"] = bench.flops() / times.median() / 1e12;
  print(json, world);
}

// The same step with reduction during and after backward, turn by turn in one process.
void bench_overlap(const Options& options, comm::Communicator& world, at::Device device) {
  StepBench during(options, world, device, true), after(options, world, device, false);
  Times with, without;
  double wait_with = 0, wait_without = 0;
  for (int64_t i = 0; i < options.warmup + options.repeats; ++i) {
    if (i == options.warmup) wait_with = wait_without = 0;
    world.barrier("repeat");
    const double a = once(device, [&] { during.step(); });
    wait_with += during.take_wait_s();
    world.barrier("repeat");
    const double b = once(device, [&] { after.step(); });
    wait_without += after.take_wait_s();
    if (i < options.warmup) continue;
    with.seconds.push_back(a);
    without.seconds.push_back(b);
  }
  nlohmann::ordered_json json = head("overlap", options, world);
  const auto repeats = static_cast<double>(options.repeats);
  json["overlapped"] = with.json();
  json["after_backward"] = without.json();
  json["wait_ms_overlapped"] = 1e3 * wait_with / repeats;
  json["wait_ms_after_backward"] = 1e3 * wait_without / repeats;
  json["hidden_share"] = wait_without > 0 ? 1 - wait_with / wait_without : 0.0;
  json["ratio"] = without.median() / with.median();
  print(json, world);
}

// Bytes of tensors that each rank holds: those of the model and of a whole step's peak, each against the
// estimate that plans are made with. One line a rank.
void bench_memory(const Options& options, comm::Communicator& world, at::Device device) {
  nn::count_cpu_memory();
  const int64_t before = nn::held_bytes(device);
  StepBench bench(options, world, device, /*overlap=*/true);
  nn::reset_peak(device);
  for (int64_t i = 0; i < std::max<int64_t>(1, options.warmup); ++i) bench.step();
  scaling::MemoryOptions memory{
      .micro_batch = (options.batch + world.size() - 1) / world.size(),
      .precision =
          options.precision == "bf16" ? scaling::Precision::kBf16 : scaling::Precision::kFp32,
      .holding = options.mode == "replicated" ? scaling::Holding::kReplicated
                 : options.mode == "zero2"    ? scaling::Holding::kZero2
                                              : scaling::Holding::kZero3,
      .recompute = options.recompute};
  if (options.mode != "replicated")
    memory.shards = options.mode == "hybrid" ? options.shards : world.size();
  const scaling::MemoryEstimate estimate = scaling::estimate_memory(shape_of(options), memory);
  const parallel::Held held = bench.held();
  const int64_t in_pools = estimate.weights + estimate.gradients + estimate.compute_copies +
                           estimate.reduce_buffer;
  constexpr double kMib = 1 << 20;
  nlohmann::ordered_json json = head("memory", options, world);
  json["rank"] = world.rank();
  json["pool_mib"] = static_cast<double>(held.total()) / kMib;
  json["pool_estimate_mib"] = static_cast<double>(in_pools) / kMib;
  json["peak_mib"] = static_cast<double>(nn::peak_bytes(device) - before) / kMib;
  json["peak_estimate_mib"] = static_cast<double>(estimate.total()) / kMib;
  json["peak_gathered_blocks"] = held.peak_gathered_blocks;
  json["resident_mib"] = static_cast<double>(base::resident_bytes()) / kMib;
  const std::string line = json.dump();
  for (int r = 0; r < world.size(); ++r) {
    const std::string of_rank = world.broadcast_bytes(line, r, "line");
    if (world.rank() == 0) fmt::print("{}\n", of_rank);
  }
}

void bench_collectives(const Options& options, comm::Communicator& world, at::Device device) {
  const int64_t elements = (options.mib << 20) / 4 / world.size() * world.size();
  const auto floats = at::TensorOptions(at::kFloat).device(device);
  at::Tensor whole = at::ones({elements}, floats),
             part = at::ones({elements / world.size()}, floats),
             small = at::zeros({3}, at::kLong);  // of the host, as stop flags are
  const std::vector<std::pair<std::string, std::function<void()>>> calls{
      {"all_reduce", [&] { world.all_reduce(whole, comm::Reduce::kMax, "bench").wait(); }},
      {"reduce_scatter",
       [&] { world.reduce_scatter(part, whole, comm::Reduce::kMax, "bench").wait(); }},
      {"all_gather", [&] { world.all_gather(whole, part, "bench").wait(); }},
      {"broadcast", [&] { world.broadcast(whole, 0, "bench").wait(); }},
      {"all_reduce of 24 bytes",
       [&] { world.all_reduce(small, comm::Reduce::kMax, "bench").wait(); }},
      {"barrier", [&] { world.barrier("bench"); }}};
  for (const auto& [name, call] : calls) {
    nlohmann::ordered_json json{
        {"what", name}, {"mib", options.mib}, {"device", options.device}, {"ranks", world.size()}};
    json.update(measure(options, world, device, call).json());
    print(json, world);
  }
}

// Of two Gaussians that have extent in every direction, for their images are more than their features.
void bench_frechet(const Options& options, comm::Communicator& world) {
  evaluate::GaussianStatistics a(options.features), b(options.features);
  for (evaluate::GaussianStatistics* statistics : {&a, &b})
    statistics->add(at::randn({2 * options.features, options.features}, at::kDouble));
  const evaluate::Gaussian one = a.gaussian(), other = b.gaussian();
  nlohmann::ordered_json json{{"what", "frechet"},
                              {"features", options.features},
                              {"ranks", world.size()},
                              {"threads_a_rank", at::get_num_threads()}};
  json.update(measure(options, world, at::kCPU, [&] { evaluate::frechet_distance(one, other); }).json());
  print(json, world);
}

ExitCode parse_and_run(int argc, char** argv) {
  Options options;
  SampleBench sampling;
  CLI::App app("Measures training steps, collectives, sampling and Fréchet distances on this machine.", "var_bench");
  app.footer(kExamples);
  app.require_subcommand(1);
  auto* step = app.add_subcommand("step", "one training step");
  auto* overlap = app.add_subcommand("overlap", "reduction during backward against after it");
  auto* memory = app.add_subcommand("memory", "bytes held by each rank against the estimate");
  auto* collectives = app.add_subcommand("collectives", "each collective of its own");
  auto* sample = app.add_subcommand("sample", "drawing and decoding images of 256 px on the CPU, weights made up");
  sampling.add_to(*sample);
  auto* frechet = app.add_subcommand("frechet", "a Fréchet distance, once its statistics are known");
  for (CLI::App* command : {step, overlap, memory}) {
    command->add_option("--depth", options.depth, "depth of the model")->check(CLI::PositiveNumber);
    command->add_option("--batch", options.batch, "images a step over all ranks")
        ->check(CLI::PositiveNumber);
    command->add_option("--scales", options.scales, "sides of the token maps")->delimiter(',');
    command->add_option("--vocabulary", options.vocabulary, "codes")->check(CLI::PositiveNumber);
    command->add_option("--precision", options.precision, "fp32 or bf16")
        ->check(CLI::IsMember({"fp32", "bf16"}));
    command->add_option("--mode", options.mode, "replicated, zero2, zero3 or hybrid")
        ->check(CLI::IsMember({"replicated", "zero2", "zero3", "hybrid"}));
    command->add_option("--shards", options.shards, "hybrid: ranks of one group");
    command->add_flag("--recompute", options.recompute, "run each block again in backward");
  }
  collectives->add_option("--mib", options.mib, "size of the tensor")->check(CLI::PositiveNumber);
  frechet->add_option("--features", options.features, "of an image")->check(CLI::PositiveNumber);
  memory->add_option("--steps", options.warmup, "steps whose peak is taken")
      ->check(CLI::PositiveNumber);
  for (CLI::App* command : {step, overlap, memory, collectives}) {
    command->add_option("--device", options.device, "cpu, or cuda: one rank a GPU")
        ->check(CLI::IsMember({"cpu", "cuda"}));
  }
  for (CLI::App* command : {step, overlap, collectives, frechet}) {
    command->add_option("--repeats", options.repeats, "measured")->check(CLI::PositiveNumber);
    command->add_option("--warmup", options.warmup, "run before")->check(CLI::NonNegativeNumber);
  }
  if (!base::parse_command_line(app, argc, argv)) return ExitCode::kDone;
  if (sample->parsed()) {
    fmt::print("{}\n", sampling.run().dump());
    return ExitCode::kDone;
  }
  const auto world = comm::open_world();
  if (options.mode == "hybrid" && (options.shards < 1 || world->size() % options.shards != 0))
    throw UserError("--shards {}: expected a divisor of the {} ranks", options.shards,
                    world->size());
  if (frechet->parsed()) {
    bench_frechet(options, *world);
    return ExitCode::kDone;
  }
  if (options.batch < world->size())
    throw UserError("--batch {}: expected at least one image for each of the {} ranks",
                    options.batch, world->size());
  std::unique_ptr<comm::Communicator> nccl;
  if (options.device == "cuda") {
    nn::repeatable_cuda();  // as training does
    nccl = comm::open_nccl(*world);
  }
  comm::Communicator& group = nccl ? *nccl : *world;
  const at::Device device = nccl ? comm::cuda_device() : at::Device(at::kCPU);
  if (step->parsed()) bench_step(options, group, device);
  if (overlap->parsed()) bench_overlap(options, group, device);
  if (memory->parsed()) bench_memory(options, group, device);
  if (collectives->parsed()) bench_collectives(options, group, device);
  return ExitCode::kDone;
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  return varscale::base::run_main("var_bench", [&] { return varscale::parse_and_run(argc, argv); });
}
