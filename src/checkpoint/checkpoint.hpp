// Saved states of a run: complete or absent, readable at any number of ranks.
//
//   CheckpointFolder checkpoints(run_folder / "checkpoints", /*keep=*/2);
//   checkpoints.save(state, world);                       // collective
//   if (auto step = checkpoints.latest()) checkpoints.load(*step, expected, targets);
//
// Layout   step-000001000/manifest.json, rank-00000.safetensors (weights as "param.<name>", moments
//          as "exp_avg.<name>" and "exp_avg_sq.<name>"), run.h5 (the rows so far).
// Order    Written beside its place, fsynced, renamed; then older ones are pruned. A folder without
//          a manifest is an unfinished write and is ignored.
// Errors   UserError naming the folder: another run's checkpoint, a file that is missing, truncated
//          or of another checksum, a tensor of another shape.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "comm/communicator.hpp"
#include "nn/tensor.hpp"
#include "records/run_file.hpp"

namespace varscale::checkpoint {

// What a checkpoint says of itself besides tensors.
struct Identity {
  std::string run_id;
  std::string config_hash;  // of everything that changes the numbers
};

struct State {
  Identity identity;
  int64_t step = 0;     // updates taken
  int64_t segment = 0;  // of the process that saved it
  nn::NamedTensors tensors;
  records::RunTables rows;
};

struct Position {
  int64_t step = 0, segment = 0;
};

class CheckpointFolder {
 public:
  CheckpointFolder(std::filesystem::path folder, int64_t keep)
      : folder_(std::move(folder)), keep_(keep) {}

  // Collective. The first rank writes; a failure there is raised on every rank.
  void save(const State& state, comm::Communicator& world) const;

  // Steps of the complete checkpoints, ascending.
  std::vector<int64_t> steps() const;
  std::optional<int64_t> latest() const;

  // Fills `targets` by name and returns where the run stood. `expected` must be the checkpoint's
  // own.
  Position load(int64_t step, const Identity& expected, const nn::NamedTensors& targets) const;
  // Only the weights ("param." + name), whatever the run: for sampling and export.
  void load_weights(int64_t step, const nn::NamedTensors& parameters) const;
  records::RunTables rows(int64_t step) const;
  nlohmann::json manifest(int64_t step) const;
  std::filesystem::path path_of(int64_t step) const;

 private:
  void write(const State& state) const;
  void check_files(int64_t step, const nlohmann::json& manifest) const;
  void prune() const;
  std::filesystem::path folder_;
  int64_t keep_;
};

// The same tensors under prefixed names.
nn::NamedTensors with_prefix(const std::string& prefix, const nn::NamedTensors& tensors);

}  // namespace varscale::checkpoint
