#include "records/run_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

#include "support.hpp"

namespace varscale::records {
namespace {

using base::UserError;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

template <class Row>
void expect_same_rows(const std::vector<Row>& a, const std::vector<Row>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(std::memcmp(&a[i], &b[i], sizeof(Row)), 0) << i;
}

void expect_same(const RunTables& a, const RunTables& b) {
  EXPECT_EQ(a.facts, b.facts);
  expect_same_rows(a.steps, b.steps);
  expect_same_rows(a.eval, b.eval);
  expect_same_rows(a.scales, b.scales);
}

// 2,500 steps, so that tables span several chunks; an evaluation every 500.
RunTables example() {
  RunTables tables;
  tables.facts = facts();
  for (int64_t step = 1; step <= 2500; ++step) {
    tables.steps.push_back(step_row(step));
    if (step % 500 != 0) continue;
    tables.eval.push_back(eval_row(step));
    for (const ScaleRow& row : scale_rows(step)) tables.scales.push_back(row);
  }
  return tables;
}

TEST(RunFile, ReadsBackEveryBitThatWasAppended) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  RunTables expected = example();
  expected.steps[7].loss_mean = std::numeric_limits<double>::quiet_NaN();
  expected.steps[8].grad_norm = std::numeric_limits<double>::infinity();
  {
    RunFile run = RunFile::create(path, expected.facts);
    for (const StepRow& row : expected.steps) {
      run.append(row);
      if (row.step % 500 == 0) append_evaluation(run, eval_row(row.step), scale_rows(row.step));
      if (row.step % 77 == 0) run.flush();
    }
    expect_same(run.tables(), expected);
    run.sync();
    expect_same(read_run(path), expected);  // also while this process still has it open
    run.set_fact("depth", int64_t{5});
    run.set_fact("final_loss", 4.25);
  }
  expected.facts["depth"] = int64_t{5};
  expected.facts["final_loss"] = 4.25;
  expect_same(read_run(path), expected);
}

TEST(RunFile, ItsDestructorWritesWhatWasNotFlushed) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  { RunFile::create(path, {}).append(step_row(1)); }
  EXPECT_EQ(read_run(path).steps.size(), 1u);
  RunFile first = RunFile::create(path, {});
  first.append(step_row(1));
  first = RunFile::create(folder / "other.h5", {});  // the assigned-to file is completed and closed
  EXPECT_EQ(read_run(path).steps.size(), 1u);
}

TEST(RunFile, RecreateContinuesARunAfterItsLastRow) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  write_run(path, example());
  RunTables kept = read_run(path);
  kept.steps.resize(1000);  // a checkpoint of step 1000
  kept.eval.resize(2);
  kept.scales.resize(6);
  {
    RunFile run = RunFile::recreate(path, kept);
    run.append(step_row(1001));
  }
  kept.steps.push_back(step_row(1001));
  expect_same(read_run(path), kept);
}

TEST(RunFile, RefusesRowsOutOfOrder) {
  const TemporaryFolder folder;
  RunFile run = RunFile::create(folder / "run.h5", {});
  run.append(step_row(5));
  EXPECT_THROW(run.append(step_row(5)), base::InvariantError);
  append_evaluation(run, eval_row(5), scale_rows(5));
  append_evaluation(run, eval_row(5), {});  // the subset and the whole set at one step
  EXPECT_THROW(append_evaluation(run, eval_row(4), {}), base::InvariantError);
  EXPECT_THROW(append_evaluation(run, eval_row(6), scale_rows(7)), base::InvariantError);
  EXPECT_THROW(run.set_fact("schema_version", int64_t{3}), base::InvariantError);
}

TEST(RunFile, WriteRunReplacesTheOldFileAndLeavesNothingBeside) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  base::write_file_atomic(path, "not HDF5");
  write_run(path, example());
  expect_same(read_run(path), example());
  EXPECT_EQ(folder.entries(), 1);
  RunTables wrong = example();
  wrong.steps[3].step = 1;
  EXPECT_THROW(write_run(path, wrong), base::InvariantError);
  EXPECT_EQ(folder.entries(), 1);
  expect_same(read_run(path), example());
}

// HDF5 stamps objects with the second in which they are made unless it is told not to.
TEST(RunFile, EqualRowsAreEqualBytesInAnotherSecond) {
  const TemporaryFolder folder;
  write_run(folder / "one.h5", example());
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));
  write_run(folder / "two.h5", example());
  EXPECT_EQ(base::read_file(folder / "one.h5"), base::read_file(folder / "two.h5"));
}

TEST(RunFile, PandasAndH5pyReadTheSameTables) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  {
    RunFile run = RunFile::create(path, facts());
    for (int64_t step = 1; step <= 1500; ++step) run.append(step_row(step));
    append_evaluation(run, eval_row(1500), scale_rows(1500));
  }
  EXPECT_EQ(run_python(R"(
import sys, h5py, pandas as pd
path = sys.argv[1]
steps = pd.read_hdf(path, "steps")
assert list(steps.columns) == ["step", "segment", "images", "tokens", "flops", "lr", "loss_mean", "loss_tail",
    "err_mean", "err_tail", "grad_norm", "skipped", "step_s", "busy_min_s", "busy_max_s", "slowest_rank",
    "data_wait_s", "comm_wait_s", "memory_bytes", "tokens_per_s", "tflops", "mfu"], steps.columns
assert str(steps.step.dtype) == "int64" and str(steps.lr.dtype) == "float64"
assert (steps.step.values == range(1, 1501)).all() and steps.loss_mean[99] == 5 - 0.01 * 100
assert pd.read_hdf(path, "eval").val_images[0] == 500
assert pd.read_hdf(path, "scales").loss.tolist() == [4.0, 4.5, 5.1]
with h5py.File(path) as file:
    assert file["steps"].chunks == (1024,) and (pd.DataFrame(file["steps"][:]) == steps).all().all()
    facts = dict(file.attrs)
assert facts["depth"] == 4 and facts["lr_peak"] == 6e-3 / 7 and facts["schema_version"] == 2
assert facts["role"] == "main" and facts["note"] == "Tiefe λ, ε = 0.1" and facts["empty"] == ""
print("read")
)",
                       path),
            "read\n");
}

TEST(RunFile, CsvHasFieldNamesAndDoublesThatReadBackExactly) {
  const TemporaryFolder folder;
  RunTables tables = example();
  tables.steps.resize(3);
  tables.steps[1].lr = 0.1;
  tables.scales.resize(2);
  export_csv(tables, folder / "csv");
  const std::string steps = base::read_file(folder / "csv/steps.csv");
  EXPECT_THAT(steps,
              testing::StartsWith(
                  "step,segment,images,tokens,flops,lr,loss_mean,loss_tail,err_mean,err_tail,"
                  "grad_norm,skipped,step_s,busy_min_s,busy_max_s,slowest_rank,data_wait_s,"
                  "comm_wait_s,memory_bytes,tokens_per_s,tflops,mfu\n1,1,16,480,1000000000,"));
  EXPECT_THAT(steps, HasSubstr("\n2,1,32,960,2000000000,0.10000000000000001,"));
  EXPECT_EQ(base::read_file(folder / "csv/scales.csv"),
            "step,scale,loss,err\n500,0,4,0.5\n500,1,4.5,0.75\n");
  EXPECT_THAT(
      base::read_file(folder / "csv/eval.csv"),
      testing::StartsWith("step,segment,images,tokens,flops,lr,loss_mean,loss_tail,err_mean,"
                          "err_tail,val_images,whole_set,eval_s\n500,1,8000,"));
  EXPECT_EQ(run_python(R"(
import sys, pandas as pd
print(pd.read_csv(sys.argv[1], float_precision="round_trip").lr.tolist() == [1e-3, 0.1, 1e-3 / 3])
)",
                       folder / "csv/steps.csv"),
            "True\n");
}

// --- malformed files: each becomes one sentence with the file's name -----------------------------

// Puts a table with one column of `type` in the place of /steps.
void replace_steps(hid_t file, const char* column, hid_t type) {
  H5Ldelete(file, "steps", H5P_DEFAULT);
  const hsize_t count = 2;
  const hid_t space = H5Screate_simple(1, &count, nullptr);
  const hid_t row = H5Tcreate(H5T_COMPOUND, H5Tget_size(type));
  H5Tinsert(row, column, 0, type);
  H5Dclose(H5Dcreate2(file, "steps", row, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  H5Tclose(row);
  H5Sclose(space);
}

const Damage kDamages[] = {
    {"Absent", [](const auto& path) { std::filesystem::remove(path); }, "no such file"},
    {"AFolder",
     [](const auto& path) {
       std::filesystem::remove(path);
       std::filesystem::create_directory(path);
     },
     "is not a file"},
    {"Empty", [](const auto& path) { std::filesystem::resize_file(path, 0); }, "not an HDF5 file"},
    {"AText", [](const auto& path) { base::write_file_atomic(path, "step,loss\n1,2\n"); },
     "not an HDF5 file"},
    {"Truncated",
     [](const auto& path) {
       std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
     },
     "truncated file"},
    {"NoSchemaVersion",
     [](const auto& path) { edit(path, [](hid_t file) { H5Adelete(file, "schema_version"); }); },
     "schema_version is missing"},
    {"AnotherSchemaVersion",
     [](const auto& path) {
       edit(path, [](hid_t file) {
         const hid_t attribute = H5Aopen(file, "schema_version", H5P_DEFAULT);
         const int64_t version = 1;
         H5Awrite(attribute, H5T_NATIVE_INT64, &version);
         H5Aclose(attribute);
       });
     },
     "schema_version is 1; this program reads 2"},
    {"AnAttributeWithManyValues",
     [](const auto& path) {
       edit(path, [](hid_t file) {
         const hsize_t count = 3;
         const hid_t space = H5Screate_simple(1, &count, nullptr);
         H5Aclose(H5Acreate2(file, "odd", H5T_STD_I64LE, space, H5P_DEFAULT, H5P_DEFAULT));
         H5Sclose(space);
       });
     },
     "attribute odd has more than one value"},
    {"NoEvalTable",
     [](const auto& path) { edit(path, [](hid_t file) { H5Ldelete(file, "eval", H5P_DEFAULT); }); },
     "table /eval is missing"},
    {"AGroupForATable",
     [](const auto& path) {
       edit(path, [](hid_t file) {
         H5Ldelete(file, "scales", H5P_DEFAULT);
         H5Gclose(H5Gcreate2(file, "scales", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
       });
     },
     "/scales cannot be opened as a table"},
    {"AMissingColumn",
     [](const auto& path) {
       edit(path, [](hid_t file) { replace_steps(file, "step", H5T_STD_I64LE); });
     },
     "table /steps has no column segment"},
    {"AColumnOfAnotherType",
     [](const auto& path) {
       edit(path, [](hid_t file) { replace_steps(file, "step", H5T_IEEE_F32LE); });
     },
     "column step of table /steps is not a 64-bit integer"},
    {"APlainArrayForATable",
     [](const auto& path) {
       edit(path, [](hid_t file) {
         H5Ldelete(file, "steps", H5P_DEFAULT);
         const hsize_t count = 2;
         const hid_t space = H5Screate_simple(1, &count, nullptr);
         H5Dclose(H5Dcreate2(file, "steps", H5T_IEEE_F64LE, space, H5P_DEFAULT, H5P_DEFAULT,
                             H5P_DEFAULT));
         H5Sclose(space);
       });
     },
     "/steps is not a one-dimensional compound table"},
    {"AnIndexOfSmallChunks",
     [](const auto& path) {
       std::string bytes = base::read_file(path);
       const size_t tree = bytes.find("TREE");
       ASSERT_NE(tree, std::string::npos);
       ASSERT_EQ(bytes[tree + 26], '\x02');  // 0x2c000: 1024 rows of 176 bytes
       bytes[tree + 26] = 0;
       base::write_file_atomic(path, bytes);
     },
     "the index of table /"},
    {"ADamagedCollectionOfTexts",
     [](const auto& path) {
       std::string bytes = base::read_file(path);
       const size_t collection = bytes.find("GCOL");
       ASSERT_NE(collection, std::string::npos);
       bytes[collection + 24] = '\x84';  // the low byte of the first text's length
       bytes[collection + 25] = '\x7f';
       base::write_file_atomic(path, bytes);
     },
     "its collection of texts at byte"},
    {"AnAttributeThatCannotBeDecoded",
     [](const auto& path) {
       std::string bytes = base::read_file(path);
       const size_t name = bytes.find(std::string("depth\0", 6));
       ASSERT_NE(name, std::string::npos);
       bytes[name + 6] = '\x7f';  // class and version of its type
       base::write_file_atomic(path, bytes);
     },
     "its attributes cannot be read"},
    {"ATableLongerThanItsData",
     [](const auto& path) {
       edit(path, [](hid_t file) {
         const hid_t table = H5Dopen2(file, "steps", H5P_DEFAULT);
         const hsize_t length = hsize_t{1} << 50;
         H5Dset_extent(table, &length);
         H5Dclose(table);
       });
     },
     "the file is damaged"},
};

class DamagedRunFile : public testing::TestWithParam<Damage> {};

TEST_P(DamagedRunFile, IsNamedInOneSentence) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  write_run(path, example());
  GetParam().apply(path);
  testing::internal::CaptureStderr();
  EXPECT_THAT(
      [&] { read_run(path); },
      ThrowsMessage<UserError>(AllOf(HasSubstr(path.string()), HasSubstr(GetParam().sentence))));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "") << "HDF5 printed its error stack";
}

INSTANTIATE_TEST_SUITE_P(All, DamagedRunFile, testing::ValuesIn(kDamages),
                         [](const auto& info) { return info.param.name; });

TEST(RunFile, AStepThatGoesBackIsNamedWithItsRow) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  RunTables tables = example();
  write_run(path, tables);
  edit(path, [](hid_t file) {
    const hid_t table = H5Dopen2(file, "steps", H5P_DEFAULT);
    const hid_t type = H5Tcreate(H5T_COMPOUND, 8);
    H5Tinsert(type, "step", 0, H5T_NATIVE_INT64);
    std::vector<int64_t> steps(2500);
    for (size_t i = 0; i < steps.size(); ++i) steps[i] = static_cast<int64_t>(i) + 1;
    steps[17] = 3;
    H5Dwrite(table, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, steps.data());
    H5Tclose(type);
    H5Dclose(table);
  });
  EXPECT_THAT(
      [&] { read_run(path); },
      ThrowsMessage<UserError>(HasSubstr("row 17 of table /steps has step 3 after step 17")));
}

TEST(RunFile, AZeroTailAsAKillLeavesItIsNotReadAsRows) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  const RunTables tables = example();
  write_run(path, tables);
  edit(path, [](hid_t file) {  // extended, rows never written
    const hid_t table = H5Dopen2(file, "steps", H5P_DEFAULT);
    const hsize_t length = 2600;
    H5Dset_extent(table, &length);
    H5Dclose(table);
  });
  expect_same(read_run(path), tables);
}

// A child appends and flushes without end and is killed in the middle. Rows that it had flushed
// when it reported are there; when HDF5 cannot open the file at all, recreate() brings it back from
// other rows.
TEST(RunFile, AKilledWriterLosesNothingThatWasFlushed) {
  const TemporaryFolder folder;
  const auto path = folder / "run.h5";
  int to_parent[2];
  ASSERT_EQ(::pipe(to_parent), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    RunFile run = RunFile::create(path, facts());
    for (int64_t step = 1;; ++step) {
      run.append(step_row(step));
      if (step % 10 == 0) {
        run.flush();
        if (::write(to_parent[1], &step, sizeof step) != sizeof step) ::_exit(3);
      }
    }
  }
  ::close(to_parent[1]);
  int64_t flushed = 0;
  while (flushed < 3000) ASSERT_EQ(::read(to_parent[0], &flushed, sizeof flushed), 8);
  ::kill(child, SIGKILL);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
  for (int64_t last = 0; ::read(to_parent[0], &last, sizeof last) == 8;) flushed = last;
  ::close(to_parent[0]);

  RunTables tables;
  tables.facts = facts();
  for (int64_t step = 1; step <= 1000; ++step) tables.steps.push_back(step_row(step));
  try {
    const RunTables found = read_run(path);
    EXPECT_GE(static_cast<int64_t>(found.steps.size()), flushed);
    for (size_t i = 0; i < found.steps.size(); ++i) {
      const StepRow expected = step_row(static_cast<int64_t>(i) + 1);
      ASSERT_EQ(std::memcmp(&found.steps[i], &expected, sizeof expected), 0) << i;
    }
    EXPECT_EQ(found.facts, facts());
  } catch (const UserError& error) {
    // In about one kill of a thousand the metadata is half written (no file of HDF5 is safe from
    // it).
    EXPECT_THAT(error.what(), HasSubstr(path.string()));
  }
  { RunFile::recreate(path, tables).append(step_row(1001)); }
  tables.steps.push_back(step_row(1001));
  expect_same(read_run(path), tables);
}

}  // namespace
}  // namespace varscale::records
