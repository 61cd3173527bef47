// Learning rates as var_fit sees them: tuned in the sweep, their rule checked beside it, or neither.
#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// Five depths at the given rates; the best lies at 1.2 times the middle of the grid.
SyntheticSweep tuned(const std::vector<double>& rates = {0.5, 1, 2}, int64_t seeds = 1) {
  SyntheticSweep sweep;
  sweep.noise_sd = 0;
  sweep.curvature = 0.05;
  sweep.best_rate = [](int64_t) { return 1.2; };
  sweep.tune = {"optimizer.lr"};
  for (int64_t depth = 1; depth <= 5; ++depth)
    for (const double rate : rates)
      for (int64_t seed = 0; seed < seeds; ++seed)
        sweep.runs.push_back({.depth = depth, .seed = seed, .rate = rate});
  return sweep;
}

// Three rates at three depths, at a tenth of the budget.
SyntheticSweep check() {
  SyntheticSweep sweep = tuned();
  std::erase_if(sweep.runs, [](const SyntheticRun& run) { return run.depth > 2 && run.depth != 4; });
  for (SyntheticRun& run : sweep.runs) run.images = 1408;
  return sweep;
}

class Tuning : public VarFit {
 protected:
  nlohmann::ordered_json rates() const { return json().at("learning_rate"); }
  std::string page() const { return text_of(folder_ / "fit" / "report.html"); }
  std::string with_check(const SyntheticSweep& sweep) {
    const auto folder = scratch_.path() / "check";
    sweep.write(folder);
    return "--no-figures --resamples 100 --lr-check " + folder.string();
  }
};

TEST_F(Tuning, FindsTheVertexOfEachDepthAndTheLawThroughThem) {
  SyntheticSweep sweep = tuned();
  sweep.best_rate = [](int64_t depth) { return 0.8 + 0.1 * static_cast<double>(depth); };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(rates().at("state"), "lr tuned");
  ASSERT_EQ(rates().at("points").size(), 5);
  const auto fitted = rates();
  for (const auto& point : fitted.at("points")) {
    const double depth = point.at("depth");
    EXPECT_NEAR(point.at("best").get<double>() / ((0.8 + 0.1 * depth) * 6e-3 / depth), 1, 1e-5);
    EXPECT_EQ(point.at("at_edge"), false);
    EXPECT_EQ(point.at("tried").size(), 3);
  }
  // The law lies below every single run, through the vertices.
  EXPECT_EQ(headline(json()).at("runs"), 5);
  EXPECT_EQ(headline(json()).at("parameters").at("alpha").at("value"), 0.185);
  EXPECT_EQ(headline(json()).at("parameters").at("E").at("value"), 4.217);
  // The tail loss of the synthetic runs is 1.05 x loss + 0.01, and is read at the same rate.
  const nlohmann::ordered_json all = json();
  bool found = false;
  for (const auto& law : all.at("fits")) {
    if (law.at("id") != "L(N) total loss_tail E free") continue;
    found = true;
    EXPECT_NEAR(law.at("parameters").at("E").at("value"), 1.05 * 4.217 + 0.01, 2e-5);
  }
  EXPECT_TRUE(found);
  EXPECT_THAT(out(), HasSubstr("lr tuned: each point is the vertex of a parabola over its rates"));
  EXPECT_THAT(page(), AllOf(HasSubstr("lr tuned"), HasSubstr("the best of several")));
}

TEST_F(Tuning, FlagsAnOptimumAtTheEdgeAndTakesTheBestRunSeen) {
  SyntheticSweep sweep = tuned();
  sweep.best_rate = [](int64_t depth) { return depth == 4 ? 2.2 : 1.2; };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  const auto fitted = rates();
  for (const auto& point : fitted.at("points")) {
    EXPECT_EQ(point.at("at_edge"), point.at("depth") == 4);
    if (point.at("depth") != 4) continue;
    EXPECT_EQ(point.at("best"), 2 * 6e-3 / 4);
    EXPECT_EQ(point.at("loss"), point.at("tried").at(2).at("loss"));
  }
  EXPECT_THAT(rates().at("sentence"), HasSubstr("at d4 the best rate is the edge of the grid"));
  EXPECT_THAT(headline(json()).at("caveat"), HasSubstr("the best rate of d4 is the edge of its grid"));
  EXPECT_THAT(page(), HasSubstr("no: the edge is the best"));
}

TEST_F(Tuning, TakesTheBudgetsOfADepthForPointsOfTheirOwn) {
  SyntheticSweep sweep;
  for (const int64_t images : {3488, 7008, 14000}) {
    for (SyntheticRun run : tuned().runs) {
      run.images = images;
      run.branch_of = fmt::format("trunk-d{}-{}", run.depth, run.rate);
      sweep.runs.push_back(run);
    }
  }
  sweep.noise_sd = 0;
  sweep.curvature = 0.05;
  sweep.tune = {"optimizer.lr"};
  sweep.best_rate = [](int64_t depth) { return depth == 2 ? 3.0 : 1.2; };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(rates().at("points").size(), 15);
  EXPECT_THAT(rates().at("sentence"), HasSubstr("at d2 at 3488 images, d2 at 7008 images, d2 at 14000 images the best"));
  EXPECT_EQ(headline(json()).at("runs"), 5);
  const nlohmann::ordered_json all = json();
  int laws_in_data = 0;
  for (const auto& law : all.at("fits")) {
    if (law.at("law") != "L(D)" || law.at("metric") != "loss_mean" || law.at("E_rule") != "free") continue;
    ++laws_in_data;
    EXPECT_EQ(law.at("runs"), 3);
  }
  EXPECT_EQ(laws_in_data, 5);
}

TEST_F(Tuning, CarriesTheNoiseOfTheRunsIntoTheIntervals) {
  const auto alpha_width = [&](const std::vector<double>& grid, int64_t seeds, double noise) {
    SyntheticSweep sweep = tuned(grid, seeds);
    sweep.noise_sd = noise;
    sweep.write(folder_);
    EXPECT_EQ(fit("--no-figures --resamples 400"), 0) << err();
    const auto alpha = headline(json()).at("parameters").at("alpha");
    std::filesystem::remove_all(folder_ / "runs");
    return alpha.at("high").get<double>() - alpha.at("low").get<double>();
  };
  const double one = alpha_width({0.5, 1, 2}, 2, 1e-4), three = alpha_width({0.5, 1, 2}, 2, 3e-4);
  EXPECT_EQ(headline(json()).at("noise").at("source"), "repeated seeds");
  EXPECT_EQ(headline(json()).at("noise").at("degrees_of_freedom"), 15);  // a spare seed at 5 x 3 places
  EXPECT_NEAR(three / one, 3, 0.6);  // the same draws, three times as far, on a law that is nearly straight there
  alpha_width({0.25, 0.5, 1, 2, 4}, 1, 1e-4);
  EXPECT_EQ(headline(json()).at("noise").at("source"), "parabolas of the rates");
  EXPECT_EQ(headline(json()).at("noise").at("degrees_of_freedom"), 10);
  // Three rates and one seed tell no noise of a run: the residuals of the law stand in.
  alpha_width({0.5, 1, 2}, 1, 1e-4);
  EXPECT_EQ(headline(json()).at("noise").at("source"), "residuals of the fit");
}

TEST_F(Tuning, LeavesAPointOutUntilThreeOfItsRatesAreDone) {
  SyntheticSweep sweep = tuned();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.depth == 5 && run.rate == 2) tables.facts["complete"] = int64_t{0};
  };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(headline(json()).at("runs"), 4);
  EXPECT_THAT(out(), HasSubstr("d5 at 14000 images: 2 of its rates finished, and a parabola needs 3"));
}

TEST_F(Tuning, RegistersAPredictionFromTunedPoints) {
  tuned({0.5, 1, 2}, 2).write(folder_);
  ASSERT_EQ(fit("--register-prediction --resamples 100"), 0) << err();
  const auto prediction = base::parse_json(text_of(folder_ / "fit" / "prediction.json"));
  EXPECT_EQ(prediction.at("runs"), 1);
  ASSERT_EQ(fit(), 0) << err();
  const nlohmann::ordered_json registered = json().at("registered_prediction");
  EXPECT_EQ(registered.at("inputs_unchanged"), true);
  EXPECT_EQ(registered.at("metrics").at("loss_mean").at("predicted_gain"), json().at("held_out").at(0).at("predicted_gain"));
}

TEST_F(Tuning, ChecksTheRuleOfASweepByASmallOne) {
  SyntheticSweep::quickstart().write(folder_);
  SyntheticSweep beside = check();
  beside.best_rate = [](int64_t depth) { return depth == 4 ? 0.9 : 1.2; };
  ASSERT_EQ(fit(with_check(beside)), 0) << err();
  EXPECT_EQ(rates().at("state"), "lr rule checked");
  EXPECT_EQ(rates().at("sentence"),
            "lr rule checked at d1, d2, d4 with 10 % of the images: the best rate is 0.900 to 1.20 times the rule's");
  EXPECT_EQ(rates().at("points").at(0).at("best_over_rule"), 1.2);
  EXPECT_EQ(rates().at("points").at(2).at("best_over_rule"), 0.9);
  EXPECT_NEAR(rates().at("budget_share"), 0.1, 1e-3);
  EXPECT_THAT(out(), HasSubstr("lr rule checked at d1, d2, d4"));
  EXPECT_THAT(page(), AllOf(HasSubstr("lr rule checked"), HasSubstr("over the rule's")));
  // The law itself is that of the sweep's own runs.
  EXPECT_EQ(headline(json()).at("runs"), 8);
}

TEST_F(Tuning, SaysWhereTheRuleIsOffByMoreThanWasTried) {
  SyntheticSweep::quickstart().write(folder_);
  SyntheticSweep beside = check();
  beside.best_rate = [](int64_t depth) { return depth == 4 ? 5.0 : 1.2; };
  ASSERT_EQ(fit(with_check(beside)), 0) << err();
  EXPECT_THAT(rates().at("sentence"), HasSubstr("the best rate is 1.20 times the rule's; at d4 the best is 2.00 times "
                                                "the rule's, the edge of the rates tried"));
}

TEST_F(Tuning, SaysThatRatesAreUnchecked) {
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(rates().at("state"), "lr unchecked");
  EXPECT_THAT(out(), HasSubstr("lr unchecked: one rate a size"));
  EXPECT_THAT(page(), AllOf(HasSubstr("lr unchecked"), Not(HasSubstr("rates tried"))));
}

TEST_F(Tuning, RefusesACheckThatSaysNothingOfTheSweep) {
  SyntheticSweep::quickstart().write(folder_);
  SyntheticSweep untuned = check();
  untuned.tune.clear();
  EXPECT_EQ(fit(with_check(untuned)), 2);
  EXPECT_THAT(err(), HasSubstr("declares no tune: [optimizer.lr]; expected a sweep such as sweeps/lr_check.yaml"));
  SyntheticSweep other_batch = check();
  other_batch.change = [](const SyntheticRun&, records::RunTables& tables) { tables.facts["batch"] = int64_t{32}; };
  EXPECT_EQ(fit(with_check(other_batch)), 2);
  EXPECT_THAT(err(), HasSubstr("d1-tuned has a batch of 32 and d1-s0 one of 16"));
  SyntheticSweep other_depth = check();
  for (SyntheticRun& run : other_depth.runs) run.depth += 5;
  EXPECT_EQ(fit(with_check(other_depth)), 2);
  EXPECT_THAT(err(), HasSubstr("checks the rate of d6, which " + folder_.string() + " does not have"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit"));
  tuned().write(folder_);
  EXPECT_EQ(fit(with_check(check())), 2);
  EXPECT_THAT(err(), HasSubstr("its rates are tuned; it needs no --lr-check"));
}

}  // namespace
}  // namespace varscale::fit
