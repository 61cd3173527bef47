#include "records/checkpoint_place.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temporary_folder.hpp"

namespace varscale::records {
namespace {

TEST(CheckpointPlace, CountsCompleteFoldersAlone) {
  const base::TemporaryFolder run;
  const auto checkpoints = run.path() / kCheckpoints;
  EXPECT_TRUE(checkpoint_steps(checkpoints).empty());
  EXPECT_FALSE(has_checkpoint(run.path(), 1000));
  EXPECT_EQ(checkpoint_place(checkpoints, 1000), checkpoints / "step-000001000");
  for (const char* name : {"step-000001000", "step-000000020", "step-000000030.tmp", "step-x", "other"}) {
    std::filesystem::create_directories(checkpoints / name);
    std::ofstream(checkpoints / name / kCheckpointManifest) << "{}";
  }
  std::filesystem::create_directories(checkpoints / "step-000000040");  // being written, or being removed
  EXPECT_THAT(checkpoint_steps(checkpoints), testing::ElementsAre(20, 1000));
  EXPECT_TRUE(has_checkpoint(run.path(), 1000));
  EXPECT_FALSE(has_checkpoint(run.path(), 40));
}

}  // namespace
}  // namespace varscale::records
