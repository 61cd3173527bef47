// var_fit on folders with runs of several kinds of tokens.
#include <fstream>

#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr int64_t kOther = 10;  // from this seed on, runs have the second kind of tokens

struct OtherKind {
  std::string tokens = "4567cdef", tokenizer = "bbbbbbbbbbbb", scales = "1,2,4,8", path = "data/f8.h5", source = "cached";
};

// The noiseless quickstart over two kinds of tokens; the losses of the second lie half a nat higher.
SyntheticSweep mixed(const OtherKind& other = {}, int64_t deepest_of_other = 5) {
  SyntheticSweep sweep;
  sweep.noise_sd = 0;
  for (int64_t depth = 1; depth <= 5; ++depth) sweep.runs.push_back({depth, 0});
  for (int64_t depth = 1; depth <= deepest_of_other; ++depth) sweep.runs.push_back({depth, kOther});
  sweep.change = [other](const SyntheticRun& run, records::RunTables& tables) {
    const bool is_other = run.seed >= kOther;
    tables.facts["tokens_fingerprint"] = is_other ? other.tokens : "0123abcd";
    tables.facts["tokenizer_fingerprint"] = is_other ? other.tokenizer : std::string("aaaaaaaaaaaa");
    tables.facts["scales"] = is_other ? other.scales : "1,2,3,4";
    tables.facts["data_tokens"] = is_other ? other.source : "cached";
    tables.facts["config"] = nlohmann::ordered_json{{"tokens", is_other ? other.path : "data/f16.h5"}}.dump();
    if (is_other)
      for (records::EvalRow& row : tables.eval) row.loss_mean += 0.5;
  };
  return sweep;
}

class Kinds : public VarFit {
 protected:
  nlohmann::ordered_json kind(const std::string& name) const {
    const nlohmann::ordered_json all = json();
    for (const auto& each : all.at("kinds"))
      if (each.at("name") == name) return each;
    ADD_FAILURE() << "no kind " << name << " in " << all.at("kinds");
    return {};
  }
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    const nlohmann::ordered_json all = json();
    for (const auto& each : all.at("kinds")) result.push_back(each.at("name"));
    return result;
  }
  std::string page() const { return text_of(folder_ / "fit" / "report.html"); }
};

TEST_F(Kinds, OfTokenizersAreFittedApartUnderTheirNames) {
  mixed().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(names(), ElementsAre("f16", "f8"));
  for (const auto& [name, e] : {std::pair{"f16", 4.217}, std::pair{"f8", 4.717}}) {
    const nlohmann::ordered_json own = kind(name);
    EXPECT_EQ(own.at("runs").size(), 5) << name;
    EXPECT_EQ(headline(own.at("fit")).at("runs"), 5) << name;
    EXPECT_EQ(headline(own.at("fit")).at("parameters").at("E").at("value"), e) << name;
    EXPECT_EQ(headline(own.at("fit")).at("parameters").at("alpha").at("value"), 0.185) << name;
    const auto folder = folder_ / "fit" / own.at("folder").get<std::string>();
    EXPECT_EQ(base::parse_json(text_of(folder / "fit.json")), own.at("fit")) << name;
    const std::string points = text_of(folder / "points.csv");
    EXPECT_EQ(std::count(points.begin(), points.end(), '\n'), 6) << name;
    EXPECT_THAT(page(), HasSubstr("<h1>Tokens " + std::string(name) + "</h1>"));
    EXPECT_THAT(out(), HasSubstr(std::string(name) + ": L(N) at fixed data: L = "));
  }
  EXPECT_THAT(page(), HasSubstr("tokenizer bbbbbbbb, maps of 1,2,4,8, 85 tokens an image"));
  EXPECT_THAT(page(), HasSubstr("Losses, E and B of two tokenizers are not in one unit"));
  EXPECT_EQ(json().at("not_comparable").size(), 1);
  EXPECT_THAT(text_of(folder_ / "fit" / "law.txt"), HasSubstr("f16: L(N)"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit" / "points.csv"));
}

TEST_F(Kinds, OfAnEarlierFitLeaveNothingBehind) {
  SyntheticSweep sweep = mixed();
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  ASSERT_TRUE(std::filesystem::exists(folder_ / "fit" / "tokens-f8"));
  sweep.runs.resize(5);
  std::filesystem::remove_all(folder_ / "runs");
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit" / "tokens-f8"));
  EXPECT_EQ(json().at("tokens").at("name"), "f16");
  EXPECT_THAT(page(), HasSubstr("tokenizer aaaaaaaa"));
  mixed().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit" / "law_n.csv"));
  EXPECT_TRUE(std::filesystem::exists(folder_ / "fit" / "tokens-f16" / "law_n.csv"));
}

TEST_F(Kinds, OfOneTokenizerAreApartWhereFileOrCropsDiffer) {
  mixed({.tokens = "4567cdef", .tokenizer = "aaaaaaaaaaaa", .scales = "1,2,3,4", .path = "more/f16.h5"}).write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(names(), ElementsAre("f16-0123ab", "f16-4567cd"));
  EXPECT_THAT(out(), HasSubstr("Two token files of one tokenizer hold other images, crops or precisions"));
  EXPECT_THAT(out(), Not(HasSubstr("not in one unit")));

  mixed({.tokens = "0123abcd", .tokenizer = "aaaaaaaaaaaa", .path = "data/f16.h5", .source = "online"}).write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(names(), ElementsAre("f16", "f16-online"));
  EXPECT_THAT(out(), HasSubstr("online runs fresh ones in every pass"));
  EXPECT_EQ(headline(kind("f16-online").at("fit")).at("parameters").at("E").at("value"), 4.717);
}

// Runs of before run.h5 named tokenizer and path.
TEST_F(Kinds, OfOlderRunsAreToldApartByTheirTokenFile) {
  SyntheticSweep sweep = mixed();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.seed >= kOther) tables.facts["tokens_fingerprint"] = std::string("4567cdef");
  };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(names(), ElementsAre("0123abcd", "4567cdef"));
  EXPECT_THAT(page(), HasSubstr("token file 4567cdef, 85 tokens an image"));
}

TEST_F(Kinds, WithTooFewSizesAreNamedAndNotFitted) {
  mixed({}, 2).write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(kind("f8").at("not_fitted"), "2 sizes of role main (d1-d2), and a law needs 3");
  EXPECT_EQ(headline(kind("f16").at("fit")).at("parameters").at("E").at("value"), 4.217);
  EXPECT_THAT(out(), HasSubstr("not fitted: f8: 2 sizes"));
  EXPECT_THAT(page(), HasSubstr("not fitted: 2 sizes"));

  SyntheticSweep few = mixed({}, 2);
  std::erase_if(few.runs, [](const SyntheticRun& run) { return run.depth > 1; });
  std::filesystem::remove_all(folder_ / "runs");
  std::filesystem::remove_all(folder_ / "fit");
  few.write(folder_);
  EXPECT_EQ(fit(), 2);
  EXPECT_THAT(err(), HasSubstr("2 kinds of tokens, which are fitted apart, and none has enough runs (f16: 1 size of"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit"));
}

TEST_F(Kinds, AreNamedWhereTheRunsOfOneDisagree) {
  SyntheticSweep sweep = mixed();
  sweep.change = [before = sweep.change](const SyntheticRun& run, records::RunTables& tables) {
    before(run, tables);
    if (run.id() == "d3-s10") tables.facts["flop_formula"] = std::string("6ND");
  };
  sweep.write(folder_);
  EXPECT_EQ(fit(), 2);
  EXPECT_THAT(err(), HasSubstr("tokens f8: d1-s10 has the FLOP formula"));
}

TEST_F(Kinds, HaveTheirOwnTunedPoints) {
  SyntheticSweep sweep = mixed();
  sweep.tune = {"optimizer.lr"};
  sweep.curvature = 0.05;
  const std::vector<SyntheticRun> once = sweep.runs;
  sweep.runs.clear();
  for (const SyntheticRun& run : once)
    for (const double rate : {0.5, 1.0, 2.0}) {
      sweep.runs.push_back(run);
      sweep.runs.back().rate = rate;
    }
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  for (const auto& [name, e] : {std::pair{"f16", 4.217}, std::pair{"f8", 4.717}}) {
    const nlohmann::ordered_json law = headline(kind(name).at("fit"));
    EXPECT_EQ(law.at("runs"), 5) << name;
    EXPECT_NEAR(law.at("parameters").at("E").at("value"), e, 1e-5) << name;
    EXPECT_EQ(kind(name).at("fit").at("learning_rate").at("points").size(), 5) << name;
  }
}

TEST_F(Kinds, ACheckOfTheLearningRateIsOfItsTokenizerAlone) {
  mixed().write(folder_);
  SyntheticSweep check = mixed();
  check.tune = {"optimizer.lr"};
  check.curvature = 0.05;
  check.runs.clear();
  for (const double rate : {0.5, 1.0, 2.0})
    check.runs.push_back({.depth = 2, .seed = kOther, .images = 1408, .rate = rate});
  check.write(scratch_.path() / "check");
  const std::string more = "--no-figures --resamples 100 --lr-check " + (scratch_.path() / "check").string();
  ASSERT_EQ(fit(more), 0) << err();
  EXPECT_EQ(kind("f8").at("fit").at("learning_rate").at("state"), "lr rule checked");
  EXPECT_EQ(kind("f16").at("fit").at("learning_rate").at("state"), "lr unchecked");
  mixed({.tokens = "89abcdef", .tokenizer = "cccccccccccc"}).write(folder_);
  EXPECT_EQ(fit(more), 2);
  EXPECT_THAT(err(), HasSubstr("was trained on tokenizer bbbbbbbb"));
}

TEST_F(Kinds, RegisterNoPredictionTogether) {
  mixed().write(folder_);
  EXPECT_EQ(fit("--register-prediction --resamples 100"), 2);
  EXPECT_THAT(err(), HasSubstr("its runs were trained on different tokens (f16: tokenizer aaaaaaaa"));

  // The smaller runs are of one kind, and the plan says that the deepest is of another.
  SyntheticSweep sweep = mixed();
  std::erase_if(sweep.runs, [](const SyntheticRun& run) { return (run.seed >= kOther) != (run.depth == 5); });
  std::filesystem::remove_all(folder_ / "runs");
  sweep.write(folder_);
  auto plan = base::parse_json(text_of(folder_ / "plan.json"));
  for (auto& run : plan.at("runs")) {
    const bool is_other = run.at("depth") == 5;
    run["tokens_fingerprint"] = is_other ? "4567cdef" : "0123abcd";
    run["tokens_file"] = is_other ? "data/f8.h5" : "data/f16.h5";
    run["data_tokens"] = "cached";
  }
  std::ofstream(folder_ / "plan.json") << base::json_text(plan, 2);
  EXPECT_EQ(fit("--register-prediction --resamples 100"), 2);
  EXPECT_THAT(err(), HasSubstr("d1-s0 and d5-s10 are trained on different tokens (f16, f8)"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit" / "prediction.json"));
}

TEST_F(Kinds, APredictionBelongsToTheKindItWasMadeFrom) {
  SyntheticSweep sweep = mixed();
  const std::vector<SyntheticRun> all = sweep.runs;
  sweep.runs.resize(5);
  sweep.write(folder_);
  ASSERT_EQ(fit("--register-prediction --resamples 100"), 0) << err();
  sweep.runs = all;
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(kind("f16").at("fit").at("registered_prediction").at("inputs_unchanged"), true);
  EXPECT_TRUE(kind("f8").at("fit").at("registered_prediction").is_null());
}

}  // namespace
}  // namespace varscale::fit
