// sweep.h5: the runs of a sweep in one file.
//
//   write_sweep_file("results/depth/sweep.h5", rows);
//   h5py: file["runs/d5-s0-1f3a9c/steps"], file["summary"]
//
// Layout   /runs/<id>: an external link to the root of runs/<id>/run.h5 beside the file, for every run that
//          has one now. /summary: 1-D compound table, one row a run; texts of fixed length, padded with zero
//          bytes. Attribute schema_version is 1.
// Locks    A link opens only while nobody writes the run.h5 that it leads to.
// Errors   SystemError: I/O; the old file stays.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

namespace varscale::records {

// Counts that are not known are -1, numbers NaN.
struct SweepFileRow {
  static constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();
  std::string id, role, state;
  int64_t depth = -1, seed = -1, parameters = -1;
  double flops = kUnknown;                          // training FLOPs of the whole budget
  int64_t images = -1, step = -1, steps = -1;       // budget; updates taken, of so many
  double loss_mean = kUnknown, loss_tail = kUnknown, err_mean = kUnknown, err_tail = kUnknown;  // last validation
};

void write_sweep_file(const std::filesystem::path& path, const std::vector<SweepFileRow>& rows);

}  // namespace varscale::records
