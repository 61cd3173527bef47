#include "records/checkpoint_place.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

namespace varscale::records {

namespace {

// The step of a folder named step-000001000; nothing for any other name.
std::optional<int64_t> step_of(const std::filesystem::path& folder) {
  constexpr std::string_view kPrefix = "step-";
  const std::string name = folder.filename().string();
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [stopped, error] = std::from_chars(name.data() + kPrefix.size(), end, step);
  if (error != std::errc() || stopped != end || step < 0) return std::nullopt;
  return step;
}

}  // namespace

std::filesystem::path checkpoint_place(const std::filesystem::path& checkpoints, int64_t step) {
  return checkpoints / fmt::format("step-{:09}", step);
}

bool is_checkpoint(const std::filesystem::path& folder) {
  return step_of(folder) && std::filesystem::exists(folder / kCheckpointManifest);
}

std::vector<int64_t> checkpoint_steps(const std::filesystem::path& checkpoints) {
  std::vector<int64_t> steps;
  if (!std::filesystem::is_directory(checkpoints)) return steps;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoints)) {
    if (is_checkpoint(entry.path())) steps.push_back(*step_of(entry.path()));
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

bool has_checkpoint(const std::filesystem::path& run, int64_t step) {
  std::error_code error;  // a folder that cannot be read has none
  return std::filesystem::exists(checkpoint_place(run / kCheckpoints, step) / kCheckpointManifest, error);
}

}  // namespace varscale::records
