#include "sweep/branches.hpp"

#include <fstream>

#include "scaling/count.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Ten images a step: 100, 200 and 400 steps, whose decays begin after 70, 140 and 280.
constexpr const char* kSettings = R"(name: q
output: OUT
defaults:
  tokens: small.h5
  train: {batch: 10}
  schedule: {kind: wsd, warmup_images: 95, hold: 0.7}
runs:
)";

std::string settings(const fs::path& output = "out") {
  std::string text = kSettings;
  return text.replace(text.find("OUT"), 3, output.string());
}

Sweep branches(const fs::path& output = "out") {
  return sweep_of(settings(output) + "  - {model.depth: 2, branches: {train.images: [1000, 2000, 4000]}}\n");
}

std::string refusal(const std::string& entry, const std::vector<std::string>& overrides = {}) {
  return refusal_of(settings() + "  - {" + entry + "}\n", overrides);
}

TEST(Warmup, InImagesTakesTheSameStepsAtAnyBudget) {
  const Sweep sweep = sweep_of(settings() + "  - {train.images: [1000, 4000]}\n");
  for (const SweepRun& run : sweep.runs) {
    EXPECT_EQ(warmup_steps_of(run.config), 10);  // 95 images, in whole batches
    EXPECT_EQ(run.config.schedule.warmup_images, 100);
  }
  EXPECT_DOUBLE_EQ(sweep.runs[0].config.schedule.warmup, 0.1);
  EXPECT_DOUBLE_EQ(sweep.runs[1].config.schedule.warmup, 0.025);
  // What counts is the share that it comes to: the id is that of the share.
  const Sweep by_share = sweep_of(settings() + "  - {train.images: 1000, schedule.warmup: 0.1}\n");
  EXPECT_EQ(by_share.runs[0].id, sweep.runs[0].id);
  EXPECT_EQ(by_share.runs[0].config.schedule.warmup_images, 0);
}

TEST(Warmup, IsSaidOnceAndLeavesStepsOver) {
  EXPECT_THAT(refusal_of("name: q\ndefaults: {tokens: small.h5}\nruns:\n"
                         "  - {schedule.warmup: 0.1, schedule.warmup_images: 100}\n"),
              HasSubstr("t.yaml:4: unused key runs[0].schedule.warmup_images: runs[0].schedule.warmup sets the "
                        "warm-up already"));
  EXPECT_THAT(refusal("train.images: 100"),
              HasSubstr("t.yaml:6: schedule.warmup_images is 95: 10 of the run's 10 steps; expected fewer than all"));
}

TEST(Branches, AreTheRunsOfTheirBudgetsAfterATrunk) {
  const Sweep shared = branches();
  const Sweep alone = sweep_of(settings() + "  - {model.depth: 2, train.images: [1000, 2000, 4000]}\n");
  ASSERT_EQ(shared.runs.size(), 4u);
  const SweepRun& trunk = shared.runs[0];
  EXPECT_EQ(trunk.config.role, "trunk");
  EXPECT_EQ(trunk.config.schedule.kind, "constant");
  EXPECT_EQ(steps_of(trunk.config), 280);
  EXPECT_EQ(warmup_steps_of(trunk.config), 10);
  EXPECT_THAT(kept_steps_of(trunk.config), ElementsAre(70, 140, 280));
  EXPECT_FALSE(trunk.branch);
  for (size_t i = 0; i < 3; ++i) {
    const SweepRun& branch = shared.runs[i + 1];
    EXPECT_EQ(branch.id, alone.runs[i].id);
    EXPECT_EQ(base::dump_config(branch.config), base::dump_config(alone.runs[i].config));
    ASSERT_TRUE(branch.branch);
    EXPECT_EQ(branch.branch->trunk, trunk.id);
    EXPECT_EQ(branch.branch->trunk_hash, identity_hash(trunk.config, trunk.tokens));
    EXPECT_EQ(branch.branch->step, decay_step_of(branch.config));
  }
  EXPECT_EQ(shared.runs[1].branch->step, 70);
}

TEST(Branches, HaveATrunkForEachPointOfTheGrid) {
  const Sweep sweep = sweep_of(settings() +
                               "  - {model.depth: [1, 2], train.seed: [0, 1], train.keep_at: '300', "
                               "branches: {train: {epochs: [1, 2]}}}\n");
  std::vector<std::string> roles;
  std::set<std::string> trunks;
  for (const SweepRun& run : sweep.runs) {
    roles.push_back(run.config.role);
    if (run.branch) trunks.insert(run.branch->trunk);
  }
  EXPECT_THAT(roles, ElementsAre("trunk", "main", "main", "trunk", "main", "main", "trunk", "main", "main", "trunk",
                                 "main", "main"));
  EXPECT_EQ(trunks.size(), 4u);
  EXPECT_TRUE(kept_steps_of(sweep.runs[0].config).contains(30));  // what the user keeps is kept on the way, too
  // A rule that follows the depth is one value a trunk.
  EXPECT_EQ(refusal("model.depth: [1, 2], optimizer.lr: 6e-3 / depth, branches: {train.images: [1000, 2000]}"), "");
  // Of FLOPs and tokens, too, and without a warm-up.
  EXPECT_EQ(refusal("branches: {train.flops: [1e14, 2e14]}"), "");
  EXPECT_EQ(refusal("schedule.warmup: 0, branches: {train.tokens: [1e5, 2e5]}"), "");
}

TEST(Branches, AreRefusedWhereTheirFirstStepsDiffer) {
  const std::string budgets = "branches: {train.images: [1000, 2000]}";
  EXPECT_THAT(refusal("schedule.kind: cosine, " + budgets, {"defaults.schedule.hold=0"}),
              HasSubstr("t.yaml:8: schedule.kind is cosine; branches need wsd"));
  EXPECT_THAT(refusal("schedule.warmup: 0.02, " + budgets),
              HasSubstr("t.yaml:8: schedule.warmup is 0.02, a share of the steps"));
  EXPECT_THAT(refusal("optimizer.weight_decay_end: 0.1, " + budgets),
              HasSubstr("t.yaml:8: optimizer.weight_decay_end is 0.1 and optimizer.weight_decay 0.05"));
  EXPECT_THAT(refusal("schedule.hold: 1, " + budgets), HasSubstr("t.yaml:8: schedule.hold is 1: of 100 steps none"));
  EXPECT_THAT(refusal("schedule.warmup_images: 700, " + budgets),
              HasSubstr("t.yaml:8: runs[0].branches.train.images[0] is 1000: its decay begins after step 70 of 100, "
                        "and the warm-up takes 70: nothing is shared"));
  EXPECT_THAT(refusal("optimizer.lr: 1 / images, " + budgets),
              HasSubstr("t.yaml:8: optimizer.lr is 0.001 at 1000 images and 0.0005 at 2000; branches of one trunk "
                        "differ in budget and decay alone"));
}

TEST(Branches, AreRefusedWithoutAListOfOneKindOfBudget) {
  EXPECT_THAT(refusal("branches: [1000, 2000]"), HasSubstr("t.yaml:8: runs[0].branches[0] is not a list of budgets"));
  EXPECT_THAT(refusal("branches: {train.images: 1000}"), HasSubstr("is not a list of budgets, expected as in"));
  EXPECT_THAT(refusal("branches: {}"), HasSubstr("is not a list of budgets"));
  EXPECT_THAT(refusal("branches: {train.seed: [0, 1]}"),
              HasSubstr("t.yaml:8: runs[0].branches.train.seed is not a budget"));
  EXPECT_THAT(refusal("branches: {train.images: [1000], train.epochs: [1]}"),
              HasSubstr("unused key runs[0].branches.train.epochs: runs[0].branches.train.images sets the budget"));
  EXPECT_THAT(refusal("train.epochs: 1, branches: {train.images: [1000, 2000]}"),
              HasSubstr("t.yaml:8: unused key runs[0].train.epochs: runs[0].branches sets the budgets"));
  EXPECT_THAT(refusal("branches: {train.images: [1000, many]}"), HasSubstr("branches.train.images[1] is 'many'"));
  EXPECT_THAT(refusal("branches: {train.images: [1000, 1000]}"), HasSubstr("is asked for twice"));
}

TEST(Branches, CostWhatTheyAddToTheirTrunk) {
  const Sweep sweep = branches();
  const Plan plan = make_plan(sweep, Throughput("cpu"), machine_of("cpu", 1));
  const double step = scaling::training_flops(shape_of(sweep.runs[0].config, small_tokens()), 10);
  const double whole[] = {280, 100, 200, 400}, own[] = {280, 30, 60, 120};  // trunk, then branches
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(plan.rows[i].flops / step, whole[i], 1e-9);
    EXPECT_NEAR(plan.rows[i].own_flops / step, own[i], 1e-9);
    EXPECT_NEAR(plan.rows[i].hours * 3600 * kCpuFlopsPerCore / step, own[i], 1e-9);
  }
  EXPECT_NEAR(plan.total_flops() / step, 490, 1e-9);
  const auto saving = plan.saving();
  ASSERT_TRUE(saving);
  EXPECT_NEAR(saving->separate_flops / step, 700, 1e-9);
  EXPECT_NEAR(saving->shared_flops / step, 490, 1e-9);
  EXPECT_NEAR(saving->share(), 0.3, 1e-12);
  EXPECT_THAT(plan_table(plan), HasSubstr(fmt::format("separate runs {:.3e} FLOPs, trunk and branches {:.3e}, 30.0 % "
                                                      "saved",
                                                      700 * step, 490 * step)));
  const auto json = plan_json(plan);
  EXPECT_EQ(json["branches"]["separate_flops"], saving->separate_flops);
  EXPECT_EQ(json["branches"]["shared_flops"], saving->shared_flops);
  EXPECT_EQ(json["total"]["flops"], plan.total_flops());
  EXPECT_EQ(json["runs"][1]["branch_of"], sweep.runs[0].id);
  EXPECT_EQ(json["runs"][1]["branch_step"], 70);
  EXPECT_FALSE(json["runs"][0].contains("branch_of"));
}

TEST(Branches, DoNotCountOtherRunsAsSaved) {
  const Sweep sweep = sweep_of(settings() + "  - {model.depth: 2, branches: {train.images: [1000, 2000]}}\n"
                                            "  - {model.depth: 3, train.images: 4000}\n");
  const Plan plan = make_plan(sweep, Throughput("cpu"), machine_of("cpu", 1));
  const double step = scaling::training_flops(shape_of(sweep.runs[0].config, small_tokens()), 10);
  EXPECT_NEAR(plan.saving()->separate_flops / step, 300, 1e-9);
  EXPECT_NEAR(plan.saving()->shared_flops / step, 140 + 30 + 60, 1e-9);
  EXPECT_EQ(plan.rows[3].own_flops, plan.rows[3].flops);
  const Sweep none = sweep_of(settings() + "  - {model.depth: 3, train.images: 4000}\n");
  const Plan plain = make_plan(none, Throughput("cpu"), machine_of("cpu", 1));
  EXPECT_FALSE(plain.saving());
  EXPECT_THAT(plan_table(plain), Not(HasSubstr("saved")));
}

class BranchOrder : public testing::Test {
 protected:
  // A checkpoint as far as the ledger looks.
  void put_checkpoint(size_t run, int64_t step, const char* file = "manifest.json") {
    const fs::path folder = ledger_.run_folder(sweep_.runs[run].id) / "checkpoints" / fmt::format("step-{:09}", step);
    fs::create_directories(folder);
    std::ofstream(folder / file) << "{}";
  }
  std::optional<size_t> next(const std::set<std::string>& tried = {}) { return next_run(sweep_, ledger_, tried); }
  std::string note(size_t run) { return summarise(sweep_, ledger_).at(run).reason; }

  const TemporaryFolder folder_;
  const Sweep sweep_ = branches(folder_.path());
  const Ledger ledger_ = Ledger::open(sweep_, make_plan(sweep_, Throughput("cpu"), machine_of("cpu", 1)));
};

TEST_F(BranchOrder, LetsABranchBeginAsSoonAsItsCheckpointIsThere) {
  const std::set<std::string> trunk{sweep_.runs[0].id};
  EXPECT_EQ(next(), std::optional<size_t>(0));
  EXPECT_EQ(next(trunk), std::nullopt);
  EXPECT_EQ(note(2), "waits for step 140 of its trunk " + sweep_.runs[0].id);
  put_checkpoint(0, 70, "rank-00000.safetensors");  // being written
  EXPECT_EQ(next(trunk), std::nullopt);
  put_checkpoint(0, 140);
  EXPECT_EQ(next(trunk), std::optional<size_t>(2));
  EXPECT_EQ(note(2), "");
  EXPECT_EQ(note(1), "waits for step 70 of its trunk " + sweep_.runs[0].id);
  put_checkpoint(0, 70);
  EXPECT_EQ(next(trunk), std::optional<size_t>(1));
}

TEST_F(BranchOrder, LetsABranchGoOnFromItsOwnCheckpoint) {
  put_checkpoint(3, 300);
  EXPECT_EQ(next({sweep_.runs[0].id}), std::optional<size_t>(3));
}

TEST_F(BranchOrder, SaysWhereATrunkHasFailedForGood) {
  put_checkpoint(0, 70);
  for (int64_t i = 0; i < kMostFailures; ++i) {
    const auto claim = ledger_.take(sweep_.runs[0]);
    ledger_.start(sweep_.runs[0], claim->attempt());
    ledger_.fail(sweep_.runs[0], claim->attempt(), "diverged");
  }
  EXPECT_EQ(next(), std::optional<size_t>(1));  // its step was reached
  EXPECT_EQ(next({sweep_.runs[1].id}), std::nullopt);
  EXPECT_EQ(note(3), "cannot begin: its trunk " + sweep_.runs[0].id + " has failed before step 280");
  EXPECT_THAT(summary_table("q", summarise(sweep_, ledger_)), HasSubstr("cannot begin: its trunk"));
}

TEST_F(BranchOrder, SaysWhereATrunksCheckpointIsGone) {
  {
    const auto claim = ledger_.take(sweep_.runs[0]);
    ledger_.start(sweep_.runs[0], claim->attempt());
    ledger_.finish(sweep_.runs[0], claim->attempt());
  }
  EXPECT_EQ(next(), std::nullopt);
  EXPECT_THAT(note(1), AllOf(HasSubstr("is done, but its checkpoint of step 70 is gone"), HasSubstr(sweep_.runs[0].id)));
}

}  // namespace
}  // namespace varscale::sweep
