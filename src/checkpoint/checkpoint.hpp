// Saved states of a run: complete or absent, readable at any number of ranks and in any mode.
//
//   CheckpointFolder checkpoints(run_folder / "checkpoints", /*keep=*/2);
//   if (auto step = checkpoints.latest()) checkpoints.load(*step, expected, pieces);
//
// Writing is in checkpoint/saver.hpp.
//
// Layout   step-000001000/manifest.json, rank-00000.safetensors ... (weights as "param.<name>", moments
//          as "exp_avg.<name>" and "exp_avg_sq.<name>"; each file holds ranges of rows, which the
//          manifest lists), run.h5 (the rows so far, in the form of the program that writes them).
// Order    Written beside its place, fsynced, renamed; then older ones are pruned. A folder without
//          a manifest is an unfinished write and is ignored.
// Errors   UserError naming the folder: another run's checkpoint, a file that is missing, truncated
//          or of another checksum, a tensor of another shape or with rows missing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "nn/tensor.hpp"
#include "records/checkpoint_manifest.hpp"
#include "records/checkpoint_place.hpp"
#include "records/run_file.hpp"

namespace varscale::checkpoint {

using at::Tensor;

// Names inside a checkpoint's folder.
inline constexpr int64_t kSchema = records::kCheckpointSchema;
inline constexpr const char* kManifest = records::kCheckpointManifest;
inline constexpr const char* kRows = records::kCheckpointRows;

// What a checkpoint says of itself besides tensors.
struct Identity {
  std::string run_id;
  std::string config_hash;  // of everything that changes the numbers
};

// Rows [begin, end) of axis `axis` of a tensor of this shape; the axes before have length 1, so the
// rows are one range in memory.
struct Piece {
  std::string name;
  std::vector<int64_t> shape;  // of the whole tensor
  int64_t axis = 0, begin = 0, end = 0;
  Tensor tensor;  // contiguous, the shape with `axis` cut to end - begin
};

struct Position {
  int64_t step = 0, segment = 0;
};

// Which checkpoints stay: so many of the newest, and for ever those of some steps.
struct Keep {
  Keep(int64_t newest, std::set<int64_t> steps = {}) : newest(newest), steps(std::move(steps)) {}
  int64_t newest;
  std::set<int64_t> steps;
};

class CheckpointFolder {
 public:
  CheckpointFolder(std::filesystem::path folder, Keep keep)
      : folder_(std::move(folder)), keep_(std::move(keep)) {}

  // Steps of the complete checkpoints, ascending.
  std::vector<int64_t> steps() const;
  std::optional<int64_t> latest() const;

  // Fills the pieces, whoever wrote them, and returns where the run stood. `expected` must be the
  // checkpoint's own.
  Position load(int64_t step, const Identity& expected, const std::vector<Piece>& pieces) const;
  // Only the weights ("param." + name), whatever the run: for sampling.
  void load_weights(int64_t step, const nn::NamedTensors& parameters) const;
  // Every tensor, put together, in float32 on the CPU.
  nn::NamedTensors tensors(int64_t step) const;
  // Of a run of var_sweep.
  records::RunTables rows(int64_t step) const { return records::read_run(rows_file(step)); }
  std::filesystem::path rows_file(int64_t step) const { return path_of(step) / kRows; }
  nlohmann::json manifest(int64_t step) const;
  std::filesystem::path path_of(int64_t step) const;

  // Removes all but those to keep, and what kills have left.
  void prune() const;

 private:
  void fill(int64_t step, const nlohmann::json& manifest, const std::vector<Piece>& pieces) const;
  std::filesystem::path folder_;
  Keep keep_;
};

// The whole of each tensor, under a prefixed name.
std::vector<Piece> whole_pieces(const std::string& prefix, const nn::NamedTensors& tensors);

// Name of a rank's file inside a checkpoint's folder.
std::string rank_file(int rank);
// Bytes and SHA-256, as the manifest has them.
nlohmann::json file_facts(const std::filesystem::path& file);

}  // namespace varscale::checkpoint
