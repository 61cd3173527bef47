// Where a run's checkpoints lie, for those who look without loading: <run>/checkpoints/step-000001000.
//
//   if (has_checkpoint(ledger.run_folder(id), 1000)) ...
//   for (int64_t step : checkpoint_steps(run / "checkpoints")) ...
//
// What they hold is in checkpoint/checkpoint.hpp. A folder without a manifest is none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace varscale::records {

inline constexpr const char* kCheckpoints = "checkpoints";       // in a run's folder
inline constexpr const char* kCheckpointManifest = "manifest.json";  // in a checkpoint's

// `checkpoints` is the folder of all of a run's.
std::filesystem::path checkpoint_place(const std::filesystem::path& checkpoints, int64_t step);
// Of the complete ones, ascending; none where there is no such folder.
std::vector<int64_t> checkpoint_steps(const std::filesystem::path& checkpoints);
bool is_checkpoint(const std::filesystem::path& folder);

bool has_checkpoint(const std::filesystem::path& run, int64_t step);

}  // namespace varscale::records
