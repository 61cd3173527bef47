// The program on sweep folders with known laws.
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <map>
#include <regex>

#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;

TEST_F(VarFit, RecoversTheLawOfANoiselessSweep) {
  SyntheticSweep sweep = SyntheticSweep::quickstart();
  sweep.noise_sd = 0;
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const nlohmann::ordered_json law = headline(json()).at("parameters");
  EXPECT_EQ(law.at("E").at("value"), 4.217);  // six digits
  EXPECT_EQ(law.at("alpha").at("value"), 0.185);
  EXPECT_EQ(law.at("B").at("value"), 2.32);
  const nlohmann::ordered_json all = json();
  const auto data_law = std::find_if(all.at("fits").begin(), all.at("fits").end(),
                                     [](const nlohmann::ordered_json& law) {
                                       return law.at("id") == "L(D) images, d1 loss_mean E free";
                                     });
  ASSERT_NE(data_law, all.at("fits").end());
  // Whole steps of 16 images: 3,500 are 3,488 seen, 0.3 %, which moves the exponent by about a third of it.
  EXPECT_NEAR(data_law->at("parameters").at("alpha").at("value"), 0.3, 2e-3);
}

TEST_F(VarFit, EndsWithTheLawInOneSentence) {
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const std::string sentence = json().at("sentence");
  EXPECT_THAT(out(), EndsWith("\n" + sentence + "\n"));
  EXPECT_THAT(sentence, testing::StartsWith("L(N) at fixed data: L = "));
  EXPECT_THAT(sentence, HasSubstr("over d1-d5; d5's gain predicted"));
}

TEST_F(VarFit, ClaimsNoPredictionFromThreeSizes) {
  SyntheticSweep::quickstart(4).write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const std::string sentence = json().at("sentence");
  EXPECT_THAT(sentence, HasSubstr("over d1-d4."));
  EXPECT_THAT(sentence, testing::Not(HasSubstr("predicted")));
}

TEST_F(VarFit, WritesEveryTableAndASelfContainedPage) {
  SyntheticSweep::quickstart().write(folder_);
  std::ofstream(folder_ / "samples.png") << "picture";
  std::ofstream(folder_ / "samples.json") << R"({"caption": "d5, <guided>"})";
  ASSERT_EQ(fit("--no-figures --resamples 100 --csv " + (folder_ / "tables").string()), 0) << err();
  for (const char* name :
       {"fit.json", "points.csv", "fits.csv", "curves.csv", "law_n.csv", "law_c.csv", "law_d.csv",
        "residuals.csv", "held_out.csv", "scales.csv", "report.html"})
    EXPECT_GT(std::filesystem::file_size(folder_ / "fit" / name), 100u) << name;
  EXPECT_THAT(text_of(folder_ / "tables" / "d5-s0" / "eval.csv"), HasSubstr("loss_mean"));
  const std::string page = text_of(folder_ / "fit" / "report.html");
  EXPECT_THAT(page, HasSubstr("data:image/png;base64,cGljdHVyZQ=="));  // "picture"
  EXPECT_THAT(page, HasSubstr("d5, &lt;guided&gt;"));
  EXPECT_THAT(page, HasSubstr("L(N) at fixed data"));
  for (const char* link : {"src=\"http", "href=", "url("}) EXPECT_THAT(page, Not(HasSubstr(link)));
}

TEST_F(VarFit, SaysHowFarTheExponentMovesUnderOtherChoices) {
  SyntheticSweep sweep = SyntheticSweep::quickstart(9, 4);
  sweep.noise_sd = 0;
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const nlohmann::ordered_json all = json().at("sensitivity");
  ASSERT_EQ(all.size(), 4u);  // L(N) and L(C), mean and tail
  EXPECT_EQ(all[0].at("law"), "L(N)");
  std::map<std::string, double> alpha;
  for (const auto& row : all[0].at("rows")) alpha[row.at("change")] = row.at("alpha");
  for (const char* same : {"lad", "huber, delta 0.001", "vpnls in log space", "without the largest size"})
    EXPECT_NEAR(alpha.at(same), 0.185, 1e-5) << same;
  EXPECT_LT(alpha.at("E 0.1 lower"), 0.16);
  // 0.1 above E lies above the loss of d9.
  EXPECT_EQ(all[0].at("not_done").at(0).at("change"), "E 0.1 higher");
  EXPECT_LT(alpha.at("N blocks"), 0.17);  // without the embeddings the small models are smaller still
  // The sweep's FLOPs are 6 N D with N total, so that this rule moves nothing.
  std::map<std::string, double> of_compute;
  for (const auto& row : all[2].at("rows")) of_compute[row.at("change")] = row.at("alpha");
  EXPECT_EQ(all[2].at("law"), "L(C)");
  EXPECT_NEAR(of_compute.at("C = 6 N D, N total"), of_compute.at("vpnls in log space"), 1e-5);
  EXPECT_NE(of_compute.at("C = 6 N D, N blocks"), of_compute.at("C = 6 N D, N total"));
  const std::string page = text_of(folder_ / "fit" / "report.html");
  EXPECT_THAT(page, HasSubstr("What else it could have been"));
  EXPECT_THAT(text_of(folder_ / "fit" / "sensitivity.csv"), HasSubstr("L(C),loss_tail,counting,\"C = 6 N D, N blocks\""));
}

TEST_F(VarFit, SaysWhichEstimatorsDisagree) {
  SyntheticSweep sweep = SyntheticSweep::quickstart(7, 7);
  sweep.noise_sd = 1e-4;
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.depth == 5) tables.eval.back().loss_mean += 0.02;  // one size gone wrong, which least squares follow
  };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const auto said = json().at("sensitivity")[0].at("disagreements");
  ASSERT_FALSE(said.empty());
  EXPECT_THAT(out(), HasSubstr("estimators disagree on L(N) loss_mean: "));
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), HasSubstr("Estimators disagree on L(N)"));
}

// Training loss that falls below validation loss towards the end, over `passes` passes.
void learn_by_heart(const SyntheticRun&, records::RunTables& tables, double passes) {
  tables.facts["passes"] = passes;
  const auto last = static_cast<double>(tables.eval.back().step);
  tables.steps.clear();
  for (const records::EvalRow& e : tables.eval) {
    records::StepRow row{};
    row.segment = 0;
    for (int64_t k = 6; k >= 0; --k) {
      row.step = e.step - k;
      if (row.step < 1 || (!tables.steps.empty() && row.step <= tables.steps.back().step)) continue;
      row.loss_mean = e.loss_mean - 0.1 * static_cast<double>(e.step) / last;
      tables.steps.push_back(row);
    }
  }
}

TEST_F(VarFit, SaysThatRunsLearnRepeatedDataByHeart) {
  SyntheticSweep sweep = SyntheticSweep::quickstart();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.depth >= 4) learn_by_heart(run, tables, 12);
  };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(out(), HasSubstr("over the second half of d4-s0, d5-s0 (by up to 0.05"));
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), HasSubstr("learn repeated data by heart"));
}

TEST_F(VarFit, SaysNothingOfRepetitionInASinglePass) {
  SyntheticSweep sweep = SyntheticSweep::quickstart();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) { learn_by_heart(run, tables, 1); };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(out(), Not(HasSubstr("by heart")));
}

TEST_F(VarFit, SumsUpInTwoSentencesWithNumbers) {
  const std::string number = "[0-9.]+", range = number + " – " + number;
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const std::string page = text_of(folder_ / "fit" / "report.html");
  // d1 has 73,953 + 40,000 parameters, d5 125 times the first and 5 times the second.
  EXPECT_THAT(page, HasSubstr("<p class=\"lead\">Over d1-d5, 114.0 k to 9.44 M parameters at 14,000 images each, the validation "
                              "loss falls as <span class=\"math\">"));
  const auto has = [&](const std::string& pattern) { return std::regex_search(page, std::regex(pattern)); };
  EXPECT_TRUE(has("nats per token \\(90 % intervals: exponent " + range + ", irreducible loss " + range + "\\)\\."));
  EXPECT_TRUE(has("From the smaller depths alone it predicts that d5 gains " + number + " nats over d4 \\(" + range +
                  "\\); it gained " + number + ", inside the interval\\.</p>"));
}

TEST_F(VarFit, SaysThatFourSizesAreTooFewForAPrediction) {
  SyntheticSweep::quickstart(4).write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), HasSubstr("4 sizes are too few to test it by a prediction."));
}

TEST_F(VarFit, SaysWhichTokenMapsGainFromSize) {
  SyntheticSweep sweep = SyntheticSweep::quickstart();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    tables.facts["scales"] = std::string("1,2,4,8");
    for (records::ScaleRow& row : tables.scales)
      row.loss = 4.0 - 0.1 * static_cast<double>(row.scale * run.depth) + (run.seed == 0 ? 0.02 : -0.02);
  };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  // d1 to d5 is 0.4 nats a map; seeds 0 and 1 of d1 cancel, and d5 has seed 0 alone: 0.02 less.
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"),
              HasSubstr("From d1 to d5 the final loss falls by 1.18 nats on map 8 × 8, the most of all maps, and by -0.0200 "
                        "on map 1 × 1, the least."));
  const std::string csv = text_of(folder_ / "fit" / "scales.csv");
  EXPECT_THAT(csv, HasSubstr("\nd5-s0,5,0,"));
  EXPECT_THAT(csv, HasSubstr(",3,8,2.52,"));
  EXPECT_THAT(csv, Not(HasSubstr("d1-s0-3500")));  // of another budget
}

TEST_F(VarFit, ShowsSamplesByDepthAndTheSweepFile) {
  SyntheticSweep::quickstart().write(folder_);
  for (const char* run : {"d1-s0", "d1-s1", "d3-s0", "d1-s0-7000"})
    std::ofstream(folder_ / "runs" / run / "samples.png") << run;
  std::ofstream(folder_ / "runs/d3-s0/samples.json") << R"({"caption": "guidance <3>"})";
  std::ofstream(folder_ / "sweep.yaml") << "name: a  # <b>";
  ASSERT_EQ(fit("--no-figures --resamples 100 --seed 7 --hold-out 2"), 0) << err();
  const std::string page = text_of(folder_ / "fit" / "report.html");
  EXPECT_THAT(page, AllOf(HasSubstr("samples of d1-s0\""), HasSubstr("samples of d3-s0\""), HasSubstr("guidance &lt;3&gt;")));
  EXPECT_THAT(page, AllOf(Not(HasSubstr("samples of d1-s1")), Not(HasSubstr("samples of d1-s0-7000"))));
  EXPECT_THAT(page, HasSubstr("name: a  # &lt;b&gt;"));
  EXPECT_THAT(page, HasSubstr(" --seed 7 --resamples 100 --hold-out 2"));
}

constexpr const char* kStatistics =
    R"({{"fingerprint": "{}", "statistics": {{"unigram": 5.3, "scale_unigram": 5.2, "class_unigram": 5.1, "scales": [{{"unigram": 4.9}}, {{"unigram": 5.25}}]}}}})";

// Repeated seeds tell the noise in both, so the two intervals of five sizes differ little.
TEST_F(VarFit, HasProfileIntervalsBesideTheBootstrap) {
  SyntheticSweep::quickstart(5, 6).write(folder_);
  ASSERT_EQ(fit("--no-figures --resamples 1000"), 0) << err();
  const nlohmann::ordered_json law = headline(json());
  EXPECT_EQ(law.at("profile").at("noise").at("source"), "repeated seeds");
  for (const char* name : {"E", "alpha"}) {
    const auto& constant = law.at("parameters").at(name);
    const double low = constant.at("low"), high = constant.at("high"), wide = high - low;
    EXPECT_NEAR(constant.at("profile_low"), low, 0.4 * wide) << name;
    EXPECT_NEAR(constant.at("profile_high"), high, 0.4 * wide) << name;
    EXPECT_LT(constant.at("profile_low"), constant.at("value"));
    EXPECT_GT(constant.at("profile_high"), constant.at("value"));
  }
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), HasSubstr("Profile intervals of the first row"));
}

TEST_F(VarFit, SaysWhatTokensCostWithoutAModelAndFitsAsBefore) {
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const nlohmann::ordered_json before = headline(json());
  EXPECT_TRUE(json().at("token_entropies").is_null());
  std::ofstream(folder_ / "token_statistics.json") << fmt::format(kStatistics, "0123abcd");
  std::ofstream(folder_ / "token_statistics-other.json") << fmt::format(kStatistics, "77aa0011");
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(headline(json()), before);
  EXPECT_EQ(json().at("token_entropies").at("file"), "token_statistics.json");
  EXPECT_EQ(json().at("token_entropies").at("scales"), nlohmann::ordered_json::array({4.9, 5.25}));
  const std::string law = text_of(folder_ / "fit" / "law_n.csv");
  EXPECT_THAT(law, HasSubstr("bound,,loss_mean,,unigram by class,,,5.1,,"));
  EXPECT_THAT(law, HasSubstr("bound,,loss_tail,,unigram of the last scale,,,5.25,,"));
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), HasSubstr("upper bounds of the loss, and not its E"));
}

TEST_F(VarFit, RefusesTokenStatisticsThatAreNone) {
  SyntheticSweep::quickstart().write(folder_);
  std::ofstream(folder_ / "token_statistics.json") << R"({"fingerprint": "0123abcd"})";
  EXPECT_EQ(fit(), 2);
  EXPECT_THAT(err(), HasSubstr("token_statistics.json: expected what var_data inspect --json prints"));
}

TEST_F(VarFit, IsTheSameEveryTime) {
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(fit(), 0);
  const std::string first = text_of(folder_ / "fit" / "fit.json"),
                    table = text_of(folder_ / "fit" / "fits.csv");
  ASSERT_EQ(fit(), 0);
  EXPECT_EQ(text_of(folder_ / "fit" / "fit.json"), first);
  EXPECT_EQ(text_of(folder_ / "fit" / "fits.csv"), table);
}

TEST_F(VarFit, RegistersAPredictionWithoutOpeningTheDeepestRun) {
  SyntheticSweep::quickstart().write(folder_);
  const auto deepest = folder_ / "runs" / "d5-s0" / "run.h5";
  const std::string rows = text_of(deepest);
  std::ofstream(deepest) << "not readable as HDF5";
  ASSERT_EQ(fit("--register-prediction --resamples 100"), 0) << err();
  const auto prediction = base::parse_json(text_of(folder_ / "fit" / "prediction.json"));
  EXPECT_EQ(prediction.at("depth"), 5);
  EXPECT_EQ(prediction.at("deepest_had_rows"), true);
  EXPECT_FALSE(prediction.at("read").contains("d5-s0"));
  EXPECT_TRUE(prediction.at("read").contains("d4-s0"));

  std::ofstream(deepest) << rows;
  ASSERT_EQ(fit(), 0) << err();
  const nlohmann::ordered_json registered = json().at("registered_prediction");
  EXPECT_EQ(registered.at("inputs_unchanged"), true);
  const nlohmann::ordered_json loss = registered.at("metrics").at("loss_mean");
  EXPECT_EQ(loss.at("seen").at("runs"), 1);
  const nlohmann::ordered_json afterwards =
      json().at("held_out").at(0);  // the same question, asked afterwards
  EXPECT_EQ(afterwards.at("metric"), "loss_mean");
  EXPECT_EQ(afterwards.at("x"), "total");
  EXPECT_EQ(afterwards.at("predicted_gain"), loss.at("predicted_gain"));
  EXPECT_EQ(afterwards.at("gain_interval"), loss.at("gain_interval"));
}

TEST_F(VarFit, SaysWhenTheRunsOfAPredictionHaveChanged) {
  SyntheticSweep sweep = SyntheticSweep::quickstart();
  sweep.write(folder_);
  ASSERT_EQ(fit("--register-prediction --resamples 100"), 0) << err();
  sweep.noise_sd *= 1.1;
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(json().at("registered_prediction").at("inputs_unchanged"), false);
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), HasSubstr("have changed since then"));
}

TEST_F(VarFit, TakesAStatedEWithItsSource) {
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(fit("--no-figures --resamples 100 --e-mean 4.217 --e-source stated"), 0) << err();
  bool found = false;
  const nlohmann::ordered_json all = json();
  for (const auto& law : all.at("fits")) {
    if (law.at("id") != "L(N) total loss_mean E 4.217") continue;
    found = true;
    EXPECT_EQ(law.at("E_source"), "stated");
    EXPECT_NEAR(law.at("parameters").at("alpha").at("value"), 0.185,
                0.02);  // noise .0025 over two decades of size
  }
  EXPECT_TRUE(found);
}

TEST_F(VarFit, LeavesUnfinishedRunsAndOrphansOutAndSaysSo) {
  SyntheticSweep sweep = SyntheticSweep::quickstart();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.id() == "d1-s1") tables.facts["complete"] = int64_t{0};
  };
  sweep.write(folder_);
  std::filesystem::create_directories(folder_ / "runs" / "d9-s0");
  std::filesystem::copy(folder_ / "runs" / "d2-s0", folder_ / "runs" / "d2-old");
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(json().at("runs").size(), sweep.runs.size() - 1);
  EXPECT_THAT(out(), HasSubstr("d1-s1: not finished"));
  EXPECT_THAT(out(), HasSubstr("d2-old: orphan"));
}

// Three budgets a depth as branches of one trunk, all of role main.
SyntheticSweep branching() {
  SyntheticSweep sweep;
  sweep.noise_sd = 0;
  for (int64_t depth = 1; depth <= 5; ++depth)
    for (int64_t images : {3488, 7008, 14000})
      sweep.runs.push_back({depth, 0, images, "main", "trunk-d" + std::to_string(depth)});
  return sweep;
}

TEST_F(VarFit, TakesTheLongestBranchOfATrunkForTheLawInSizeAndAllForTheLawInData) {
  branching().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(headline(json()).at("runs"), 5);
  EXPECT_EQ(headline(json()).at("parameters").at("alpha").at("value"), 0.185);
  int laws_in_data = 0;
  const nlohmann::ordered_json all = json();
  for (const auto& law : all.at("fits")) {
    if (law.at("law") != "L(D)" || law.at("metric") != "loss_mean" || law.at("E_rule") != "free") continue;
    ++laws_in_data;
    EXPECT_EQ(law.at("runs"), 3);
    EXPECT_NEAR(law.at("parameters").at("alpha").at("value"), 0.3, 1e-5);
  }
  EXPECT_EQ(laws_in_data, 5);
  ASSERT_EQ(fit("--register-prediction --resamples 100"), 0) << err();
  const auto prediction = base::parse_json(text_of(folder_ / "fit" / "prediction.json"));
  EXPECT_EQ(prediction.at("runs"), 1);  // of the deepest: the longest branch alone
}

TEST_F(VarFit, DoesNotPutAShorterBranchInThePlaceOfAnUnfinishedOne) {
  SyntheticSweep sweep = branching();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.depth == 5 && run.images == 14000) tables.facts["complete"] = int64_t{0};
  };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(headline(json()).at("runs"), 4);
}

TEST_F(VarFit, FitsWhereTheLossDoesNotFallAndSaysSo) {
  SyntheticSweep sweep = SyntheticSweep::quickstart();
  sweep.law_n = {4.2, 1e-3, -0.3};
  sweep.noise_sd = 0;
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(out(), HasSubstr("does not fall with N"));
}

TEST_F(VarFit, DrawsFiguresWherePythonIsAndDoesWithoutWhereItIsNot) {
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(run(folder_.string() + " --resamples 100", "VARSCALE_PYTHON=/nowhere/python"), 0)
      << err();
  EXPECT_THAT(err(), HasSubstr("figures were left out: /nowhere/python"));
  EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), Not(HasSubstr("<svg")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit" / "figures.log"));
  const std::string python = std::string(std::getenv("VARSCALE_SOURCE")) + "/.deps/venv/bin/python";
  if (std::system((python + " -c 'import matplotlib' >/dev/null 2>&1").c_str()) == 0) {
    ASSERT_EQ(fit("--resamples 100"), 0) << err();
    for (const char* name : {"curves", "law_n", "law_c", "law_d", "residuals", "held_out", "scales"})
      for (const char* end : {".png", ".pdf", ".svg", "_narrow.svg"})
        EXPECT_TRUE(std::filesystem::exists(folder_ / "fit" / (std::string(name) + end)))
            << name << end;
    EXPECT_THAT(text_of(folder_ / "fit" / "report.html"), HasSubstr("<svg id=\"f-law_n\""));
  }
}

struct BadCase {
  const char* what;
  std::function<void(SyntheticSweep&)> change;
  const char* arguments;
  const char* sentence;
};

TEST_F(VarFit, RefusesBadInputInOneSentenceAndWritesNothing) {
  const auto on = [](const std::string& id, std::function<void(records::RunTables&)> edit) {
    return [=](SyntheticSweep& sweep) {
      sweep.change = [=](const SyntheticRun& run, records::RunTables& tables) {
        if (run.id() == id) edit(tables);
      };
    };
  };
  const BadCase cases[] = {
      {"few sizes", [](SyntheticSweep& s) { s = SyntheticSweep::quickstart(2); }, "",
       "needs as many distinct sizes"},
      {"budgets", on("d4-s0", [](auto& t) { t.facts["budget_images"] = int64_t{28000}; }), "",
       "d4-s0 has 28000"},
      {"formula", on("d2-s0", [](auto& t) { t.facts["flop_formula"] = std::string("6ND"); }), "",
       "FLOP formula"},
      {"attribute", on("d2-s0", [](auto& t) { t.facts.erase("params_total"); }), "",
       "has no attribute params_total"},
      {"diverged",
       on("d5-s0",
          [](auto& t) { t.eval.back().loss_mean = std::numeric_limits<double>::quiet_NaN(); }),
       "", "d5-s0/run.h5: the final loss_mean is not a number"},
      {"E too high", [](SyntheticSweep&) {}, "--e-mean 4.4 --e-source x", "E is given as 4.4"},
      {"E alone", [](SyntheticSweep&) {}, "--e-mean 4.2", "a stated E needs its source"},
      {"option", [](SyntheticSweep&) {}, "--sead 3", "--sead"},
      {"resamples", [](SyntheticSweep&) {}, "--resamples 5", "expected at least 100"},
  };
  for (const BadCase& bad : cases) {
    SCOPED_TRACE(bad.what);
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    SyntheticSweep sweep = SyntheticSweep::quickstart();
    bad.change(sweep);
    sweep.write(folder_);
    EXPECT_EQ(fit(std::string("--no-figures ") + bad.arguments), 2);
    EXPECT_THAT(err(), HasSubstr(bad.sentence));
    const std::string said = err();
    EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "fit"));
  }
  EXPECT_EQ(run((folder_ / "nowhere").string()), 2);
  EXPECT_THAT(err(), HasSubstr("no sweep folder"));
}

TEST_F(VarFit, RefusesAFileThatIsNotHdf5AndNamesIt) {
  SyntheticSweep::quickstart().write(folder_);
  std::ofstream(folder_ / "runs" / "d3-s0" / "run.h5") << "not HDF5";
  EXPECT_EQ(fit(), 2);
  EXPECT_THAT(err(), HasSubstr("d3-s0/run.h5"));
}

}  // namespace
}  // namespace varscale::fit
