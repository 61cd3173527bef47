// The sweep files that come with the project, planned on the geometry that they assume.
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <set>

#include "sweep/plan.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

using testing::HasSubstr;

Sweep ready(const std::string& name) {
  const auto none = [](const std::filesystem::path&) { return std::optional<TokenFacts>(); };
  return load_sweep(std::filesystem::path(std::getenv("VARSCALE_SOURCE")) / "sweeps" / name, {}, Purpose::kPlan, none);
}

const RunConfig& of_depth(const Sweep& sweep, int64_t depth) {
  for (const SweepRun& run : sweep.runs)
    if (run.config.model.depth == depth) return run.config;
  throw base::UserError("no run of depth {}", depth);
}

// All files of the folder but those that are no sweeps.
std::set<std::string> names_of_sweeps() {
  std::set<std::string> names;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(std::getenv("VARSCALE_SOURCE")) / "sweeps"))
    names.insert(entry.path().filename().string());
  for (const char* other : {"quickstart_tokenizer.yaml", "tokenizer256.yaml", "scores256.yaml"})
    EXPECT_EQ(names.erase(other), 1u) << other;
  return names;
}

TEST(ReadyFiles, OfSweepsArePlanned) {
  const std::set<std::string> names = names_of_sweeps();
  EXPECT_TRUE(names.contains("depth.yaml") && names.contains("quickstart.yaml")) << names.size();
  for (const std::string& name : names) {
    const Sweep sweep = ready(name);
    EXPECT_NO_THROW(make_plan(sweep, Throughput("h200"), machine_of("h200", 64))) << name;
    EXPECT_FALSE(sweep.runs.empty()) << name;
  }
}

// Planned with or without the files of others, which var_eval alone asks for.
TEST(ReadyFiles, OfImageNetAreScoredAsThePublishedTableIs) {
  struct Variables {
    const char *tokenizer, *reference, *features = "VARSCALE_INCEPTION";
  };
  const Variables at256{"VARSCALE_TOKENIZER", "VARSCALE_REFERENCE"},
      at512{"VARSCALE_TOKENIZER_512", "VARSCALE_REFERENCE_512"};
  for (const char* name : {"depth.yaml", "paper.yaml", "paper512.yaml", "isoflop.yaml", "wsd.yaml", "lr_check.yaml"}) {
    const Variables& variables = std::string(name) == "paper512.yaml" ? at512 : at256;
    for (const char* variable : {variables.tokenizer, variables.reference, variables.features}) ::unsetenv(variable);
    const Sweep without = ready(name);
    ASSERT_TRUE(without.evaluation) << name;
    const EvaluationConfig& config = *without.evaluation;
    EXPECT_EQ(config.tokenizer + config.reference + config.features, "") << name;
    EXPECT_EQ(config.name, "inception-2015-12-05") << name;
    EXPECT_EQ(config.images, 50000) << name;
    EXPECT_EQ(config.cfg, 1.5) << name;
    EXPECT_EQ(config.top_k, 900) << name;
    EXPECT_EQ(config.top_p, 0.96) << name;
    EXPECT_NE(config.grid_seed, config.seed) << name;
    EXPECT_THAT(config.cfg_grid, testing::Contains(config.cfg)) << name;

    ::setenv(variables.tokenizer, "t.safetensors", 1);
    ::setenv(variables.reference, "r.npz", 1);
    ::setenv(variables.features, "i.pth", 1);
    const Sweep with = ready(name);
    EXPECT_EQ(with.evaluation->tokenizer + with.evaluation->reference + with.evaluation->features,
              "t.safetensorsr.npzi.pth")
        << name;
    for (size_t i = 0; i < with.runs.size(); ++i) EXPECT_EQ(with.runs[i].id, without.runs[i].id);
    for (const char* variable : {variables.tokenizer, variables.reference, variables.features}) ::unsetenv(variable);
  }
}

// The public commands of d16, d20, d24, d30 and d36; everything else is marked.
TEST(ReadyFiles, OfThePaperHaveItsSettingsAndMarkWhatIsBetween) {
  const Sweep paper = ready("paper.yaml"), paper512 = ready("paper512.yaml");
  struct Published {
    int64_t depth;
    double epochs, lr, gamma, end, decay_end;
    int64_t batch;
  };
  for (const Published& want : {Published{16, 200, 3e-4, 1e-3, 0.1, 0.05, 768}, Published{20, 250, 3e-4, 1e-3, 0.1, 0.05, 768},
                                Published{24, 350, 2.4e-4, 1e-4, 0.01, 0.05, 768},
                                Published{30, 350, 3.2e-4, 1e-5, 0.01, 0.08, 1024},
                                Published{36, 350, 2.4e-4, 5e-6, 0.01, 0.08, 768}}) {
    const RunConfig& run = of_depth(want.depth == 36 ? paper512 : paper, want.depth);
    EXPECT_DOUBLE_EQ(run.train.epochs, want.epochs) << want.depth;
    EXPECT_DOUBLE_EQ(run.optimizer.lr, want.lr) << want.depth;
    EXPECT_DOUBLE_EQ(run.model.adaln_gamma_init, want.gamma) << want.depth;
    EXPECT_DOUBLE_EQ(run.schedule.end, want.end) << want.depth;
    EXPECT_DOUBLE_EQ(run.optimizer.weight_decay_end, want.decay_end) << want.depth;
    EXPECT_EQ(run.train.batch, want.batch) << want.depth;
    EXPECT_EQ(run.model.shared_adaln, want.depth == 36) << want.depth;
    EXPECT_FALSE(run.interpolated) << want.depth;
  }
  std::set<int64_t> marked;
  for (const SweepRun& run : paper.runs)
    if (run.config.interpolated) marked.insert(run.config.model.depth);
  EXPECT_EQ(marked, (std::set<int64_t>{6, 8, 10, 12, 14, 18, 22, 26, 28}));
  const std::string table = plan_table(make_plan(paper, Throughput("h200"), machine_of("h200", 64)));
  EXPECT_THAT(table, HasSubstr("main*"));
  EXPECT_THAT(table, HasSubstr("*: settings between published ones"));
}

TEST(ReadyFiles, OfEqualFlopsHaveThemInEachFamily) {
  for (const SweepRun& run : ready("isoflop.yaml").runs) {
    const double flops = run.config.train.flops;
    const bool is_budget = std::abs(flops / 3e18 - 1) < 1e-4 || std::abs(flops / 1e19 - 1) < 1e-4 ||
                           std::abs(flops / 3e19 - 1) < 1e-4 || std::abs(flops / 1e20 - 1) < 1e-4;
    EXPECT_TRUE(is_budget) << run.id << " " << flops;
  }
}

TEST(ReadyFiles, OfBranchesShareTheirFirstStepsAndKeepTheSettingsOfTheCleanSweep) {
  const Sweep wsd = ready("wsd.yaml"), depth = ready("depth.yaml");
  std::map<int64_t, std::set<int64_t>> passes;
  int64_t trunks = 0;
  for (const SweepRun& run : wsd.runs) {
    trunks += run.config.role == "trunk";
    if (!run.branch) continue;
    passes[run.config.model.depth].insert(std::llround(run.config.train.epochs));
    EXPECT_EQ(run.config.optimizer.lr, of_depth(depth, run.config.model.depth).optimizer.lr);
    EXPECT_EQ(run.config.schedule.end, 0.01);
  }
  EXPECT_EQ(passes.size(), 13u);
  for (const auto& [each, budgets] : passes) EXPECT_EQ(budgets, (std::set<int64_t>{2, 4, 8, 16})) << each;
  EXPECT_EQ(trunks, 13 + 3 * 2);
  const auto saving = make_plan(wsd, Throughput("h200"), machine_of("h200", 64)).saving();
  ASSERT_TRUE(saving);
  // Of 30 passes, 11.2 on the trunk and 30 % of 30 on the branches are left: 20.2.
  EXPECT_NEAR(saving->share(), 1 - 20.2 / 30, 1e-3);
}

TEST(ReadyFiles, CheckTheRateOfTheCleanSweepAroundItsRule) {
  const Sweep check = ready("lr_check.yaml"), depth = ready("depth.yaml");
  EXPECT_EQ(check.tune, std::vector<std::string>{"optimizer.lr"});
  std::map<int64_t, std::set<double>> factors;
  for (const SweepRun& run : check.runs) {
    const RunConfig& rule = of_depth(depth, run.config.model.depth);
    factors[run.config.model.depth].insert(std::round(run.config.optimizer.lr / rule.optimizer.lr * 1e9) / 1e9);
    EXPECT_NEAR(run.config.train.epochs / rule.train.epochs, 0.1, 1e-6);
    EXPECT_EQ(run.config.train.batch, rule.train.batch);
  }
  ASSERT_EQ(factors.size(), 3u);
  EXPECT_TRUE(factors.contains(6) && factors.contains(8));  // the two smallest
  for (const auto& [each, rates] : factors) EXPECT_EQ(rates, (std::set<double>{0.5, 1, 2})) << each;
  // It is to be cheap beside the sweep that it is for.
  const auto flops = [](const Sweep& sweep) {
    return make_plan(sweep, Throughput("h200"), machine_of("h200", 64)).total_flops();
  };
  EXPECT_LT(flops(check) / flops(depth), 0.06);
}

// A change of the settings must not move the ids of runs that people have.
TEST(ReadyFiles, KeepTheIdsOfTheirRuns) {
  const std::map<std::string, std::pair<std::string, std::string>> first_and_last{
      {"quickstart.yaml", {"d1-s0-77a572-?", "d1-s0-7191bc-?"}}, {"quickstart_fast.yaml", {"d1-s0-77a572-?", "d4-s0-57b4ee-?"}},
      {"smoke.yaml", {"d1-s0-2a7c0b-?", "d4-s0-805d02-?"}},      {"depth.yaml", {"d6-s0-6e330b-?", "d10-s2-fb9bf1-?"}},
      {"paper.yaml", {"d6-s0-468d40-?", "d30-s0-dbc024-?"}},     {"paper512.yaml", {"d36-s0-8619dd-?", "d36-s0-8619dd-?"}},
      {"isoflop.yaml", {"d4-s0-550ae4-?", "d20-s0-db8d60-?"}},   {"wsd.yaml", {"d6-s0-0ccb43-?", "d10-s2-5376b4-?"}},
      {"lr_check.yaml", {"d6-s0-88b336-?", "d20-s0-efc500-?"}}};
  for (const auto& [name, ids] : first_and_last) {
    const Sweep sweep = ready(name);
    EXPECT_EQ(std::pair(sweep.runs.front().id, sweep.runs.back().id), ids) << name;
  }
}

}  // namespace
}  // namespace varscale::sweep
