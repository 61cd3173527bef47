#include "sweep/evaluation.hpp"

#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kRuns = "name: a\ndefaults: {tokens: small.h5}\nruns:\n  - {model.depth: [1, 2]}\n";

std::string with(const std::string& section) { return std::string(kRuns) + "evaluate: " + section + "\n"; }

constexpr const char* kNeeded = "tokenizer: t.safetensors, reference: val, features: random, images: 500";

TEST(Evaluation, ReadsItsSectionAndLeavesIdsAlone) {
  EXPECT_FALSE(sweep_of(kRuns).evaluation.has_value());
  const Sweep sweep =
      sweep_of(with(fmt::format("{{{}, feature_seed: 3, cfg: 2, cfg_grid: [0, 1.5, 3], grid_images: 100, "
                                "seed: 7, grid_seed: 8, top_k: 50, top_p: 0.9, precision: bf16}}",
                                kNeeded)));
  ASSERT_TRUE(sweep.evaluation.has_value());
  const EvaluationConfig& config = *sweep.evaluation;
  EXPECT_EQ(config.tokenizer, "t.safetensors");
  EXPECT_TRUE(config.random_features());
  EXPECT_EQ(config.feature_seed, 3u);
  EXPECT_THAT(config.cfg_grid, ElementsAre(0, 1.5, 3));
  EXPECT_EQ(config.images_of_grid(), 100);
  EXPECT_EQ(config.seed, 7u);
  EXPECT_EQ(config.grid_seed, 8u);
  EXPECT_EQ(config.temperature, 1);
  ASSERT_EQ(sweep.runs.size(), 2u);
  const Sweep without = sweep_of(kRuns);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(sweep.runs[i].id, without.runs[i].id);
  EXPECT_EQ(sweep_of(with(fmt::format("{{{}}}", kNeeded))).evaluation->images_of_grid(), 500);
}

TEST(Evaluation, NamesEveryFaultWithItsLine) {
  const std::pair<std::string, std::string> table[] = {
      {"{reference: val, features: random, images: 500}", "t.yaml:5: evaluate.tokenizer is not set"},
      {"{tokenizer: t, reference: val, features: random}", "t.yaml:5: evaluate.images is not set"},
      {"", "t.yaml:5: evaluate is empty, expected tokenizer, reference, features and images"},
      {"3", "t.yaml:5: evaluate is '3', expected a map of settings"},
      {fmt::format("{{{}, name: mine}}", kNeeded),
       "t.yaml:5: unused key evaluate.name: random weights have a name already"},
      {"{tokenizer: t, reference: val, features: w.safetensors, images: 500, feature_seed: 1}",
       "t.yaml:5: unused key evaluate.feature_seed: features is not random"},
      {fmt::format("{{{}, grid_images: 100}}", kNeeded), "unused key evaluate.grid_images: there is no cfg_grid"},
      {fmt::format("{{{}, grid_seed: 2}}", kNeeded), "unused key evaluate.grid_seed: there is no cfg_grid"},
      {fmt::format("{{{}, cfg_grid: 1.5}}", kNeeded),
       "evaluate.cfg_grid is '1.5', expected a list of numbers, as in [1, 1.5, 2]"},
      {fmt::format("{{{}, cfg_grid: [1, x]}}", kNeeded), "evaluate.cfg_grid[1] is 'x', expected a number"},
      {fmt::format("{{{}, cfg_grid: [1, -2]}}", kNeeded), "evaluate.cfg_grid[1] is -2, expected at least 0"},
      {fmt::format("{{{}, cfg_grid: [2]}}", kNeeded), "evaluate.cfg_grid has one value, expected at least two"},
      {fmt::format("{{{}, cfg_grid: [2, 1, 2]}}", kNeeded), "evaluate.cfg_grid names a value twice"},
      {fmt::format("{{{}, cfg_grid: [1, 2], seed: 1}}", kNeeded), "grid_seed is seed, 1; expected another one"},
      {fmt::format("{{{}, cfg_grd: [1, 2]}}", kNeeded),
       "unknown key evaluate.cfg_grd; did you mean evaluate.cfg_grid?"},
      {"{tokenizer: t, reference: val, features: random, images: 505}",
       "t.yaml:5: evaluate.images is 505, expected a multiple of the 10 classes"},
      {fmt::format("{{{}, top_k: 300}}", kNeeded),
       "t.yaml:5: evaluate.top_k is 300, expected at most 256, the size of the vocabulary"},
  };
  for (const auto& [section, says] : table) EXPECT_THAT(refusal_of(with(section)), HasSubstr(says)) << section;
}

}  // namespace
}  // namespace varscale::sweep
