#include "sweep/gather.hpp"

#include "base/file.hpp"
#include "tests/records/support.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

namespace fs = std::filesystem;
using base::TemporaryFolder;
using testing::HasSubstr;

Sweep sweep_in(const fs::path& folder, const std::string& depths) {
  return sweep_of("name: q\noutput: " + folder.string() + "\ndefaults: {tokens: small.h5}\nruns: [{model.depth: " +
                  depths + "}]\n");
}

Ledger open(const Sweep& sweep) {
  return Ledger::open(sweep, make_plan(sweep, Throughput("cpu"), machine_of("cpu", 1)));
}

Claim start(const Ledger& ledger, const SweepRun& run) {
  Claim claim = std::move(ledger.take(run).value());
  ledger.start(run, claim.attempt());
  return claim;
}

records::RunTables tables_of(int64_t steps) {
  records::RunTables tables;
  tables.facts = {{"depth", int64_t{1}}, {"flops_per_image", 2.5}, {"budget_images", int64_t{1000}}};
  for (int64_t step = 1; step <= steps; ++step) tables.steps.push_back(records::step_row(step));
  tables.eval.push_back(records::eval_row(steps));
  tables.scales = records::scale_rows(steps);
  return tables;
}

void save_checkpoint(const fs::path& run, const std::string& name, const records::RunTables& tables, bool complete) {
  fs::create_directories(run / "checkpoints" / name);
  records::write_run(run / "checkpoints" / name / "run.h5", tables);
  if (complete) base::write_file_atomic(run / "checkpoints" / name / "manifest.json", "{}");
}

TEST(Gather, ReadsARunInTrainingFromItsNewestCheckpoint) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1]");
  const Ledger ledger = open(sweep);
  const SweepRun& run = sweep.runs[0];
  EXPECT_FALSE(rows_of(ledger, run.id));
  const Claim claim = start(ledger, run);
  const fs::path own = ledger.run_folder(run.id);
  records::write_run(own / "run.h5", tables_of(90));  // the writer's: a reader without locks sees any state of it
  EXPECT_FALSE(rows_of(ledger, run.id));
  EXPECT_FALSE(summarise(sweep, ledger)[0].health);
  save_checkpoint(own, "step-999999999", tables_of(60), true);
  save_checkpoint(own, "step-1000000000", tables_of(70), true);
  save_checkpoint(own, "step-1000000001", tables_of(80), false);
  save_checkpoint(own, "step-1000000002.tmp-7", tables_of(85), true);
  EXPECT_EQ(rows_of(ledger, run.id)->steps.size(), 70u);
  base::write_file_atomic(own / "checkpoints/step-1000000000/run.h5", "cut");
  EXPECT_EQ(rows_of(ledger, run.id)->steps.size(), 60u);
  const std::string table = summary_table("q", summarise(sweep, ledger));
  EXPECT_THAT(table, HasSubstr("4.7500"));
  EXPECT_THAT(table, HasSubstr("health"));

  ledger.stop(run, claim.attempt(), 90);
  EXPECT_EQ(rows_of(ledger, run.id)->steps.size(), 90u);
  base::write_file_atomic(own / "run.h5", "damaged by a kill");
  EXPECT_EQ(rows_of(ledger, run.id)->steps.size(), 60u);
}

// A spike at step 55 and an update skipped at 56.
TEST(Gather, StatusShowsHealth) {
  const TemporaryFolder folder;
  const Sweep sweep = sweep_in(folder.path(), "[1, 2]");
  const Ledger ledger = open(sweep);
  const Claim claim = start(ledger, sweep.runs[0]);
  records::RunTables tables = tables_of(60);
  for (records::StepRow& row : tables.steps) row.loss_mean = 5, row.busy_min_s = row.busy_max_s;
  tables.steps[54].loss_mean = 6;
  tables.steps[55].skipped = 1;
  records::write_run(ledger.run_folder(sweep.runs[0].id) / "run.h5", tables);
  ledger.finish(sweep.runs[0], claim.attempt());
  const auto rows = summarise(sweep, ledger);
  EXPECT_THAT(summary_table("q", rows), HasSubstr("1 skipped, 1 spike (step 55)"));
  const auto json = summary_json("q", rows);
  EXPECT_EQ(json["runs"][0]["health"]["last_spike"], 55);
  EXPECT_EQ(json["runs"][0]["health"]["skipped"], 1);
  EXPECT_TRUE(json["runs"][1]["health"].is_null());
}

// A finished run, one that is planned, and one that is no longer in the file.
class GatheredSweep : public testing::Test {
 protected:
  void SetUp() override {
    const Sweep before = sweep_in(folder_.path(), "[1, 2]");
    const Ledger ledger = open(before);
    for (size_t i = 0; i < 2; ++i) {
      const Claim claim = start(ledger, before.runs[i]);
      records::RunTables tables = tables_of(10);
      tables.steps[3].loss_mean = 0.1;  // seventeen digits
      records::write_run(ledger.run_folder(before.runs[i].id) / "run.h5", tables);
      ledger.finish(before.runs[i], claim.attempt());
    }
    gone_ = before.runs[0].id;
  }
  TemporaryFolder folder_;
  std::string gone_;
};

TEST_F(GatheredSweep, HasOneRowAndOneLinkARun) {
  const Sweep sweep = sweep_in(folder_.path(), "[2, 3]");
  const Ledger ledger = open(sweep);
  write_sweep_file(sweep, ledger);
  EXPECT_EQ(records::run_python(R"(
import sys, h5py
with h5py.File(sys.argv[1]) as file:
    summary = {row["id"].decode(): row for row in file["summary"][:]}
    done, planned, orphan = (row for row in file["summary"][:])
    assert [row["state"] for row in (done, planned, orphan)] == [b"done", b"planned", b"orphan"]
    assert sorted(file["runs"]) == sorted(row["id"].decode() for row in (done, orphan))
    assert len(file["runs"][done["id"].decode()]["steps"]) == 10
    assert done["depth"] == 2 and done["flops"] > 0 and done["loss_mean"] == 4.75 and done["parameters"] > 0
    assert planned["steps"] > 0 and planned["step"] == 0 and planned["loss_mean"] != planned["loss_mean"]
    assert orphan["depth"] == 1 and orphan["flops"] == 2500 and orphan["seed"] == -1
print("read")
)",
                                folder_ / "sweep.h5"),
            "read\n");
}

TEST_F(GatheredSweep, CsvIsWhatH5pyReads) {
  const Sweep sweep = sweep_in(folder_.path(), "[2, 3]");
  const Ledger ledger = open(sweep);
  write_sweep_file(sweep, ledger);
  EXPECT_EQ(export_csv(sweep, ledger, folder_ / "csv"), 2);
  EXPECT_EQ(records::run_python(R"(
import pathlib, sys, h5py, numpy as np, pandas as pd
folder = pathlib.Path(sys.argv[1])
read = lambda name: pd.read_csv(folder / "csv" / name, float_precision="round_trip")
names = sorted(path.name for path in (folder / "csv").iterdir())
with h5py.File(folder / "sweep.h5") as file:
    summary, table = read("summary.csv"), file["summary"][:]
    assert list(summary.columns) == list(table.dtype.names)
    for name in summary.columns:
        expected = [value.decode() for value in table[name]] if table[name].dtype.kind == "S" else table[name]
        if table[name].dtype.kind == "i":
            expected = [np.nan if value < 0 else value for value in expected]
        assert summary[name].fillna(-7).tolist() == pd.Series(expected).replace("", np.nan).fillna(-7).tolist(), name
    assert names == sorted(["summary.csv"] + [f"{run}_{table}.csv" for run in file["runs"] for table in ("steps", "eval", "scales")])
    for run in file["runs"]:
        for table in ("steps", "eval", "scales"):
            frame = pd.DataFrame(file["runs"][run][table][:])
            pd.testing.assert_frame_equal(read(f"{run}_{table}.csv"), frame, check_exact=True, check_dtype=False)
print("equal")
)",
                                folder_.path()),
            "equal\n");
}

TEST_F(GatheredSweep, CsvNeedsAFolderThatCanBeWritten) {
  const Sweep sweep = sweep_in(folder_.path(), "[2]");
  const Ledger ledger = open(sweep);
  folder_.write("blocker", "a file");
  EXPECT_THROW(export_csv(sweep, ledger, folder_ / "blocker/csv"), base::UserError);
}

}  // namespace
}  // namespace varscale::sweep
