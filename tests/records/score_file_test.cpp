#include "records/score_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support.hpp"

namespace varscale::records {
namespace {

using base::message_of;
using base::UserError;
using testing::HasSubstr;

RunScores scores_of_a_run() {
  RunScores scores;
  scores.run = "d5-s0-1f3a9c";
  scores.settings = {{"cfg", 1.5}, {"images", 50000}};
  scores.frechet_name = "FID", scores.network = "inception-2015-12-05", scores.network_identity = "ab12";
  scores.reference = "val.h5", scores.reference_fingerprint = "cd34";
  scores.reference_images = 10000, scores.images = 50000;
  scores.protocol = {.cfg = 1.5,
                     .frechet = 1.0 / 3,
                     .spatial_frechet = 7.25,
                     .inception_score = 280.5,
                     .kernel = -1e-5,
                     .precision = 0.84,
                     .recall = 0.51};
  return scores;
}

TEST(ScoreFile, ReadsBackWhatWasWritten) {
  const TemporaryFolder folder;
  EXPECT_FALSE(read_scores(folder / "scores.json").has_value());
  RunScores scores = scores_of_a_run();
  write_scores(folder / "scores.json", scores);
  std::optional<RunScores> read = read_scores(folder / "scores.json");
  ASSERT_TRUE(read.has_value());
  EXPECT_EQ(read->run, scores.run);
  EXPECT_EQ(read->settings, scores.settings);
  EXPECT_EQ(read->frechet_name, "FID");
  EXPECT_EQ(read->network, scores.network);
  EXPECT_EQ(read->network_identity, "ab12");
  EXPECT_EQ(read->reference, "val.h5");
  EXPECT_EQ(read->reference_fingerprint, "cd34");
  EXPECT_EQ(read->reference_images, 10000);
  EXPECT_EQ(read->images, 50000);
  EXPECT_EQ(read->protocol.frechet, 1.0 / 3);  // every digit
  EXPECT_EQ(read->protocol.spatial_frechet, 7.25);
  EXPECT_EQ(read->protocol.inception_score, 280.5);
  EXPECT_EQ(read->protocol.kernel, -1e-5);
  EXPECT_EQ(read->protocol.precision, 0.84);
  EXPECT_EQ(read->protocol.recall, 0.51);
  EXPECT_FALSE(read->best.has_value());

  scores.best = Score{
      .cfg = 3, .frechet = 2, .spatial_frechet = {}, .inception_score = {}, .kernel = 0.5, .precision = 1, .recall = 0};
  scores.grid = {{1, 4}, {3, 2.5}};
  write_scores(folder / "scores.json", scores);
  read = read_scores(folder / "scores.json");
  ASSERT_TRUE(read && read->best);
  EXPECT_EQ(read->best->cfg, 3);
  EXPECT_FALSE(read->best->spatial_frechet.has_value());
  EXPECT_FALSE(read->best->inception_score.has_value());
  ASSERT_EQ(read->grid.size(), 2u);
  EXPECT_EQ(read->grid[1].cfg, 3);
  EXPECT_EQ(read->grid[1].frechet, 2.5);
  EXPECT_EQ(folder.entries(), 1);
}

TEST(ScoreFile, RefusesWhatIsNone) {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& text) {
    folder.write("scores.json", text);
    return message_of<UserError>([&] { read_scores(folder / "scores.json"); });
  };
  EXPECT_THAT(refusal("FID 3.3"), HasSubstr("scores.json: not scores as var_eval sweep writes them"));
  EXPECT_THAT(refusal("[]"), HasSubstr("not scores as var_eval sweep writes them"));
  EXPECT_THAT(refusal(R"({"schema_version": 2})"), HasSubstr("schema_version is 2; this program reads 1"));
  write_scores(folder / "scores.json", scores_of_a_run());
  const std::string good = base::read_file(folder / "scores.json");
  const auto with = [&](const std::string& what, const std::string& instead) {
    std::string text = good;
    text.replace(text.find(what), what.size(), instead);
    return refusal(text);
  };
  EXPECT_THAT(with("\"frechet\": 0.3", "\"frechat\": 0.3"), HasSubstr("key 'frechet' not found"));
  EXPECT_THAT(with("\"recall\": 0.51", "\"recall\": null"), HasSubstr("must be number"));
}

}  // namespace
}  // namespace varscale::records
