// `var_fit points` as a user starts it.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <map>

#include "fit/surface.hpp"
#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using testing::HasSubstr;

class VarFitPoints : public VarFit {
 protected:
  void SetUp() override { write(""); }

  // A file of five sizes by five data sets on a surface, with one line of `more` behind it.
  void write(const std::string& more) {
    std::ofstream file(csv_);
    file << "id,Model Size,flops,\"exact \"\"loss\"\"\",loss\n";
    const SurfaceLaw law{Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}};
    int row = 0;
    for (const double n : {5e7, 2e8, 1e9, 4e9, 1e10})
      for (const double d : {1e9, 5e9, 3e10, 1e11, 8e11}) {
        const double wave = 1 + 0.002 * ((row * 7) % 5 - 2);
        const double loss = law.at(std::array{n, d});
        file << fmt::format("r{},{},{},{:.17g},{:.17g}\r\n", row++, n, 6 * n * d, loss, loss * wave);
      }
    file << more;
  }
  int points(const std::string& more, const std::string& columns = kExact) {
    return run("points " + csv_ + " --columns '" + columns + "' --json " + json_ + " " + more);
  }
  nlohmann::ordered_json result() const { return base::parse_json(text_of(json_)); }
  // The sentence of a refusal, which leaves no file behind.
  std::string refused(const std::string& more, const std::string& columns = kExact) {
    EXPECT_EQ(points(more, columns), 2) << out() << err();
    EXPECT_FALSE(std::filesystem::exists(json_));
    const std::string sentence = err();
    EXPECT_EQ(std::count(sentence.begin(), sentence.end(), '\n'), 1) << sentence;
    return sentence;
  }

  static constexpr const char* kExact = "N=Model Size,C=flops,D=C/(6*N),loss=exact \"loss\"";
  static constexpr const char* kNoisy = "N=Model Size,C=flops,D=C/(6*N),loss=loss,run=id";
  const std::string csv_ = (folder_ / "points.csv").string(), json_ = (folder_ / "fit.json").string();
};

TEST_F(VarFitPoints, SaysWhatOtherChoicesGive) {
  ASSERT_EQ(points("--form chinchilla --resamples 100", kNoisy), 0) << err();
  const nlohmann::ordered_json rows = result().at("sensitivity").at("rows");
  std::map<std::string, nlohmann::ordered_json> constants;
  for (const auto& row : rows) constants[row.at("change")] = row.at("parameters");
  EXPECT_NEAR(constants.at("E 0.1 lower").at("E").get<double>() + 0.1, result().at("parameters").at("E").at("value").get<double>(), 1e-5);
  for (const char* change : {"lad", "without the largest D", "without the smallest N", "huber, delta 0.01"})
    EXPECT_TRUE(constants.at(change).at("beta").is_number()) << change;
  EXPECT_THAT(out(), HasSubstr("alpha lies between "));
}

TEST_F(VarFitPoints, RecoversTheSurfaceAndWritesItsNumbers) {
  ASSERT_EQ(points("--form chinchilla --resamples 100 --predict N=7e10,D=20*N", kNoisy), 0) << err();
  const nlohmann::ordered_json json = result();
  EXPECT_EQ(json.at("form"), "chinchilla");
  EXPECT_EQ(json.at("estimator"), "vpnls");
  EXPECT_EQ(json.at("space"), "linear");
  for (const char* name : {"E", "A", "B", "alpha", "beta", "a", "b"})
    for (const char* key : {"value", "se", "low", "high"}) EXPECT_TRUE(json.at("parameters").at(name).at(key).is_number()) << name << key;
  EXPECT_NEAR(json.at("parameters").at("alpha").at("value"), 0.34, 0.03);
  EXPECT_LE(json.at("parameters").at("E").at("low"), json.at("parameters").at("E").at("value"));
  for (const char* key : {"rmse", "r2", "max"}) EXPECT_TRUE(json.at("residuals").at(key).is_number()) << key;
  EXPECT_GE(json.at("starts_at_best"), 1);
  EXPECT_GE(json.at("starts"), json.at("starts_at_best"));
  EXPECT_EQ(json.at("bootstrap").at("runs"), 25);
  EXPECT_EQ(json.at("covariance").at("names").size(), 5u);
  const auto& predicted = json.at("predictions").at(0);
  EXPECT_EQ(predicted.at("D"), 1.4e12);
  const SurfaceLaw law{Form::kChinchilla, {1.69, 406.4, 410.7, 0.34, 0.28}};
  EXPECT_NEAR(predicted.at("value"), law.at(std::array{7e10, 1.4e12}), 0.03);
  EXPECT_LT(predicted.at("low"), predicted.at("high"));
  EXPECT_TRUE(json.at("held_out").is_null());
  EXPECT_THAT(out(), HasSubstr("25 of 25 rows fitted; chinchilla by vpnls in linear space"));
}

TEST_F(VarFitPoints, OfExactDataAreTheLawToSixDigitsInAnyUnits) {
  ASSERT_EQ(points("--form chinchilla --resamples 0 --space log", "size=Model Size,C=flops,N=size/1e6,D=C/(6*size)/1e9,loss=exact \"loss\""), 0)
      << err();
  const auto json = result();
  const auto value = [&](const char* name) { return json.at("parameters").at(name).at("value").get<double>(); };
  EXPECT_EQ(value("E"), 1.69);
  EXPECT_EQ(value("alpha"), 0.34);
  EXPECT_EQ(value("beta"), 0.28);
  EXPECT_NEAR(value("A"), 406.4 * std::pow(1e6, -0.34), 1e-5);
  EXPECT_NEAR(value("B"), 410.7 * std::pow(1e9, -0.28), 1e-5);
  EXPECT_FALSE(json.at("parameters").at("E").contains("se"));
  EXPECT_TRUE(json.at("covariance").is_null());
}

TEST_F(VarFitPoints, HoldsOutTheRowsThatAreAskedFor) {
  ASSERT_EQ(points("--form chinchilla --resamples 100 --where 'N > 1e8' --hold-out 'C >= 6e21 and D > 1e9'", kNoisy), 0) << err();
  const auto json = result();
  EXPECT_EQ(json.at("data").at("rows"), 25);
  const auto held = json.at("held_out");
  EXPECT_EQ(held.at("points"), held.at("rows").size());
  EXPECT_EQ(held.at("points").get<int>() + json.at("data").at("fitted").get<int>(), 20);
  EXPECT_LT(held.at("max_relative_error"), 0.02);
  EXPECT_GE(held.at("max_relative_error"), held.at("mean_relative_error"));
  for (const auto& row : held.at("rows")) EXPECT_GE(6 * row.at("N").get<double>() * row.at("D").get<double>(), 5.99e21);
}

TEST_F(VarFitPoints, FitsOneSizeByEveryEstimator) {
  // At the largest data set alone.
  const std::string rest = " --resamples 100 --where 'tokens > 5e11'";
  const std::string columns = "N=Model Size,tokens=flops/(6*N),loss=loss";
  for (const char* estimator : {"vpnls", "huber", "lad"}) {
    ASSERT_EQ(points(std::string("--form power_e --estimator ") + estimator + rest, columns), 0) << err();
    EXPECT_NEAR(result().at("parameters").at("alpha").at("value"), 0.34, 0.06) << estimator;
  }
  ASSERT_EQ(points("--form power --estimator lsq --space log" + rest, columns), 0) << err();
  EXPECT_EQ(result().at("E_rule"), "zero");
  ASSERT_EQ(points("--form power_e --estimator lsq --e 1.8 --e-source test" + rest, columns), 0) << err();
  EXPECT_EQ(result().at("E_source"), "test");
  EXPECT_FALSE(result().at("parameters").at("E").contains("se"));
}

TEST_F(VarFitPoints, AddsProfileIntervals) {
  ASSERT_EQ(points("--form chinchilla --profile --level 0.95 --resamples 0", kNoisy), 0) << err();
  const nlohmann::ordered_json json = result();
  for (const char* name : {"E", "A", "B", "alpha", "beta", "a", "b"}) {
    const auto& one = json.at("parameters").at(name);
    EXPECT_LT(one.at("profile_low"), one.at("value")) << name;
    EXPECT_GT(one.at("profile_high"), one.at("value")) << name;
    EXPECT_FALSE(one.contains("low"));
  }
  EXPECT_EQ(json.at("profile").at("level"), 0.95);
  EXPECT_EQ(json.at("profile").at("noise").at("degrees_of_freedom"), 20);
  EXPECT_THAT(out(), HasSubstr("profile intervals of 95 %: the objective rises by"));
  // One step and then noise: nothing excludes that the power has died out at once.
  std::ofstream(csv_) << "N,loss\n1e6,4.5\n2e6,4.40\n4e6,4.42\n8e6,4.36\n16e6,4.40\n";
  ASSERT_EQ(points("--form power_e --profile --resamples 100", "N=N,loss=loss"), 0) << err();
  EXPECT_TRUE(result().at("parameters").at("alpha").at("profile_high").is_null());
  EXPECT_TRUE(result().at("parameters").at("alpha").at("high").is_number());
  EXPECT_THAT(out(), HasSubstr("unbounded]"));
  // A given E has no interval.
  ASSERT_EQ(points("--form power_e --profile --resamples 0 --e 4 --e-source test", "N=N,loss=loss"), 0) << err();
  EXPECT_FALSE(result().at("parameters").at("E").contains("profile_low"));
}

TEST_F(VarFitPoints, FitsAPowerWithASmoothBreak) {
  const SurfaceLaw law{Form::kBnsl, {2.0, 40, 0.12, 0.25, 2e7, 0.6}};
  std::ofstream file(csv_);
  file << "N,loss\n";
  for (double n = 1e5; n < 5e9; n *= 2) file << fmt::format("{},{:.17g}\n", n, law.at(std::array{n}));
  file.close();
  ASSERT_EQ(points("--form bnsl --resamples 0 --predict N=1e11", "N=N,loss=loss"), 0) << err();
  for (const char* name : {"E", "B", "c0", "c1", "d", "f"})
    EXPECT_NEAR(result().at("parameters").at(name).at("value").get<double>() / law.constant(name), 1, 1e-4) << name;
  EXPECT_NEAR(result().at("predictions").at(0).at("value"), law.at(std::array{1e11}), 1e-5);
  EXPECT_THAT(out(), HasSubstr("N^-0.12 (1 + (N / 2e+07)^(1 / 0.6))^(-0.25 0.6)"));
  std::filesystem::remove(json_);
  EXPECT_THAT(refused("--form bnsl --where 'N < 5e6'", "N=N,loss=loss"), HasSubstr("needs 7 distinct sizes"));
}

TEST_F(VarFitPoints, IsTheSameEveryTime) {
  const auto once = [&](const char* seed) {
    EXPECT_EQ(points(std::string("--form chinchilla --resamples 200 --seed ") + seed, kNoisy), 0);
    return text_of(json_);
  };
  const std::string first = once("3");
  EXPECT_EQ(once("3"), first);
  EXPECT_NE(once("4"), first);
}

TEST_F(VarFitPoints, RefusesFilesAndRowsWithTheirPlace) {
  EXPECT_THAT(refused("--form chinchilla", "N=Model Size,D=tokens,loss=loss"),
              HasSubstr("points.csv:1: has no column tokens (--columns D=tokens); its columns are id, Model Size"));
  write("r9,1e9,6e18,2,nan\n");
  EXPECT_THAT(refused("--form chinchilla", kNoisy), HasSubstr("points.csv:27: loss is nan"));
  write("r9,1e9,6e18,2,-2\n");
  EXPECT_THAT(refused("--form chinchilla", kNoisy), HasSubstr("points.csv:27: loss is -2; expected a finite positive number"));
  write("r9,1e9,6e18,2,high\n");
  EXPECT_THAT(refused("--form chinchilla", kNoisy), HasSubstr("points.csv:27: loss is \"high\"; expected a number"));
  EXPECT_EQ(points("--form chinchilla --resamples 100 --where 'C != 6e18'", kNoisy), 0) << "a row that --where leaves out may hold anything: " << err();
  std::filesystem::remove(json_);
  write("r9,1e9,6e18,2\n");
  EXPECT_THAT(refused("--form chinchilla", kNoisy), HasSubstr("points.csv:27: has 4 fields; expected 5"));
  write("");
  EXPECT_THAT(refused("--form chinchilla --where 'N < 1e8'", kNoisy), HasSubstr("distinct N; there is 1 (5 of 25 rows are fitted)"));
  EXPECT_THAT(refused("--form chinchilla --e 9 --e-source test", kNoisy), HasSubstr("E is given as 9"));
  EXPECT_THAT(refused("--form chinchilla --hold-out 'N > 1e12'", kNoisy), HasSubstr("no row"));
}

TEST_F(VarFitPoints, RefusesOptionsThatDoNotFitTogether) {
  EXPECT_THAT(refused("--form bnls", kNoisy), HasSubstr("--form is bnls; expected one of bnsl, chinchilla"));
  EXPECT_THAT(refused("--form chinchilla --estimator lsq", kNoisy), HasSubstr("no straight line"));
  EXPECT_THAT(refused("--form chinchilla --estimator huber --space linear", kNoisy), HasSubstr("log space"));
  EXPECT_THAT(refused("--form chinchilla --delta 0.1", kNoisy), HasSubstr("--delta without --estimator huber"));
  EXPECT_THAT(refused("--form power --e 1 --e-source test", "N=Model Size,loss=loss"), HasSubstr("no E to give"));
  EXPECT_THAT(refused("--form chinchilla --e 1", kNoisy), HasSubstr("--e-source"));
  EXPECT_THAT(refused("--form chinchilla --resamples 0 --seed 1", kNoisy), HasSubstr("no effect"));
  EXPECT_THAT(refused("--form chinchilla --profile --estimator lad", kNoisy), HasSubstr("--estimator vpnls instead of lad"));
  EXPECT_THAT(refused("--form chinchilla --profile --level 2 --resamples 0", kNoisy), HasSubstr("--level is 2"));
  EXPECT_THAT(refused("--form chinchilla", "N=Model Size,loss=loss"), HasSubstr("D is missing"));
  EXPECT_THAT(refused("--form power_e", "N=Model Size,C=flops,loss=loss"), HasSubstr("one size; expected one of N, D and C"));
  EXPECT_THAT(refused("--form power_e", "N=Model Size,steps=flops,loss=loss"), HasSubstr("steps has no effect"));
  EXPECT_THAT(refused("--form chinchilla --where 'loss'", kNoisy), HasSubstr("--where: \"loss\" is not understood"));
  EXPECT_THAT(refused("--form chinchilla --where 'tokens > 1'", kNoisy), HasSubstr("has no column tokens (--where)"));
  EXPECT_THAT(refused("--form chinchilla --predict N=1e9", kNoisy), HasSubstr("D is missing in \"N=1e9\""));
  EXPECT_THAT(refused("--form chinchilla", "N=D,D=N,loss=loss"), HasSubstr("defined by itself"));
}

}  // namespace
}  // namespace varscale::fit
