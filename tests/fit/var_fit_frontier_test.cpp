// The compute-optimal frontier through the program, on sweeps whose law L(N, D) is known.
#include <cstdlib>

#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using nlohmann::ordered_json;
using testing::HasSubstr;
using testing::Not;

constexpr double kTrueA = 0.35 / 0.65;  // beta / (alpha + beta) of small_surface()

class VarFitFrontier : public VarFit {
 protected:
  ordered_json frontier() const { return json().at("frontier"); }
  std::string page() const { return text_of(folder_ / "fit" / "report.html"); }
};

SyntheticSweep small_grid() { return SyntheticSweep::grid(8, {20000, 80000, 320000, 1280000}); }

SyntheticSweep families() { return SyntheticSweep::isoflop({{2e13, 1, 4}, {2e14, 2, 6}, {2e15, 3, 8}}); }

ordered_json law_of(const ordered_json& frontier, const std::string& metric, const std::string& e_rule = "free") {
  for (const ordered_json& law : frontier.at("laws"))
    if (law.at("metric") == metric && law.at("E_rule") == e_rule) return law;
  return {};
}

TEST_F(VarFitFrontier, OfANoiselessGridIsThatOfItsLaw) {
  SyntheticSweep sweep = small_grid();
  sweep.noise_sd = 0;
  sweep.write(folder_);
  ASSERT_EQ(fit("--no-figures --resamples 100 --e-mean 4.2 --e-source stated"), 0) << err();
  const ordered_json law = law_of(frontier(), "loss_mean");
  const std::vector<std::pair<const char*, double>> truth = {{"E", 4.2}, {"A", 44}, {"B", 136}, {"alpha", 0.3}, {"beta", 0.35}};
  for (const auto& [name, value] : truth)
    EXPECT_NEAR(law.at("parameters").at(name).at("value").get<double>() / value, 1, 2e-6) << name;  // six digits
  EXPECT_NEAR(law.at("frontier").at("a").at("value"), kTrueA, 1e-6);
  const Frontier exact = analytic_frontier(SyntheticSweep::small_surface());
  for (const ordered_json& at : law.at("frontier").at("at")) {
    const Optimum best = exact.at(at.at("C"));
    EXPECT_NEAR(at.at("N").at("value").get<double>() / best.N, 1, 1e-5);
    EXPECT_NEAR(at.at("D").at("value").get<double>() / best.D, 1, 1e-5);
    EXPECT_NEAR(at.at("loss"), best.loss, 1e-5);
  }
  EXPECT_EQ(frontier().at("cost").at("k"), 6);
  EXPECT_EQ(frontier().at("cost").at("p"), 1);
  // loss_tail is 1.05 loss_mean + 0.01: another E, the same exponents.
  EXPECT_NEAR(law_of(frontier(), "loss_tail").at("frontier").at("a").at("value"), kTrueA, 1e-6);
  const ordered_json given = law_of(frontier(), "loss_mean", "given");
  EXPECT_NEAR(given.at("frontier").at("a").at("value"), kTrueA, 1e-6);
  EXPECT_FALSE(given.at("parameters").at("E").contains("low"));
  EXPECT_EQ(frontier().at("isoflop"), nullptr);
  EXPECT_THAT(frontier().at("notes").dump(), HasSubstr("No isoFLOP parabola: no three sizes have equal FLOPs"));
}

TEST_F(VarFitFrontier, OfANoisyGridIsNearByLawAndByEnvelope) {
  SyntheticSweep sweep = small_grid();
  sweep.noise_sd = 0.002;
  for (SyntheticRun& run : sweep.runs) run.role = "main", run.branch_of = "trunk-d" + std::to_string(run.depth);
  sweep.write(folder_);
  ASSERT_EQ(fit("--no-figures --resamples 200"), 0) << err();
  EXPECT_EQ(law_of(frontier(), "loss_mean").at("bootstrap").at("runs"), 8);  // whole trunks
  const ordered_json a = law_of(frontier(), "loss_mean").at("frontier").at("a");
  EXPECT_LT(a.at("low"), a.at("value"));
  EXPECT_GT(a.at("high"), a.at("value"));
  // Losses above E span 0.3 to 3 nats, against which noise of 0.002 moves exponents by a few hundredths.
  EXPECT_NEAR(a.at("value"), kTrueA, 0.04);
  const ordered_json ends = frontier().at("envelopes").at(0);
  EXPECT_EQ(ends.at("points"), "ends");
  EXPECT_THAT(ends.at("rules").get<std::string>(), HasSubstr("Only ends of schedules count"));
  // Few crossings, each off by what noise and the skew of wide steps move it: about 0.02 in all.
  EXPECT_NEAR(ends.at("exponents").at("a").at("value"), kTrueA, 0.06);
  EXPECT_GE(ends.at("crossings").size(), 3u);
  EXPECT_EQ(frontier().at("envelopes").at(1).at("points"), "checkpoints");
  EXPECT_THAT(page(), HasSubstr("<h2>Compute-optimal frontier</h2>"));
  EXPECT_THAT(page(), HasSubstr("the compute-optimal frontier does"));
  EXPECT_THAT(text_of(folder_ / "fit" / "frontier.csv"), HasSubstr("\nenvelope,,d"));
  EXPECT_THAT(out(), HasSubstr("compute-optimal N* grows as C^"));
}

TEST_F(VarFitFrontier, CostOfTheRunsNeedNotBeProportionalToTheirSize) {
  SyntheticSweep sweep = small_grid();
  sweep.noise_sd = 0;
  sweep.cost = {.k = 7, .n_power = 0.97};
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_NEAR(frontier().at("cost").at("p"), 0.97, 1e-6);
  EXPECT_NEAR(law_of(frontier(), "loss_mean").at("frontier").at("a").at("value"), 0.35 / (0.3 + 0.97 * 0.35), 1e-6);
}

TEST_F(VarFitFrontier, OfFamiliesOfEqualComputeHasTheBiasOfTheirParabolas) {
  SyntheticSweep sweep = families();
  sweep.noise_sd = 0;
  sweep.write(folder_);
  ASSERT_EQ(fit("--no-figures --resamples 100 --across-data"), 0) << err();
  const ordered_json isoflop = frontier().at("isoflop");
  ASSERT_EQ(isoflop.at("families").size(), 3u);
  const double a = isoflop.at("exponents").at("a").at("value"), shift = isoflop.at("bias").at("a_shift");
  EXPECT_GT(std::abs(shift), 1e-3);
  EXPECT_NEAR(a - shift, kTrueA, 2e-6);  // without noise the bias is the whole error; six digits
  const double factor = isoflop.at("bias").at("N_factor");
  const Frontier exact = analytic_frontier(SyntheticSweep::small_surface());
  double mean = 0;
  for (const ordered_json& family : isoflop.at("families"))
    mean += std::log(family.at("N").get<double>() / exact.at(family.at("C")).N) / 3;
  EXPECT_NEAR(mean, std::log(factor), 1e-5);
  EXPECT_THAT(page(), HasSubstr("by the law, these parabolas find N* times"));
}

TEST_F(VarFitFrontier, IsNotMadeOfOneBudgetAndSaysSo) {
  SyntheticSweep::quickstart().write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(frontier().at("not_fitted"),
            "A compute-optimal frontier needs 3 sizes with runs of 2 budgets each; there is 1.");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit" / "frontier.csv"));
  EXPECT_THAT(page(), Not(HasSubstr("<h2>Compute-optimal frontier</h2>")));
  EXPECT_THAT(page(), HasSubstr("no compute-optimal frontier"));
}

TEST_F(VarFitFrontier, IsNotMadeOfRunsWhoseFlopsAreCountedDifferently) {
  SyntheticSweep sweep = small_grid();
  sweep.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.id() == "d2-s0-80000") tables.facts["flop_formula"] = std::string("6ND");
  };
  sweep.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_EQ(frontier().at("not_fitted"),
            "d1-s0-20000 and d2-s0-80000 count FLOPs by different formulas (6 N per token, for tests; 6ND).");
}

TEST_F(VarFitFrontier, AcrossDataIsFittedOnlyWhenAskedAndSaidPlainly) {
  families().write(folder_);
  EXPECT_EQ(fit(), 2);
  EXPECT_THAT(err(), HasSubstr("runs of role main must agree in it (use role data or tune for the others, or --across-data)"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit"));
  ASSERT_EQ(fit("--no-figures --resamples 100 --across-data"), 0) << err();
  EXPECT_THAT(json().at("sentence").get<std::string>(), testing::StartsWith("L(N) across data: L = "));
  EXPECT_THAT(json().at("sentence").get<std::string>(), HasSubstr("whose runs saw "));
  EXPECT_THAT(headline(json()).at("caveat").get<std::string>(),
              HasSubstr("across data: what size does and what data do are not told apart"));
  EXPECT_THAT(json().at("across_data").at("caveat").get<std::string>(), HasSubstr("across data: d"));
  EXPECT_LT(json().at("across_data").at("images_least"), json().at("across_data").at("images_most"));
  EXPECT_THAT(page(), HasSubstr("L(N) was fitted across data: d"));
  EXPECT_THAT(page(), Not(HasSubstr("All runs saw the same number of images")));
  EXPECT_THAT(page(), Not(HasSubstr("at fixed data")));
}

TEST_F(VarFitFrontier, AcrossDataWithoutEffectIsRefused) {
  SyntheticSweep::quickstart().write(folder_);
  EXPECT_EQ(fit("--across-data"), 2);
  EXPECT_THAT(err(), HasSubstr("--across-data has no effect: all 8 runs of role main saw 14000 images"));
  EXPECT_EQ(fit("--across-data --register-prediction"), 2);
  EXPECT_THAT(err(), HasSubstr("--across-data with --register-prediction"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "fit"));
}

TEST_F(VarFitFrontier, IsDrawn) {
  const std::string source = std::getenv("VARSCALE_SOURCE"), python = source + "/.deps/venv/bin/python";
  if (std::system((python + " -c 'import matplotlib' >/dev/null 2>&1").c_str()) != 0) GTEST_SKIP() << "no matplotlib";
  families().write(folder_);
  ASSERT_EQ(fit("--no-figures --resamples 100 --across-data"), 0) << err();
  // Alone in a folder: the other figures have their test.
  std::filesystem::create_directories(folder_ / "alone");
  std::filesystem::copy(folder_ / "fit" / "frontier.csv", folder_ / "alone");
  EXPECT_EQ(std::system((python + " " + source + "/analysis/figures.py " + (folder_ / "alone").string()).c_str()), 0);
  for (const char* end : {".png", ".pdf", ".svg"})
    EXPECT_TRUE(std::filesystem::exists(folder_ / "alone" / (std::string("frontier") + end))) << end;
}

}  // namespace
}  // namespace varscale::fit
