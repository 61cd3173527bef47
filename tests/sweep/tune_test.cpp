#include "sweep/tune.hpp"

#include "sweep/plan.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

std::string text(const std::string& entries, const std::string& tune = "tune: [optimizer.lr]") {
  return "name: q\n" + tune + "\ndefaults: {tokens: small.h5, train.batch: 10}\nruns:\n" + entries;
}

constexpr const char* kThree = "  - {model.depth: [1, 2], optimizer.lr: [1e-4, 2e-4, 4e-4], train.images: 1000}\n";

TEST(Tune, IsDeclaredAndComesIntoThePlan) {
  const Sweep sweep = sweep_of(text(kThree));
  EXPECT_THAT(sweep.tune, ElementsAre("optimizer.lr"));
  EXPECT_EQ(sweep.runs.at(0).config.role, "main");
  const Plan plan = make_plan(sweep, Throughput("cpu"), machine_of("cpu", 1));
  EXPECT_EQ(plan_json(plan)["tune"][0], "optimizer.lr");
  EXPECT_EQ(plan_json(plan)["runs"][1]["lr"], 2e-4);
  EXPECT_THAT(plan_table(plan), testing::AllOf(HasSubstr(" lr "), HasSubstr("0.0004")));
  const Plan plain = make_plan(sweep_of(text(kThree, "")), Throughput("cpu"), machine_of("cpu", 1));
  EXPECT_FALSE(plan_json(plain).contains("tune"));
  EXPECT_THAT(plan_table(plain), Not(HasSubstr(" lr ")));
}

TEST(Tune, NeedsThreeValuesAtEachDepthAndBudget) {
  EXPECT_THAT(refusal_of(text("  - {model.depth: 1, optimizer.lr: [1e-4, 2e-4, 4e-4], train.images: 1000}\n"
                              "  - {model.depth: 2, optimizer.lr: [1e-4, 2e-4], train.images: 1000}\n")),
              HasSubstr("t.yaml:6: d2 at 1000 images has 2 values of optimizer.lr; tune needs at least 3"));
  EXPECT_THAT(refusal_of(text("  - {model.depth: 1, optimizer.lr: [1e-4, 2e-4, 4e-4], train.images: 1000}\n"
                              "  - {model.depth: 1, optimizer.lr: 1e-4, train.images: 2000}\n")),
              HasSubstr("t.yaml:6: d1 at 2000 images has 1 value of optimizer.lr"));
  // Values of several entries count together, seeds do not count, and other roles are not tuned.
  EXPECT_EQ(refusal_of(text("  - {model.depth: 1, optimizer.lr: [1e-4, 2e-4], train: {images: 1000, seed: [0, 1]}}\n"
                            "  - {model.depth: 1, optimizer.lr: 4e-4, train.images: 1000}\n"
                            "  - {role: data, model.depth: 1, train.images: 2000}\n")),
            "");
  EXPECT_THAT(refusal_of(text("  - {model.depth: 1, optimizer.lr: [1e-4, 2e-4], train: {images: 1000, seed: [0, 1]}}\n")),
              HasSubstr("has 2 values of optimizer.lr"));
  EXPECT_THAT(refusal_of(text("  - {role: data, model.depth: 1}\n")),
              HasSubstr("t.yaml:2: tune: no run has role main, which is what is tuned"));
}

TEST(Tune, WantsAllElseEqualInAPoint) {
  EXPECT_THAT(refusal_of(text("  - {model.depth: 1, optimizer.lr: [1e-4, 2e-4, 4e-4], train.images: 1000}\n"
                              "  - {model.depth: 1, optimizer: {lr: 8e-4, beta2: 0.99}, train.images: 1000}\n")),
              testing::AllOf(HasSubstr("t.yaml:6: d1 at 1000 images: "), HasSubstr("differ in more than optimizer.lr")));
}

TEST(Tune, IsOfEachKindOfTokensApart) {
  const std::string two = "  - {tokens: [small.h5, imagenet.h5], model.depth: 1, train.images: 1000, optimizer.lr: ";
  EXPECT_EQ(refusal_of(text(two + "[1e-4, 2e-4, 4e-4]}\n")), "");
  EXPECT_THAT(refusal_of(text(two + "[1e-4, 2e-4]}\n")), HasSubstr("d1 at 1000 images has 2 values of optimizer.lr"));
}

TEST(Tune, GoesWithBranches) {
  const Sweep sweep = sweep_of(
      "name: q\ntune: [optimizer.lr]\ndefaults: {tokens: small.h5, train.batch: 10, schedule: {warmup: 0, hold: 0.7}}\n"
      "runs: [{model.depth: 1, optimizer.lr: [1e-4, 2e-4, 4e-4], branches: {train.images: [1000, 2000]}}]\n");
  EXPECT_EQ(sweep.runs.size(), 9u);  // a trunk for each rate
}

TEST(Tune, RefusesWhatCannotBeTuned) {
  EXPECT_THAT(refusal_of(text(kThree, "tune: [optimizer.beta2]")),
              HasSubstr("t.yaml:2: tune[0] is 'optimizer.beta2', expected optimizer.lr"));
  EXPECT_THAT(refusal_of(text(kThree, "tune: optimizer.lr")), HasSubstr("t.yaml:2: tune is not a list"));
  EXPECT_EQ(sweep_of(text(kThree, "tune: []")).tune.size(), 0u);
}

}  // namespace
}  // namespace varscale::sweep
