// What var_fit makes of the scores of a sweep's samples.
#include <cmath>

#include "base/file.hpp"
#include "records/score_file.hpp"
#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;
using testing::Not;

records::RunScores scores_of(const SyntheticRun& run, double images = 500) {
  records::RunScores scores;
  scores.run = run.id();
  scores.settings = {{"images", images}, {"cfg", 1.5}, {"cfg_grid", {1.0, 3.0}}};
  scores.frechet_name = "FID", scores.network = "inception-2015-12-05", scores.network_identity = "0123456789abcdef01";
  scores.reference = "val.h5", scores.reference_fingerprint = "feed";
  scores.reference_images = 400, scores.images = static_cast<int64_t>(images);
  const double d = static_cast<double>(run.depth);
  scores.protocol = {.cfg = 1.5,
                     .frechet = 100 / d,
                     .spatial_frechet = 200 / d,
                     .inception_score = 2 + d,
                     .kernel = 0.01,
                     .precision = 0.5,
                     .recall = 0.25};
  scores.best = {.cfg = 3,
                 .frechet = 90 / d,
                 .spatial_frechet = 190 / d,
                 .inception_score = 3 + d,
                 .kernel = 0.009,
                 .precision = 0.6,
                 .recall = 0.2};
  scores.grid = {{1, 120 / d}, {3, 91 / d}};
  return scores;
}

class Scores : public VarFit {
 protected:
  void keep(const SyntheticRun& run, const records::RunScores& scores) {
    records::write_scores(folder_ / "runs" / run.id() / "scores.json", scores);
  }
  const SyntheticSweep sweep_ = SyntheticSweep::quickstart();
};

TEST_F(Scores, JoinLossAndErrorInTablesAndReport) {
  sweep_.write(folder_);
  size_t scored = 0;
  for (const SyntheticRun& run : sweep_.runs) {
    if (run.role != "main") continue;
    keep(run, scores_of(run));
    ++scored;
  }
  ASSERT_EQ(fit("--resamples 100"), 0) << err();
  const auto scores = json().at("scores");
  EXPECT_EQ(scores.at("frechet_name"), "FID");
  EXPECT_EQ(scores.at("network"), "inception-2015-12-05");
  EXPECT_EQ(scores.at("reference"), "val.h5");
  ASSERT_EQ(scores.at("runs").size(), scored);
  const auto& deepest = scores.at("runs").back();
  EXPECT_EQ(deepest.at("id"), "d5-s0");
  EXPECT_EQ(deepest.at("protocol").at("frechet"), 20);
  EXPECT_EQ(deepest.at("best").at("cfg"), 3);
  EXPECT_EQ(deepest.at("best").at("frechet"), 18);
  EXPECT_EQ(scores.at("left_out").size(), sweep_.runs.size() - scored);
  EXPECT_EQ(scores.at("left_out").front().at("reason"), "not scored");

  const std::string csv = text_of(folder_ / "fit/scores.csv");
  EXPECT_THAT(csv, HasSubstr("\nd5-s0,main,5,"));
  EXPECT_THAT(csv, HasSubstr(",protocol,1.5,FID,20,40,7,0.01,0.5,0.25,"));
  EXPECT_THAT(csv, HasSubstr(",best,3,FID,18,38,8,0.009,0.6,0.2,"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "fit/scores.svg"));
  const std::string page = text_of(folder_ / "fit/report.html");
  EXPECT_THAT(page,
              HasSubstr("<h2>Samples against compute</h2>\n<p>500 samples of each run against 400 images of "
                        "<code>val.h5</code>, through inception-2015-12-05 (<code>0123456789abcdef</code>): FID at "
                        "guidance 1.5, and at the best guidance of 1, 3, which was chosen on other seeds."));
  EXPECT_THAT(page, HasSubstr("<a href=\"scores.csv\">scores.csv</a>"));
  EXPECT_THAT(page, HasSubstr("an edge of the grid for <code>d1-s0</code>, "));
  EXPECT_THAT(
      page,
      HasSubstr("<td>20.00</td><td>40.00</td><td>7.000</td><td>0.5000</td><td>0.2500</td><td>3</td><td>18.00</td>"));
}

// The grid ends at 3; below 0 there is nothing to be had.
TEST_F(Scores, ThatMayBeBetterBeyondTheGridAreNamed) {
  sweep_.write(folder_);
  for (const SyntheticRun& run : sweep_.runs) {
    if (run.role != "main") continue;
    records::RunScores scores = scores_of(run);
    scores.settings["cfg_grid"] = {0.0, 1.0, 2.0, 3.0};
    scores.grid = {{0, 3}, {1, 2}, {2, 2}, {3, 2}};
    scores.best->cfg = std::min<double>(static_cast<double>(run.depth) - 1, 3);
    keep(run, scores);
  }
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(text_of(folder_ / "fit/report.html"),
              HasSubstr("The best guidance is an edge of the grid for <code>d4-s0</code>, <code>d5-s0</code>: a "
                        "wider grid may have a better one."));
}

TEST_F(Scores, OfOtherSettingsAreLeftOutAndNamed) {
  sweep_.write(folder_);
  for (const SyntheticRun& run : sweep_.runs)
    if (run.role == "main") keep(run, scores_of(run, run.depth == 4 ? 1000 : 500));
  ASSERT_EQ(fit(), 0) << err();
  const auto scores = json().at("scores");
  std::string reason;
  for (const auto& run : scores.at("left_out"))
    if (run.at("id") == "d4-s0") reason = run.at("reason").get<std::string>();
  EXPECT_EQ(reason, "scored under other settings");
  EXPECT_THAT(text_of(folder_ / "fit/scores.csv"), Not(HasSubstr("d4-s0")));
  EXPECT_THAT(text_of(folder_ / "fit/report.html"),
              HasSubstr("Not in it: <code>d4-s0</code>, scored under other settings."));
}

TEST_F(Scores, AreNoPartOfAReportWithoutThem) {
  sweep_.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_TRUE(json().at("scores").is_null());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit/scores.csv"));
  EXPECT_THAT(text_of(folder_ / "fit/report.html"), Not(HasSubstr("Samples against compute")));
}

TEST_F(Scores, ThatAreNoneAreRefusedInOneSentence) {
  sweep_.write(folder_);
  std::ofstream(folder_ / "runs/d5-s0/scores.json") << R"({"schema_version": 1, "run": "d5-s0"})";
  EXPECT_EQ(fit(), 2);
  EXPECT_THAT(err(), HasSubstr("runs/d5-s0/scores.json: not scores as var_eval sweep writes them"));
  std::ofstream(folder_ / "runs/d5-s0/scores.json") << R"({"schema_version": 2})";
  EXPECT_EQ(fit(), 2);
  EXPECT_THAT(err(), HasSubstr("runs/d5-s0/scores.json: schema_version is 2; this program reads 1"));
}

}  // namespace
}  // namespace varscale::fit
