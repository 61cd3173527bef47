#include "records/sweep_file.hpp"

#include <gtest/gtest.h>

#include "support.hpp"

namespace varscale::records {
namespace {

std::vector<SweepFileRow> two_rows() {
  return {{.id = "d4-s0-1f3a9c", .role = "main", .state = "done", .depth = 4, .seed = 0, .parameters = 12345,
           .flops = 1.5e15, .images = 160, .step = 10, .steps = 10, .loss_mean = 4.75, .loss_tail = 5.25,
           .err_mean = 0.9, .err_tail = 0.95},
          {.id = "d16-s1-000000", .role = "data", .state = "planned", .depth = 16, .seed = 1}};
}

TEST(SweepFile, H5pyFollowsItsLinksFromAnywhere) {
  const TemporaryFolder folder;
  RunTables tables;
  tables.facts = facts();
  tables.steps = {step_row(1), step_row(2)};
  std::filesystem::create_directories(folder / "runs/d4-s0-1f3a9c");
  write_run(folder / "runs/d4-s0-1f3a9c/run.h5", tables);
  write_sweep_file(folder / "sweep.h5", two_rows());
  EXPECT_EQ(run_python(R"(
import os, sys, h5py, numpy as np
os.chdir("/")
with h5py.File(sys.argv[1]) as file:
    assert list(file["runs"]) == ["d4-s0-1f3a9c"], list(file["runs"])
    link = file["runs"].get("d4-s0-1f3a9c", getlink=True)
    assert link.filename == "runs/d4-s0-1f3a9c/run.h5" and link.path == "/", link.filename
    run = file["runs/d4-s0-1f3a9c"]
    assert run["steps"]["step"].tolist() == [1, 2] and run.attrs["depth"] == 4
    summary = file["summary"][:]
    assert file.attrs["schema_version"] == 1
assert summary.dtype.names == ("id", "role", "state", "depth", "seed", "parameters", "flops", "images", "step",
    "steps", "loss_mean", "loss_tail", "err_mean", "err_tail"), summary.dtype.names
assert summary["id"].tolist() == [b"d4-s0-1f3a9c", b"d16-s1-000000"]
assert summary["state"].tolist() == [b"done", b"planned"] and summary["role"].tolist() == [b"main", b"data"]
assert summary["depth"].tolist() == [4, 16] and summary["seed"].tolist() == [0, 1]
assert summary["parameters"].tolist() == [12345, -1] and summary["images"].tolist() == [160, -1]
assert summary["step"].tolist() == [10, -1] and summary["steps"].tolist() == [10, -1]
assert list(summary[0])[6:7] + list(summary[0])[10:] == [1.5e15, 4.75, 5.25, 0.9, 0.95]
assert all(np.isnan(value) for value in [*list(summary[1])[10:], summary[1]["flops"]])
print("read")
)",
                       folder / "sweep.h5"),
            "read\n");
}

TEST(SweepFile, MovesWithItsFolder) {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "old/runs/d4-s0-1f3a9c");
  write_run(folder / "old/runs/d4-s0-1f3a9c/run.h5", {});
  write_sweep_file(folder / "old/sweep.h5", two_rows());
  std::filesystem::rename(folder / "old", folder / "new");
  EXPECT_EQ(run_python(R"(
import sys, h5py
print(len(h5py.File(sys.argv[1])["runs/d4-s0-1f3a9c/steps"]))
)",
                       folder / "new/sweep.h5"),
            "0\n");
}

TEST(SweepFile, ReplacesTheOldOneAndTakesNoRows) {
  const TemporaryFolder folder;
  folder.write("sweep.h5", "not HDF5");
  write_sweep_file(folder / "sweep.h5", {});
  EXPECT_EQ(folder.entries(), 1);
  EXPECT_EQ(run_python("import sys, h5py\nprint(len(h5py.File(sys.argv[1])['summary']))\n", folder / "sweep.h5"), "0\n");
}

}  // namespace
}  // namespace varscale::records
