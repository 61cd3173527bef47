// `var_fit compare` on sweeps with known laws.
#include <cmath>

#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;

class VarFitCompare : public VarFit {
 protected:
  // Sweeps "first" and "second" of five sizes, each with repeated seeds.
  void write(const PowerLaw& first, const PowerLaw& second, double sd = 0.001) {
    for (const auto& [where, law] : {std::pair{first_, first}, std::pair{second_, second}}) {
      SyntheticSweep sweep;
      sweep.law_n = law;
      sweep.noise_sd = sd;
      const int64_t other = where == first_ ? 0 : 10;  // other seeds in the other sweep
      for (int64_t depth = 1; depth <= 5; ++depth)
        for (int64_t seed = 0; seed < 2; ++seed) sweep.runs.push_back({depth, other + seed});
      sweep.change = change_;
      sweep.write(where);
      change_ = {};
    }
  }
  int compare(const std::string& more = "") {
    return run("compare " + first_.string() + " " + second_.string() + " --no-figures --resamples 200 " + more);
  }
  nlohmann::ordered_json result() const {
    return base::parse_json(text_of(first_ / "fit" / "compare-second" / "compare.json"));
  }

  const std::filesystem::path first_ = folder_ / "first", second_ = folder_ / "second";
  std::function<void(const SyntheticRun&, records::RunTables&)> change_;  // of the first sweep
};

// The second sweep's models are worth 1.5 times their size: L_2(N) = L_1(1.5 N).
TEST_F(VarFitCompare, SaysWhatAChangeIsWorth) {
  const PowerLaw first{4.217, 2.32, 0.185};
  write(first, {first.E, first.B * std::pow(1.5, -first.alpha), first.alpha});
  ASSERT_EQ(compare(), 0) << err();
  const nlohmann::ordered_json law = result().at("laws").at(0);
  EXPECT_EQ(law.at("law"), "L(N)");
  const auto& difference = law.at("exponent_difference");
  EXPECT_LT(difference.at("low"), 0);
  EXPECT_GT(difference.at("high"), 0);
  EXPECT_THAT(result().at("sentence").get<std::string>(), HasSubstr("the exponents are not told apart"));
  const auto& multiplier = law.at("multiplier");
  EXPECT_LT(multiplier.at("low"), 1.5);
  EXPECT_GT(multiplier.at("high"), 1.5);
  EXPECT_GT(multiplier.at("low"), 1);  // the noise is small: better, surely
  // L_2 - L_1 at the smallest common size, d1.
  const auto& at_d1 = law.at("loss_differences").at(0);
  const double n = at_d1.at("x"), truth = first.B * std::pow(n, -first.alpha) * (std::pow(1.5, -first.alpha) - 1);
  EXPECT_LT(at_d1.at("low"), truth);
  EXPECT_GT(at_d1.at("high"), truth);
  EXPECT_THAT(out(), HasSubstr("second at N is worth first at "));
}

TEST_F(VarFitCompare, TellsExponentsApart) {
  write({4.217, 2.32, 0.185}, {4.217, 10, 0.4}, 1e-4);
  ASSERT_EQ(compare("--json"), 0) << err();
  EXPECT_THAT(out(), HasSubstr("the exponents differ"));
  const auto difference = result().at("laws").at(0).at("exponent_difference");
  EXPECT_GT(difference.at("low"), 0);
  EXPECT_LT(difference.at("low"), 0.215);
  EXPECT_GT(difference.at("high"), 0.215);
}

TEST_F(VarFitCompare, ComparesExponentsAloneOnOtherTokens) {
  change_ = [](const SyntheticRun&, records::RunTables& tables) { tables.facts["tokens_fingerprint"] = std::string("89abcdef"); };
  write({4.217, 2.32, 0.185}, {4.217, 2.32, 0.185});
  ASSERT_EQ(compare(), 0) << err();
  EXPECT_THAT(out(), HasSubstr("they differ in: tokens 89abcdef cached and 0123abcd cached"));
  EXPECT_THAT(out(), HasSubstr("losses are in no common unit"));
  const nlohmann::ordered_json law = result().at("laws").at(0);
  EXPECT_TRUE(law.at("multiplier").is_null());
  EXPECT_TRUE(law.at("loss_differences").empty());
  EXPECT_TRUE(law.at("one_exponent").at("alpha").is_number());
}

TEST_F(VarFitCompare, LeavesNothingBehindWhenRefused) {
  write({4.217, 2.32, 0.185}, {4.217, 2.32, 0.185});
  EXPECT_EQ(run("compare " + first_.string() + " " + first_.string()), 2);
  EXPECT_THAT(err(), HasSubstr("is both sweeps; expected two"));
  EXPECT_EQ(run("compare " + first_.string() + " " + (folder_ / "none").string()), 2);
  EXPECT_THAT(err(), HasSubstr("none: no sweep folder"));
  EXPECT_EQ(compare("--metric loss"), 2);
  EXPECT_THAT(err(), HasSubstr("--metric is loss; expected loss_mean"));
  std::filesystem::remove_all(second_ / "runs" / "d4-s10");
  for (const char* gone : {"d4-s11", "d3-s10", "d3-s11", "d2-s10", "d2-s11"}) std::filesystem::remove_all(second_ / "runs" / gone);
  EXPECT_EQ(compare(), 2);
  EXPECT_THAT(err(), HasSubstr("second: the form power_e with E free has 3 constants"));
  EXPECT_FALSE(std::filesystem::exists(first_ / "fit"));
}

}  // namespace
}  // namespace varscale::fit
