#include "export.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "checkpoint/checkpoint.hpp"

namespace varscale::data {

void export_run(const ExportOptions& options) {
  const std::filesystem::path folder = options.run / "checkpoints";
  if (!std::filesystem::is_directory(folder)) {
    throw base::UserError("{}: has no checkpoints; expected the folder of a run, <sweep>/runs/<id>",
                          options.run.string());
  }
  const checkpoint::CheckpointFolder checkpoints(folder, /*keep=*/1);
  const std::vector<int64_t> steps = checkpoints.steps();
  if (steps.empty())
    throw base::UserError("{}: the run has no checkpoint yet", options.run.string());
  const int64_t step = options.step > 0 ? options.step : steps.back();
  if (std::find(steps.begin(), steps.end(), step) == steps.end()) {
    throw base::UserError("{}: no checkpoint of step {}; there are those of {}",
                          options.run.string(), step, fmt::join(steps, ", "));
  }
  if (options.out.has_parent_path()) base::require_writable_folder(options.out.parent_path());
  checkpoint::export_weights(checkpoints, step, options.out);
  fmt::print("{}: weights of step {}, {}\n", options.out.string(), step,
             base::format_bytes(static_cast<double>(std::filesystem::file_size(options.out))));
}

}  // namespace varscale::data
