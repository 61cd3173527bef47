// The program as a user meets it: settings files, refusals, an interrupted training.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/config.hpp"
#include "base/file.hpp"
#include "tokenizer_training/config.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::tokenizer_training {

using tokenizer::Vqvae;

namespace {

namespace fs = std::filesystem;

struct Result {
  int code;
  std::string text;
};

class VarTokenizer : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / fmt::format("var_tokenizer-{}", ::getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
    ASSERT_EQ(run("var_data", "synth --out images --train 20 --val 10 --side 8").code, 0);
    std::ofstream(folder_ / "tiny.yaml") << R"(
model: {image_side: 8, channels: 8, channel_mult: [1, 2], blocks: 1, groups: 4, code_width: 4, vocabulary: 16,
        scales: [1, 2, 4], phis: 2}
train: {steps: 12, batch: 4}
optimizer: {warmup_steps: 2}
codebook: {start_step: 3, kmeans_images: 8, restart_every: 4}
)";
  }
  void TearDown() override { fs::remove_all(folder_); }

  Result run(const std::string& program, const std::string& arguments) const {
    return shell(fmt::format("{}/{} {}", std::getenv("VARSCALE_BIN"), program, arguments));
  }
  Result shell(const std::string& command) const {
    const fs::path log = folder_ / "log";
    const int status =
        std::system(fmt::format("cd {}; export OMP_NUM_THREADS=1; exec > {} 2>&1; {}",
                                folder_.string(), log.string(), command)
                        .c_str());
    return {WEXITSTATUS(status), base::read_file(log)};
  }
  Result train(const std::string& more) const {
    return run("var_tokenizer", "train tiny.yaml --images images/train " + more);
  }

  fs::path folder_;
};

TEST_F(VarTokenizer, TrainsJudgesAndSkipsWhatIsDone) {
  ASSERT_EQ(train("--out tok.safetensors").code, 0);
  EXPECT_FALSE(fs::exists(folder_ / "tok.safetensors.state"));
  const Result eval =
      run("var_tokenizer",
          "eval --tokenizer tok.safetensors --images images/val --picture p.png --json");
  ASSERT_EQ(eval.code, 0) << eval.text;
  const auto json = nlohmann::json::parse(eval.text);
  EXPECT_EQ(json.at("images"), 10);
  EXPECT_EQ(json.at("scales").size(), 3u);
  EXPECT_EQ(json.at("fingerprint"), Vqvae::load(folder_ / "tok.safetensors").fingerprint());
  EXPECT_TRUE(fs::exists(folder_ / "p.png"));
  const Result again = train("--out tok.safetensors");
  EXPECT_EQ(again.code, 0);
  EXPECT_NE(again.text.find("already trained"), std::string::npos) << again.text;
  EXPECT_EQ(train("--out tok.safetensors --set train.steps=13").code, 2);
}

TEST_F(VarTokenizer, StoppedOrKilledAndStartedAgainGivesTheSameTokenizer) {
  ASSERT_EQ(train("--out whole.safetensors --set train.steps=60").code, 0);
  const std::string more =
      "--out part.safetensors --set train.steps=60 --set train.save_every_min=1e-9";
  // Its state is saved after every step; the first one seen, it gets the signal.
  auto interrupted_by = [&](const char* signal) {
    return shell(
        fmt::format("{}/var_tokenizer train tiny.yaml --images images/train {} & "
                    "while kill -0 $! && [ ! -e part.safetensors.state ]; do sleep 0.01; done; "
                    "kill -{} $!; wait $!",
                    std::getenv("VARSCALE_BIN"), more, signal));
  };
  const Result stopped = interrupted_by("TERM"), killed = interrupted_by("KILL");
  EXPECT_EQ(stopped.code, 75) << stopped.text;
  EXPECT_EQ(killed.code, 128 + 9) << killed.text;
  ASSERT_TRUE(fs::exists(folder_ / "part.safetensors.state"));
  const Result resumed = train(more);
  ASSERT_EQ(resumed.code, 0) << resumed.text;
  EXPECT_NE(resumed.text.find("going on at step"), std::string::npos) << resumed.text;
  EXPECT_EQ(Vqvae::load(folder_ / "part.safetensors").fingerprint(),
            Vqvae::load(folder_ / "whole.safetensors").fingerprint());
}

TEST_F(VarTokenizer, RefusesBadInputInOneSentenceWithExitCode2) {
  auto refused = [&](const std::string& more, const std::string& words) {
    const Result result = train("--out bad.safetensors " + more);
    EXPECT_EQ(result.code, 2) << more << ": " << result.text;
    EXPECT_NE(result.text.find(words), std::string::npos) << more << ": " << result.text;
    EXPECT_FALSE(fs::exists(folder_ / "bad.safetensors")) << more;
  };
  refused("--set train.stepz=3", "train.steps");
  refused("--set train.steps=0", "train.steps");
  refused("--set model.groups=3", "groups");
  refused("--set model.image_side=16", "image_side");
  refused("--set train.images=21", "20 images");
  refused("--set optimizer.warmup_steps=50", "warmup");
  const Result images =
      run("var_tokenizer", "train tiny.yaml --images nowhere --out bad.safetensors");
  EXPECT_EQ(images.code, 2) << images.text;
  EXPECT_NE(images.text.find("nowhere"), std::string::npos) << images.text;
  const Result eval = run("var_tokenizer", "eval --tokenizer tiny.yaml --images images/val");
  EXPECT_EQ(eval.code, 2) << eval.text;
  EXPECT_NE(eval.text.find("tiny.yaml"), std::string::npos) << eval.text;
}

class ReadyFile : public testing::TestWithParam<std::pair<const char*, int64_t>> {};

TEST_P(ReadyFile, ReadsWithoutAFault) {
  const auto& [name, tokens] = GetParam();
  base::Document document = base::Document::load(fs::path(std::getenv("VARSCALE_SOURCE")) / "sweeps" / name);
  base::Faults faults;
  document.expand_environment(faults);
  const auto config = base::read_config<TokenizerConfig>(document.root(), faults);
  faults.refuse_unread(document);
  EXPECT_TRUE(faults.empty());
  EXPECT_NO_THROW(config.check());
  EXPECT_EQ(scaling::ScaleList(config.model.scales).tokens(), tokens);
}

INSTANTIATE_TEST_SUITE_P(All, ReadyFile,
                         testing::Values(std::pair("quickstart_tokenizer.yaml", 85), std::pair("tokenizer256.yaml", 680)));

// A setting that has no effect beside the others is refused, and one that is needed is asked for.
TEST_F(VarTokenizer, RefusesSettingsThatDoNotFitTogether) {
  auto refused = [&](const std::string& more, const std::string& words) {
    const Result result = train("--out bad.safetensors " + more);
    EXPECT_EQ(result.code, 2) << more << ": " << result.text;
    EXPECT_NE(result.text.find(words), std::string::npos) << more << ": " << result.text;
    EXPECT_FALSE(fs::exists(folder_ / "bad.h5")) << more;
  };
  refused("--set loss.vgg_weights=vgg.safetensors", "loss.vgg_weights");
  refused("--set loss.lpips=1", "at least 16 pixels");
  refused("--set adversarial.r1=1", "adversarial.r1");
  refused("--set adversarial.discriminator=patch_gan --set adversarial.start_step=2", "layers");
  refused("--set adversarial.discriminator=patch_gan --set adversarial.start_step=12", "less than train.steps");
  refused("--set adversarial.discriminator=dino --set adversarial.start_step=2", "adversarial.dino_weights");
  refused("--set adversarial.discriminator=dino --set adversarial.start_step=2 --set adversarial.dino_weights=no.safetensors",
          "no.safetensors");
  refused("--set codebook.update=gradient --set codebook.decay=0.9", "codebook.decay");
  refused("--set codebook.scale_dropout=0.5", "scale_dropout_from");
  refused("--set codebook.start_step=12", "less than train.steps");
  refused("--set optimizer.warmup_steps=12", "optimizer.warmup_steps");
  refused("--set optimizer.schedule=cosine --set optimizer.hold=0.3", "optimizer.hold");
  refused("--set parallel.mode=zero3 --set parallel.shards=2", "parallel.shards");
}

}  // namespace
}  // namespace varscale::tokenizer_training
