// A VAR model in training on made-up tokens: time does not depend on their values.
#pragma once

#include <CLI/App.hpp>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "apps/bench/bench.hpp"
#include "apps/bench/options.hpp"
#include "apps/bench/place.hpp"
#include "models/var/model.hpp"
#include "optim/adamw.hpp"
#include "parallel/parallel.hpp"
#include "scaling/memory.hpp"
#include "train/recorded_update.hpp"

namespace varscale::bench {

struct TrainingOptions {
  int64_t depth = 4, batch = 4, classes = 1000, vocabulary = 4096, code_width = 32;
  std::vector<int64_t> scales{1, 2, 3, 4, 5, 6, 8, 10, 13, 16};
  std::string mode = "replicated", recompute = "none", device = "cpu";
  Precision precision;
  int shards = 0;

  void add_to(CLI::App& command);
  scaling::VarShape shape() const;
  // What one rank of so many holds by the estimate.
  scaling::MemoryEstimate memory(int ranks) const;
  // What was run, as the first fields of a result.
  nlohmann::ordered_json head(const std::string& what, const comm::Communicator& ranks) const;
};

class Training {
 public:
  // overlap: gradients are reduced during backward. UserError: fewer images than ranks, groups that do not divide the ranks.
  Training(const TrainingOptions& options, const Place& place, bool overlap = true);
  void step();
  // Further steps are one recorded launch each; of a rank in a place that is alone().
  void record();
  // The two halves of a step: up to the loss of this rank's rows, and from it to the new weights.
  at::Tensor forward() { return loss_of(drop_path_factors()); }
  void backward(const at::Tensor& loss);
  double flops() const;   // of a step over all ranks
  double tokens() const;  // likewise
  int64_t rows() const { return rows_; }  // images of this rank
  parallel::Held held() const { return parallel_->held(); }
  // Seconds that this rank has waited for others since the last call.
  double take_wait_s();

 private:
  static constexpr double kRate = 1e-4;
  at::Tensor drop_path_factors() const;  // of the next step, on the device; may be undefined
  at::Tensor loss_of(const at::Tensor& drop_path_SB);
  void update(const at::Tensor& loss, const auto& lr);

  const TrainingOptions& options_;
  at::Device device_;
  scaling::VarShape shape_;
  models::Var model_;
  std::unique_ptr<parallel::Parallel> parallel_;
  std::unique_ptr<optim::AdamW> optimizer_;
  std::optional<train::RecordedUpdate> recorded_;
  at::Tensor labels_B_, teacher_BLE_, targets_N_;
  std::vector<int64_t> ids_;
  int64_t rows_ = 0, steps_ = 0;
};

// A subcommand that trains, some number of times.
class TrainingBench : public Bench {
 protected:
  CLI::App& add_command(CLI::App& app, const std::string& name, const std::string& what) {
    CLI::App& command = *app.add_subcommand(name, what);
    options_.add_to(command);
    repeats_.add_to(command);
    return command;
  }

  TrainingOptions options_;
  Repeats repeats_;
};

}  // namespace varscale::bench
