// What var_fit refuses, or says beside its numbers: one sentence each, with the place.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "tests/fit/var_fit_program.hpp"

namespace varscale::fit {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Refused : public VarFit {
 protected:
  // Points of L = 2 + 30 x^-0.25 with a unit and a FLOP formula; `change` has the last word on a row's text.
  void write_points(int rows, const std::function<void(int, std::string&)>& change = {}) {
    std::ofstream file(csv_);
    file << "N,loss,unit,flop_formula,tokenizer\n";
    for (int k = 0; k < rows; ++k) {
      const double n = 1e6 * std::pow(3.0, k);
      std::string row = fmt::format("{:.6g},{:.17g},nats,6ND,1f3a9c02", n, 2 + 30 * std::pow(n, -0.25) + 1e-3 * ((k * 5) % 3 - 1));
      if (change) change(k, row);
      file << row << "\n";
    }
  }
  // The one line of a refusal, which leaves no file behind.
  std::string points(const std::string& more) {
    EXPECT_EQ(run("points " + csv_ + " --columns N=N,loss=loss --same unit,flop_formula,tokenizer --json " + json_ + " " + more), 2) << out();
    EXPECT_FALSE(std::filesystem::exists(json_));
    return one_line();
  }
  std::string sweep(const SyntheticSweep& sweep, const std::string& more = "--no-figures --resamples 100") {
    sweep.write(folder_);
    EXPECT_EQ(fit(more), 2) << out();
    EXPECT_FALSE(std::filesystem::exists(folder_ / "fit"));
    return one_line();
  }
  std::string one_line() const {
    const std::string sentence = err();
    EXPECT_EQ(std::count(sentence.begin(), sentence.end(), '\n'), 1) << sentence;
    EXPECT_THAT(sentence, HasSubstr(folder_.string())) << "without its place";
    std::fputs(sentence.c_str(), stdout);  // the table of a test log
    return sentence;
  }
  static SyntheticSweep sizes(int64_t count) {
    SyntheticSweep sweep;
    for (int64_t depth = 1; depth <= count; ++depth) sweep.runs.push_back({depth, 0});
    return sweep;
  }

  const std::string csv_ = (folder_ / "points.csv").string(), json_ = (folder_ / "fit.json").string();
};

TEST_F(Refused, TooFewSizesForTheForm) {
  write_points(2);
  EXPECT_THAT(points("--form power_e"), AllOf(HasSubstr("points.csv: "), HasSubstr("power_e with 3 constants needs as many distinct sizes; there are 2")));
  EXPECT_THAT(sweep(sizes(2)), HasSubstr("power_e with E free has 3 constants and needs as many distinct sizes; there are 2"));
}

TEST_F(Refused, AnEAboveTheSmallestLoss) {
  write_points(6);
  EXPECT_THAT(points("--form power_e --e 2.7 --e-source test"), HasSubstr("E is given as 2.7, which is not between 0 and the smallest value 2."));
  EXPECT_THAT(sweep(sizes(4), "--no-figures --e-mean 5 --e-source test"), HasSubstr("E is given as 5, which is not between 0 and the smallest value"));
}

TEST_F(Refused, RowsThatAreNoNumbers) {
  write_points(6, [](int k, std::string& row) {
    if (k == 3) row = "27e6,nan,nats,6ND,1f3a9c02";
  });
  EXPECT_THAT(points("--form power_e"), HasSubstr("points.csv:5: loss is nan; expected a finite number"));
  SyntheticSweep with_nan = sizes(4);
  with_nan.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.depth == 3) tables.eval.back().loss_mean = std::numeric_limits<double>::quiet_NaN();
  };
  EXPECT_THAT(sweep(with_nan), AllOf(HasSubstr("d3-s0/run.h5"), HasSubstr("loss")));
}

TEST_F(Refused, MixedUnits) {
  write_points(6, [](int k, std::string& row) {
    if (k == 4) row = "81e6,3.3,bits,6ND,1f3a9c02";
  });
  EXPECT_THAT(points("--form power_e"), HasSubstr("points.csv:6: unit is \"bits\", and in line 2 \"nats\"; one fit takes one (--same)"));
}

TEST_F(Refused, MixedFlopFormulas) {
  write_points(6, [](int k, std::string& row) {
    if (k == 2) row = "9e6,2.5,nats,exact,1f3a9c02";
  });
  EXPECT_THAT(points("--form power_e"), HasSubstr("points.csv:4: flop_formula is \"exact\", and in line 2 \"6ND\""));
  SyntheticSweep two = sizes(4);
  two.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.depth == 3) tables.facts["flop_formula"] = std::string("exact");
  };
  EXPECT_THAT(sweep(two), AllOf(HasSubstr("d1-s0 has the FLOP formula"), HasSubstr("d3-s0 has exact")));
}

TEST_F(Refused, MixedTokenizers) {
  write_points(6, [](int k, std::string& row) {
    if (k == 5) row = "243e6,2.2,nats,6ND,77aa0011";
  });
  EXPECT_THAT(points("--form power_e"), HasSubstr("points.csv:7: tokenizer is \"77aa0011\", and in line 2 \"1f3a9c02\""));
  // A sweep's runs on other tokens are fitted apart, and no fit takes too few of them.
  SyntheticSweep two = sizes(4);
  two.change = [](const SyntheticRun& run, records::RunTables& tables) {
    if (run.depth > 2) tables.facts["tokens_fingerprint"] = std::string("77aa0011");
  };
  EXPECT_THAT(sweep(two), HasSubstr("2 kinds of tokens, which are fitted apart, and none has enough runs"));
}

TEST_F(Refused, RunsWhoseDataDiffer) {
  SyntheticSweep two = sizes(4);
  two.runs.back().images = 28000;
  EXPECT_THAT(sweep(two), AllOf(HasSubstr("a budget in images of 14000"), HasSubstr("d4-s0-28000 has 28000")));
}

// Not refused, and not hidden.
TEST_F(Refused, AParameterAtItsBoundIsNamed) {
  write_points(6, [](int k, std::string& row) { row = fmt::format("{},{},nats,6ND,1f3a9c02", 1e6 * (k + 1), 3 + 0.1 * k); });
  ASSERT_EQ(run("points " + csv_ + " --form power_e --columns N=N,loss=loss --resamples 100"), 0) << err();
  EXPECT_THAT(out(), HasSubstr("a constant lies on its bound: B = 0"));
  SyntheticSweep rising = sizes(4);
  rising.law_n = {4, 0, 0.2};
  rising.noise_sd = 0;
  rising.change = [](const SyntheticRun& run, records::RunTables& tables) { tables.eval.back().loss_mean = 4 + 0.01 * static_cast<double>(run.depth); };
  rising.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(out(), HasSubstr("the values do not fall: no power law"));
}

// Values that fall along ln N have the smallest exponent of the search, and no beta in the paper's form.
TEST_F(Refused, AnExponentAtItsBoundIsNamed) {
  SyntheticSweep flat = sizes(4);
  flat.change = [](const SyntheticRun& run, records::RunTables& tables) {
    tables.eval.back().loss_mean = 4.2 - 1e-4 * std::log(run.params_total());
    tables.eval.back().loss_tail = tables.eval.back().loss_mean;
  };
  flat.write(folder_);
  ASSERT_EQ(fit(), 0) << err();
  EXPECT_THAT(out(), HasSubstr("alpha = 0.001 lies on its bound"));
  for (const auto& law : json().at("beside_the_paper"))
    EXPECT_THAT(law.at("metric").get<std::string>(), testing::StartsWith("err")) << law;
}

}  // namespace
}  // namespace varscale::fit
