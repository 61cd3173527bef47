#include "records/event_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "support.hpp"

namespace varscale::records {
namespace {

// RFC 3720, B.4, and the check value of the catalogue of CRCs.
TEST(Crc32c, HasTheKnownAnswers) {
  EXPECT_EQ(crc32c(""), 0u);
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising(32, '\0');
  std::iota(rising.begin(), rising.end(), 0);
  EXPECT_EQ(crc32c(rising), 0x46dd794eu);
}

TEST(Crc32c, MasksAsTfRecordDoes) {
  // crc 0xe3069283: its low 15 bits go up, the rest down, and the constant is added.
  EXPECT_EQ(masked_crc32c("123456789"), static_cast<uint32_t>((0xe3069283u >> 15 | 0xe3069283u << 17) + 0xa282ead8u));
}

std::string name_in(const TemporaryFolder& folder) {
  std::string names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path()))
    names += entry.path().filename().string();
  return names;
}

// Reads the folder as TensorBoard does; prints "tag: step value; ..." for every scalar.
constexpr const char* kRead = R"(
import sys, warnings
warnings.simplefilter("ignore")
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
assert events.file_version == 2.0, events.file_version
for tag in sorted(events.Tags()["scalars"]):
    rows = events.Scalars(tag)
    assert all(a.wall_time <= b.wall_time for a, b in zip(rows, rows[1:])), tag
    print(tag, *(f"{row.step}:{row.value:.6g}" for row in rows))
)";

RunTables three_steps() {
  RunTables tables;
  for (int64_t step = 1; step <= 3; ++step) tables.steps.push_back(step_row(step));
  tables.eval.push_back(eval_row(2));
  return tables;
}

TEST(EventFile, TensorBoardReadsEveryRowOnceAfterARestart) {
  const TemporaryFolder folder;
  {
    EventFile first(folder.path(), {});
    EXPECT_THAT(first.path().filename().string(),
                testing::MatchesRegex("events\\.out\\.tfevents\\.[0-9]{10}\\..+\\.[0-9]+"));
    for (int64_t step = 1; step <= 5; ++step) first.append(step_row(step));  // 4 and 5 come again
    first.append(eval_row(5));
  }
  {
    EventFile second(folder.path(), three_steps());
    second.append(step_row(4));
    second.append(eval_row(4));
  }
  EXPECT_EQ(folder.entries(), 1) << name_in(folder);
  // step_row: loss 5 - step / 100, 16 images a step of 0.1 s.
  EXPECT_EQ(run_python(kRead, folder.path()),
            "eval/err_mean 2:0.9 4:0.9\n"
            "eval/loss_mean 2:4.75 4:4.75\n"
            "eval/loss_tail 2:5.25 4:5.25\n"
            "rates/images_per_s 1:160 2:160 3:160 4:160\n"
            "train/err_mean 1:0.9375 2:0.9375 3:0.9375 4:0.9375\n"
            "train/grad_norm 1:1.25 2:1.25 3:1.25 4:1.25\n"
            "train/loss_mean 1:4.99 2:4.98 3:4.97 4:4.96\n"
            "train/loss_tail 1:5.49 2:5.48 3:5.47 4:5.46\n"
            "train/lr 1:0.001 2:0.0005 3:0.000333333 4:0.00025\n");
}

TEST(EventFile, IsReadableUpToTheLastFlushWhileItIsWritten) {
  const TemporaryFolder folder;
  EventFile events(folder.path(), {});
  StepRow diverged = step_row(300);  // a step number of two bytes
  diverged.loss_mean = std::nan("");
  events.append(diverged);
  events.flush();
  const auto size = std::filesystem::file_size(events.path());
  events.append(step_row(301));
  EXPECT_EQ(std::filesystem::file_size(events.path()), size) << "a row was not buffered";
  const std::string text = run_python(kRead, folder.path());
  EXPECT_THAT(text, testing::HasSubstr("train/loss_mean 300:nan\n"));
  EXPECT_THAT(text, testing::HasSubstr("train/loss_tail 300:2.5\n"));
}

TEST(EventFile, LeavesOtherFilesAndNamesAFolderThatIsNotThere) {
  const TemporaryFolder folder;
  folder.write("run.h5", "rows");
  folder.write("events.out.tfevents.0000000001.elsewhere.1", "an older launch's");
  { EventFile events(folder.path(), {}); }
  EXPECT_EQ(folder.entries(), 2) << name_in(folder);
  EXPECT_EQ(base::read_file(folder / "run.h5"), "rows");
  EXPECT_THROW(EventFile(folder / "nowhere", {}), base::UserError);
}

}  // namespace
}  // namespace varscale::records
