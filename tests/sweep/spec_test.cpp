#include "sweep/spec.hpp"

#include <fmt/format.h>

#include <set>

#include "tests/sweep/sweep_fixture.hpp"

namespace varscale::sweep {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kGood = R"(name: q
output: out/q
defaults:
  tokens: small.h5
  train: {batch: 16, epochs: 1}
  optimizer: {lr: "6e-3 / depth"}
runs:
  - {model.depth: [1, 2], train.seed: [0, 1]}
  - {model.depth: [4, 5]}
  - {role: data, model.depth: 1, train.images: [28000, 56_000]}
)";

TEST(Spec, ExpandsListsWithTheFirstKeySlowest) {
  const Sweep sweep = sweep_of(kGood);
  EXPECT_EQ(sweep.name, "q");
  EXPECT_EQ(sweep.output, "out/q");
  std::vector<std::string> runs;
  for (const SweepRun& run : sweep.runs)
    runs.push_back(std::to_string(run.config.model.depth) + "/" +
                   std::to_string(run.config.train.seed) + "/" +
                   std::to_string(run.config.train.images) + "/" + run.config.role);
  EXPECT_THAT(runs,
              ElementsAre("1/0/14000/main", "1/1/14000/main", "2/0/14000/main", "2/1/14000/main",
                          "4/0/14000/main", "5/0/14000/main", "1/0/28000/data", "1/0/56000/data"));
}

TEST(Spec, TakesTokensAsAnAxis) {
  const Sweep sweep = sweep_of(
      "name: q\ndefaults: {train: {batch: 10, images: 1000}}\n"
      "runs: [{tokens: [small.h5, imagenet.h5], model.depth: [1, 2], optimizer.lr: \"1e-3 * depth\"}]\n");
  std::vector<std::string> runs;
  std::set<std::string> ids;
  for (const SweepRun& run : sweep.runs) {
    runs.push_back(fmt::format("{} d{} {}", run.config.tokens, run.config.model.depth, run.tokens.fingerprint));
    ids.insert(run.id);
    EXPECT_EQ(shape_of(run.config, run.tokens).tokens.vocabulary, run.config.tokens == "small.h5" ? 256 : 4096);
  }
  EXPECT_THAT(runs, ElementsAre("small.h5 d1 5eed", "small.h5 d2 5eed", "imagenet.h5 d1 1a9e", "imagenet.h5 d2 1a9e"));
  EXPECT_EQ(ids.size(), 4u);

  // Before either file is there, their runs are not the same run twice.
  const Sweep planned = sweep_of(
      "name: q\ndefaults: {train: {batch: 10, images: 1000}}\nruns: [{tokens: [a.h5, b.h5], model.depth: 1}]\n"
      "assume: {images: 900}\n",
      {}, Purpose::kPlan);
  ASSERT_EQ(planned.runs.size(), 2u);
  EXPECT_NE(planned.runs[0].id, planned.runs[1].id);
}

TEST(Spec, FillsInEveryDerivedValue) {
  const Sweep sweep = sweep_of(kGood);
  const RunConfig& d4 = sweep.runs[4].config;
  EXPECT_EQ(d4.model.width, 256);
  EXPECT_EQ(d4.model.heads, 4);
  EXPECT_DOUBLE_EQ(d4.model.drop_path, 0.1 * 4 / 24);
  EXPECT_DOUBLE_EQ(d4.model.init_std, std::sqrt(1.0 / 768));
  EXPECT_DOUBLE_EQ(d4.optimizer.lr, 1.5e-3);
  EXPECT_DOUBLE_EQ(d4.optimizer.weight_decay_end, 0.05);
  EXPECT_DOUBLE_EQ(sweep.runs[7].config.train.epochs, 4);
}

TEST(Spec, GivesFormulasTheValuesSettledBeforeThem) {
  const Sweep sweep = sweep_of(R"(name: q
defaults:
  tokens: small.h5
  model: {width: "32 * depth", heads: "depth / 2"}
  train: {batch: "width / 4", images: "batch * 100"}
  optimizer: {lr: "1e-4 * batch / heads", eps: "1e-8 * images"}
runs:
  - {model.depth: 4}
)");
  const RunConfig& run = sweep.runs.at(0).config;
  EXPECT_EQ(run.model.width, 128);
  EXPECT_EQ(run.model.heads, 2);
  EXPECT_EQ(run.train.batch, 32);
  EXPECT_EQ(run.train.images, 3200);
  EXPECT_DOUBLE_EQ(run.optimizer.lr, 1.6e-3);
  EXPECT_DOUBLE_EQ(run.optimizer.eps, 3.2e-5);
}

TEST(Spec, LetsAFormulaUseTheImagesThatEpochsGive) {
  const Sweep sweep = sweep_of(
      "name: q\ndefaults: {tokens: small.h5, optimizer: {lr: 14 / images}}\n"
      "runs: [{model.depth: 1, train.epochs: 2}]\n");
  EXPECT_DOUBLE_EQ(sweep.runs.at(0).config.optimizer.lr, 5e-4);
}

TEST(Spec, TakesOverridesOfAnyKey) {
  const Sweep sweep =
      sweep_of(kGood, {"name=other", "output=elsewhere", "defaults.optimizer.lr=0.25",
                       "defaults.eval.points=7", "runs=[{model.depth: 3}]"});
  EXPECT_EQ(sweep.name, "other");
  EXPECT_EQ(sweep.output, "elsewhere");
  ASSERT_EQ(sweep.runs.size(), 1u);
  EXPECT_EQ(sweep.runs[0].config.model.depth, 3);
  EXPECT_EQ(sweep.runs[0].config.eval.points, 7);
  EXPECT_DOUBLE_EQ(sweep.runs[0].config.optimizer.lr, 0.25);
}

TEST(Spec, PutsTheFolderUnderResultsUnlessToldOtherwise) {
  EXPECT_EQ(sweep_of("name: q\nruns: [{tokens: small.h5}]\n").output, "results/q");
}

TEST(Spec, NamesTheLineOfEveryFaultAtOnce) {
  const std::string refusal = refusal_of(R"(name: q
outputt: out
defaults:
  tokens: small.h5
  train: {bacth: 16}
  optimizer:
    lr: fast
runs:
  - {model.depth: [1, 0], train.sed: 1}
  - {model.depth: -3}
  - {depth: 3}
  - {model.depth: 2.5}
  - 7
)");
  EXPECT_THAT(refusal, HasSubstr("t.yaml:2: unknown key outputt; did you mean output?"));
  EXPECT_THAT(refusal,
              HasSubstr("t.yaml:5: unknown key defaults.train.bacth; did you mean train.batch?"));
  EXPECT_THAT(refusal,
              HasSubstr("t.yaml:7: defaults.optimizer.lr is 'fast', expected a number or a "
                        "formula: fast is not a name"));
  EXPECT_THAT(refusal,
              HasSubstr("t.yaml:9: runs[0].model.depth[1] is 0, expected between 1 and 1000"));
  EXPECT_THAT(refusal,
              HasSubstr("t.yaml:9: unknown key runs[0].train.sed; did you mean train.seed?"));
  EXPECT_THAT(refusal,
              HasSubstr("t.yaml:10: runs[1].model.depth is -3, expected between 1 and 1000"));
  EXPECT_THAT(refusal,
              HasSubstr("t.yaml:11: unknown key runs[2].depth; did you mean model.depth?"));
  EXPECT_THAT(refusal, HasSubstr("t.yaml:12: runs[3].model.depth is '2.5', expected an integer"));
  EXPECT_THAT(refusal, HasSubstr("t.yaml:13: runs[4] is not a map"));
  // One sentence a fault, although the wrong learning rate is met in every run.
  EXPECT_EQ(std::ranges::count(refusal, '\n'), 8) << refusal;
}

TEST(Spec, RefusesAKeyGivenTwice) {
  EXPECT_THAT(refusal_of("name: q\nname: r\nruns: [{tokens: small.h5}]\n"),
              HasSubstr("t.yaml:2: key name is given twice"));
  EXPECT_THAT(refusal_of("name: q\ndefaults:\n  tokens: small.h5\n  train: {batch: 4}\n"
                         "  train.batch: 5\nruns: [{model.depth: 1}]\n"),
              HasSubstr("t.yaml:5: key defaults.train.batch is given twice, first at t.yaml:4"));
}

TEST(Spec, RefusesValuesOfTheWrongType) {
  const auto refusal = [](const std::string& line) {
    return refusal_of("name: q\ndefaults: {tokens: small.h5}\nruns:\n  - {" + line + "}\n");
  };
  EXPECT_THAT(refusal("train.seed: -1"),
              HasSubstr("t.yaml:4: runs[0].train.seed is '-1', expected an"));
  EXPECT_THAT(refusal("model.attn_l2_norm: 3"), HasSubstr("expected true or false"));
  EXPECT_THAT(refusal("schedule.kind: cosin"), HasSubstr("did you mean cosine?"));
  EXPECT_THAT(refusal("train.precision: fp16"), HasSubstr("expected one of fp32, bf16"));
  EXPECT_THAT(refusal("train.batch: depth / 3"),
              HasSubstr("it gives 5.33333333333, not an integer"));
  EXPECT_THAT(refusal("train.batch: 1 - depth"),
              HasSubstr("'1 - depth' = -15, expected between 1 and 1000000000"));
  EXPECT_THAT(refusal("model.width: batch"),
              HasSubstr("batch is not a name that this formula may use"));
  EXPECT_THAT(refusal("train.batch: []"), HasSubstr("runs[0].train.batch is an empty list"));
  EXPECT_THAT(refusal("train: 3"), HasSubstr("runs[0].train is not a map of settings"));
  EXPECT_THAT(refusal("train.seed:"), HasSubstr("runs[0].train.seed is empty"));
  EXPECT_THAT(
      refusal_of("name: q\ndefaults: {tokens: small.h5, model: {depth: [1, 2]}}\nruns: [{}]\n"),
      HasSubstr("defaults.model.depth is a list, expected an integer"));
}

TEST(Spec, RefusesSettingsThatNothingUses) {
  EXPECT_THAT(refusal_of("name: q\nruns: [{tokens: small.h5, train.images: 5, train.epochs: 2}]\n"),
              HasSubstr("unused key runs[0].train.epochs: runs[0].train.images sets the budget"));
  EXPECT_THAT(refusal_of("name: q\ndefaults:\n  tokens: small.h5\n  schedule: {hold: 0.5}\n"
                         "runs: [{schedule.kind: cosine}]\n"),
              HasSubstr("t.yaml:4: unused key defaults.schedule.hold"));
  // One run that uses it is enough.
  EXPECT_EQ(refusal_of("name: q\ndefaults:\n  tokens: small.h5\n  schedule: {hold: 0.5}\n"
                       "runs: [{schedule.kind: [cosine, wsd]}]\n"),
            "");
  EXPECT_THAT(refusal_of("name: q\nruns: [{tokens: small.h5, schedule.kind: constant, "
                         "schedule.end: 0.1}]\n"),
              HasSubstr("unused key runs[0].schedule.end"));
}

TEST(Spec, RefusesTheSameRunTwice) {
  const std::string refusal = refusal_of(R"(name: q
defaults: {tokens: small.h5}
runs:
  - {model.depth: 3, optimizer.lr: 2e-3}
  - {model.depth: [2, 3], optimizer.lr: "6e-3 / depth"}
)");
  EXPECT_THAT(refusal, HasSubstr("t.yaml:5: run d3-s0-"));
  EXPECT_THAT(refusal, HasSubstr("is asked for twice, first at t.yaml:4"));
}

TEST(Spec, RefusesShapesThatMakeNoModel) {
  EXPECT_THAT(refusal_of("name: q\ndefaults: {tokens: small.h5}\nruns:\n  - model.depth: 3\n"
                         "    model.heads: 5\n"),
              testing::AllOf(HasSubstr("t.yaml:5: "), HasSubstr("heads")));
}

TEST(Spec, RefusesFilesWithoutNameOrRuns) {
  EXPECT_THAT(refusal_of("runs: [{tokens: small.h5}]\n"), HasSubstr("name is missing"));
  EXPECT_THAT(refusal_of("name: a/b\nruns: [{tokens: small.h5}]\n"), HasSubstr("name is 'a/b'"));
  EXPECT_THAT(refusal_of("name: q\n"), HasSubstr("runs is not a list of runs"));
  EXPECT_THAT(refusal_of("name: q\nruns: []\n"), HasSubstr("runs is not a list of runs"));
  EXPECT_THAT(refusal_of("[1, 2]\n"), HasSubstr("not a map"));
  EXPECT_THAT(refusal_of(""), HasSubstr("not a map"));
}

TEST(Spec, RefusesTokenFilesThatCannotBeUsedWhereTheyAreNamed) {
  EXPECT_THAT(refusal_of("name: q\nruns:\n  - {model.depth: 1}\n"),
              HasSubstr("t.yaml:3: tokens is not set"));
  EXPECT_THAT(refusal_of("name: q\ndefaults:\n  tokens: none.h5\nruns: [{}]\n"),
              HasSubstr("t.yaml:3: token file none.h5 does not exist"));
  EXPECT_THAT(refusal_of("name: q\ndefaults:\n  tokens: broken.h5\nruns: [{}]\n"),
              HasSubstr("t.yaml:3: broken.h5 is not a token file"));
}

constexpr const char* kAssuming = R"(name: q
defaults: {tokens: none.h5}
runs: [{model.depth: 2, train.epochs: 3}]
assume: {images: 1000, classes: 7, scales: [1, 3]}
)";

TEST(Spec, AssumesMissingTokenFilesOnlyForAPlan) {
  EXPECT_THAT(refusal_of(kAssuming), HasSubstr("t.yaml:2: token file none.h5 does not exist"));
  const Sweep sweep = sweep_of(kAssuming, {}, Purpose::kPlan);
  const SweepRun& run = sweep.runs.at(0);
  EXPECT_EQ(run.config.train.images, 3000);
  EXPECT_EQ(run.tokens.classes, 7);
  EXPECT_EQ(run.tokens.tokens_per_image(), 10);
  EXPECT_TRUE(run.id.ends_with("-?")) << run.id;
  // A file that exists is not replaced by the assumption.
  const Sweep real = sweep_of(kAssuming, {"defaults.tokens=small.h5"}, Purpose::kPlan);
  EXPECT_EQ(real.runs.at(0).config.train.images, 42000);
  EXPECT_THAT(real.runs.at(0).id, Not(HasSubstr("?")));
}

TEST(Spec, ChecksTheAssumptionToo) {
  EXPECT_THAT(refusal_of(kAssuming, {"assume.scales=[3,1]"}, Purpose::kPlan), HasSubstr("scales"));
  EXPECT_THAT(
      refusal_of(kAssuming, {"assume.image=3"}, Purpose::kPlan),
      HasSubstr("--set assume.image: unknown key assume.image; did you mean assume.images?"));
  EXPECT_THAT(refusal_of(kAssuming, {"assume.images=0"}, Purpose::kPlan),
              HasSubstr("assume.images is 0, expected between 1 and 4294967296"));
}

TEST(Spec, BoundsTheNumberOfRuns) {
  std::string seeds = "0";
  for (int i = 1; i < 200; ++i) seeds += ", " + std::to_string(i);
  EXPECT_THAT(refusal_of("name: q\nruns:\n  - {tokens: small.h5, train.seed: [" + seeds +
                         "], train.data_seed: [" + seeds + "]}\n"),
              HasSubstr("more than 10000 runs"));
}

TEST(Spec, ReadsTheReadyFiles) {
  const char* source = std::getenv("VARSCALE_SOURCE");
  ASSERT_NE(source, nullptr);
  const auto load = [&](const char* name) {
    return load_sweep(std::filesystem::path(source) / "sweeps" / name,
                      {"defaults.tokens=absent.h5"}, Purpose::kPlan);
  };
  std::set<int64_t> depths;
  const Sweep depth = load("depth.yaml");
  for (const SweepRun& run : depth.runs) {
    depths.insert(run.config.model.depth);
    // Clean: only depth (with what follows from it), seed and the rate's rule may differ.
    EXPECT_EQ(run.config.train.images, depth.runs[0].config.train.images);
    EXPECT_EQ(run.config.train.batch, 768);
    EXPECT_EQ(run.config.model.adaln_gamma_init, depth.runs[0].config.model.adaln_gamma_init);
    EXPECT_EQ(run.config.optimizer.weight_decay, depth.runs[0].config.optimizer.weight_decay);
    EXPECT_NEAR(run.config.optimizer.lr * std::sqrt(run.config.model.depth), 12e-4, 1e-14);
  }
  EXPECT_THAT(depths, ElementsAre(6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
  depths.clear();
  for (const SweepRun& run : load("quickstart.yaml").runs) depths.insert(run.config.model.depth);
  EXPECT_GE(depths.size(), 5u);
  EXPECT_GE(load("smoke.yaml").runs.size(), 3u);
}

// Settings of online tokens: what is missing, what is given to no effect, and what is not there.
TEST(Spec, AsksForImagesAndTokenizerWhereTokensAreMadeOnline) {
  const TemporaryFolder folder;
  const std::string images = (folder / "images").string(), tokenizer = folder.write("tok.safetensors", "weights").string();
  std::filesystem::create_directories(images);
  const auto file = [](const std::string& data, const std::string& run = "model.depth: [1, 2]") {
    return "name: q\ndefaults:\n  tokens: small.h5\n  data: " + data + "\nruns:\n  - {" + run + "}\n";
  };
  const std::string whole = "tokens: online, images: " + images + ", tokenizer: " + tokenizer;
  const Sweep sweep = sweep_of(file("{" + whole + "}"));
  ASSERT_EQ(sweep.runs.size(), 2u);
  EXPECT_TRUE(sweep.runs[0].config.data.online());
  EXPECT_EQ(sweep.runs[0].config.data.images, images);

  // Once for all runs of a grid, at the key.
  EXPECT_EQ(refusal_of(file("{tokens: online, images: " + images + "}")),
            "t.yaml:4: data.tokenizer is not set; data.tokens online needs the weights of the tokenizer that the token "
            "file was made with");
  EXPECT_EQ(refusal_of(file("{tokens: online, tokenizer: " + tokenizer + "}"), {}, Purpose::kPlan),
            "t.yaml:4: data.images is not set; data.tokens online needs the training images that the token "
            "file was made from");
  EXPECT_THAT(refusal_of(file("{tokens: onlin}")), HasSubstr("t.yaml:4: defaults.data.tokens is 'onlin', expected one of"));
  EXPECT_EQ(refusal_of(file("{images: " + images + "}")),
            "t.yaml:4: unused key defaults.data.images: data.tokens of its runs is cached, and only online reads images");
  EXPECT_THAT(refusal_of(file("{tokens: cached, tokenizer: " + tokenizer + "}")),
              HasSubstr("t.yaml:4: unused key defaults.data.tokenizer"));
  // Defaults may be for some of the runs.
  EXPECT_EQ(refusal_of(file("{images: " + images + ", tokenizer: " + tokenizer + "}",
                            "model.depth: 1, data.tokens: [cached, online]")),
            "");
  // A plan needs no images.
  const std::string absent = file("{tokens: online, images: nowhere, tokenizer: nothing.safetensors}");
  EXPECT_EQ(refusal_of(absent, {}, Purpose::kPlan), "");
  EXPECT_THAT(refusal_of(absent), HasSubstr("t.yaml:4: data.images is nowhere, which does not exist"));
  EXPECT_THAT(refusal_of(absent), HasSubstr("t.yaml:4: data.tokenizer is nothing.safetensors, which does not exist"));
}

}  // namespace
}  // namespace varscale::sweep
