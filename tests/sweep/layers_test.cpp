// Where a run's settings come from: defaults, recipes, depths, entries, included files, the environment; and
// the four ways to state its budget.
#include <fmt/format.h>

#include <cstdlib>

#include "scaling/count.hpp"
#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int64_t> images_of(const Sweep& sweep) {
  std::vector<int64_t> images;
  for (const SweepRun& run : sweep.runs) images.push_back(run.config.train.images);
  return images;
}

Sweep load(const std::filesystem::path& path, const std::vector<std::string>& overrides = {}) {
  return load_sweep(path, overrides, Purpose::kTrain, stated_tokens);
}

std::string load_refusal(const std::filesystem::path& path) {
  try {
    load(path);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "";
}

// 14,000 training images of 85 tokens.
TEST(Budget, IsInImagesEpochsTokensOrFlops) {
  const Sweep sweep = sweep_of(R"(name: q
defaults: {tokens: small.h5, train.batch: 10}
runs:
  - {model.depth: 2, train.images: 700}
  - {model.depth: 2, train.epochs: 0.1}
  - {model.depth: 2, train.tokens: 8.5e5}
)");
  EXPECT_THAT(images_of(sweep), ElementsAre(700, 1400, 10000));
  for (const SweepRun& run : sweep.runs) {
    const double images = static_cast<double>(run.config.train.images);
    EXPECT_DOUBLE_EQ(run.config.train.tokens, 85 * images);
    EXPECT_DOUBLE_EQ(run.config.train.epochs, images / 14000);
    EXPECT_DOUBLE_EQ(run.config.train.flops, scaling::training_flops(shape_of(run.config, run.tokens), images));
  }
}

TEST(Budget, OfEqualFlopsGivesSmallerModelsMoreImages) {
  const Sweep sweep = sweep_of(
      "name: q\ndefaults: {tokens: small.h5}\n"
      "runs: [{model.depth: [1, 2, 4], train.flops: [1e14, 4e14]}]\n");
  ASSERT_EQ(sweep.runs.size(), 6u);
  for (size_t i = 0; i < 6; i += 2) {
    const double one = scaling::training_flops(shape_of(sweep.runs[i].config, sweep.runs[i].tokens), 1);
    EXPECT_NEAR(sweep.runs[i].config.train.flops, 1e14, 0.51 * one);
    EXPECT_NEAR(sweep.runs[i + 1].config.train.flops, 4e14, 0.51 * one);
  }
  EXPECT_GT(sweep.runs[0].config.train.images, 3 * sweep.runs[2].config.train.images);
}

TEST(Budget, IsOneRunHoweverItIsStated) {
  const std::string head = "name: q\ndefaults: {tokens: small.h5, model.depth: 2}\nruns: ";
  const std::string id = sweep_of(head + "[{train.images: 1400}]\n").runs.at(0).id;
  EXPECT_EQ(sweep_of(head + "[{train.epochs: 0.1}]\n").runs.at(0).id, id);
  EXPECT_EQ(sweep_of(head + "[{train.tokens: 119000}]\n").runs.at(0).id, id);
  const double flops = sweep_of(head + "[{train.images: 1400}]\n").runs.at(0).config.train.flops;
  EXPECT_EQ(sweep_of(head + fmt::format("[{{train.flops: {:.17g}}}]\n", flops)).runs.at(0).id, id);
}

TEST(Budget, OfAnEntryReplacesAnyOfTheDefaults) {
  for (const char* standard : {"train.images: 90", "train.epochs: 3", "train.tokens: 9e4", "train.flops: 1e15"})
    EXPECT_THAT(images_of(sweep_of(fmt::format("name: q\ndefaults: {{tokens: small.h5, {}}}\n"
                                               "runs: [{{model.depth: 2, train.tokens: 8.5e5}}]\n",
                                               standard))),
                ElementsAre(10000));
}

TEST(Budget, IsStatedOnce) {
  EXPECT_THAT(refusal_of("name: q\ndefaults: {tokens: small.h5}\n"
                         "runs: [{model.depth: 2, train.tokens: 1e6, train.flops: 1e15}]\n"),
              HasSubstr("t.yaml:3: unused key runs[0].train.flops: runs[0].train.tokens sets the budget already"));
  EXPECT_THAT(refusal_of("name: q\ndefaults: {tokens: small.h5}\nruns: [{model.depth: 2, train.flops: 1e40}]\n"),
              HasSubstr("train.flops is 1e+40: "));
}

TEST(Budget, GivesFormulasItsImages) {
  const Sweep sweep = sweep_of(
      "name: q\ndefaults: {tokens: small.h5, optimizer.lr: 1 / images}\n"
      "runs: [{model.depth: 2, train.tokens: 8.5e5}]\n");
  EXPECT_DOUBLE_EQ(sweep.runs.at(0).config.optimizer.lr, 1e-4);
}

constexpr const char* kLayered = R"(name: q
defaults: {tokens: small.h5, train: {batch: 8, epochs: 1}, optimizer.lr: 1e-3}
recipes:
  large: {train.batch: 16, optimizer.lr: 2e-3}
  long: {train.images: 28000}
by_depth:
  4: {train.batch: 32}
runs:
  - {model.depth: [2, 4]}
  - {model.depth: [2, 4], recipe: [large, long]}
  - {model.depth: 4, recipe: large, train.batch: 64}
)";

TEST(Layers, AnEntryGoesBeforeItsDepthThatBeforeItsRecipeThatBeforeTheDefaults) {
  std::vector<std::string> runs;
  for (const SweepRun& run : sweep_of(kLayered).runs)
    runs.push_back(fmt::format("d{} {} {} {}", run.config.model.depth, run.config.train.batch, run.config.optimizer.lr,
                               run.config.train.images));
  EXPECT_THAT(runs, ElementsAre("d2 8 0.001 14000", "d4 32 0.001 14000",                             //
                                "d2 16 0.002 14000", "d2 8 0.001 28000", "d4 32 0.002 14000", "d4 32 0.001 28000",
                                "d4 64 0.002 14000"));
}

TEST(Layers, ARecipeOrDepthThatNoRunHasIsAFault) {
  EXPECT_THAT(refusal_of("name: q\nrecipes:\n  old: {train.batch: 4}\nruns: [{tokens: small.h5}]\n"),
              HasSubstr("t.yaml:3: unused recipe old: no entry of runs names it"));
  EXPECT_THAT(refusal_of("name: q\nby_depth:\n  7: {train.batch: 4}\nruns: [{tokens: small.h5, model.depth: 2}]\n"),
              HasSubstr("t.yaml:3: unused key by_depth.7: no run has this depth"));
  EXPECT_THAT(refusal_of("name: q\nby_depth:\n  deep: {train.batch: 4}\nruns: [{tokens: small.h5}]\n"),
              HasSubstr("t.yaml:3: by_depth.deep is not of a depth"));
  EXPECT_THAT(refusal_of("name: q\nrecipes: {large: {train.batch: 4}}\nruns: [{tokens: small.h5, recipe: lagre}]\n"),
              HasSubstr("t.yaml:3: runs[0].recipe is 'lagre', expected a name under recipes; did you mean large?"));
  EXPECT_THAT(refusal_of("name: q\nrecipes: {large: {train.bacth: 4}}\nruns: [{tokens: small.h5, recipe: large}]\n"),
              HasSubstr("t.yaml:2: unknown key recipes.large.train.bacth; did you mean train.batch?"));
  EXPECT_THAT(refusal_of("name: q\ndefaults: {recipe: large}\nruns: [{tokens: small.h5}]\n"),
              HasSubstr("t.yaml:2: unknown key defaults.recipe"));
}

TEST(Include, TakesWhatTheFileItselfDoesNotSay) {
  const base::TemporaryFolder folder;
  folder.write("base.yaml", "name: base\ndefaults: {tokens: small.h5, train: {batch: 8, epochs: 2}}\n"
                            "recipes: {large: {train.batch: 32}}\nruns: [{model.depth: 9}]\n");
  const auto path = folder.write("own.yaml", "include: base.yaml\nname: own\ndefaults: {train.images: 100}\n"
                                             "runs: [{model.depth: 2}, {model.depth: 2, recipe: large}]\n");
  const Sweep sweep = load(path);
  EXPECT_EQ(sweep.name, "own");
  EXPECT_EQ(sweep.output, "results/own");
  ASSERT_EQ(sweep.runs.size(), 2u);
  EXPECT_EQ(sweep.runs[0].config.train.batch, 8);
  EXPECT_EQ(sweep.runs[0].config.train.images, 100);
  EXPECT_EQ(sweep.runs[1].config.train.batch, 32);
  EXPECT_THAT(sweep.text, HasSubstr("#   name: base\n"));
  EXPECT_EQ(load(path, {"defaults.train.batch=4"}).runs[0].config.train.batch, 4);
}

TEST(Include, NamesTheFileThatIsAtFault) {
  const base::TemporaryFolder folder;
  folder.write("base.yaml", "defaults: {tokens: small.h5,\n  train: {bacth: 8}}\n");
  const auto path = folder.write("own.yaml", "name: own\ninclude: [base.yaml]\nruns: [{model.depth: 2}]\n");
  EXPECT_THAT(load_refusal(path), HasSubstr("base.yaml:2: unknown key defaults.train.bacth; did you mean"));
  folder.write("base.yaml", "defaults: {tokens: [\n");
  EXPECT_THAT(load_refusal(path), HasSubstr("base.yaml:1: not valid YAML"));
  EXPECT_THAT(load_refusal(folder.write("lost.yaml", "name: x\ninclude: nowhere.yaml\nruns: []\n")),
              testing::AllOf(HasSubstr("lost.yaml:2: cannot include "), HasSubstr("nowhere.yaml")));
  EXPECT_THAT(load_refusal(folder.write("ring.yaml", "name: x\ninclude: ring.yaml\nruns: []\n")),
              HasSubstr("ring.yaml:2: more than 10 files include one another"));
  EXPECT_THAT(load_refusal(folder.write("map.yaml", "include: {a: b}\nname: x\nruns: []\n")),
              HasSubstr("map.yaml:1: include is a map, expected"));
}

TEST(Environment, StandsInValues) {
  ::setenv("VARSCALE_TEST_TOKENS", "small", 1);
  ::unsetenv("VARSCALE_TEST_NOTHING");
  const base::TemporaryFolder folder;
  const auto path = folder.write("e.yaml", "name: q\noutput: ${VARSCALE_TEST_NOTHING:-out}/x\n"
                                           "defaults: {tokens: '${VARSCALE_TEST_TOKENS}.h5'}\n"
                                           "runs: [{model.depth: '${VARSCALE_TEST_NOTHING:-3}'}]\n");
  const Sweep sweep = load(path);
  EXPECT_EQ(sweep.output, "out/x");
  EXPECT_EQ(sweep.runs.at(0).config.model.depth, 3);
  EXPECT_THAT(load_refusal(folder.write("unset.yaml", "name: q\nruns:\n - {tokens: '${VARSCALE_TEST_NOTHING}'}\n")),
              HasSubstr("unset.yaml:3: runs[0].tokens names the environment variable VARSCALE_TEST_NOTHING, which is "
                        "not set"));
  EXPECT_THAT(load_refusal(folder.write("open.yaml", "name: 'q${HOME'\nruns: []\n")),
              HasSubstr("open.yaml:1: name is 'q${HOME', expected ${NAME} or ${NAME:-default}"));
}

}  // namespace
}  // namespace varscale::sweep
