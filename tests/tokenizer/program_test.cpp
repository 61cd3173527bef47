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
#include "tokenizer/train_config.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::tokenizer {
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
    const fs::path log = folder_ / "log";
    const std::string command = fmt::format("cd {} && OMP_NUM_THREADS=1 {}/{} {} > {} 2>&1", folder_.string(),
                                            std::getenv("VARSCALE_BIN"), program, arguments, log.string());
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), base::read_file(log)};
  }
  Result train(const std::string& more) const { return run("var_tokenizer", "train tiny.yaml --images images/train " + more); }

  fs::path folder_;
};

TEST_F(VarTokenizer, TrainsJudgesAndSkipsWhatIsDone) {
  ASSERT_EQ(train("--out tok.safetensors").code, 0);
  EXPECT_FALSE(fs::exists(folder_ / "tok.safetensors.state"));
  const Result eval = run("var_tokenizer", "eval --tokenizer tok.safetensors --images images/val --picture p.png --json");
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

TEST_F(VarTokenizer, GoesOnAfterASignalAndGivesTheSameTokenizer) {
  ASSERT_EQ(train("--out whole.safetensors --set train.steps=400").code, 0);
  const Result stopped = run("timeout", fmt::format("-s TERM 2 {}/var_tokenizer train tiny.yaml --images images/train "
                                                    "--out part.safetensors --set train.steps=400",
                                                    std::getenv("VARSCALE_BIN")));
  // A fast machine may be done before the signal; then there is nothing to resume, and the files agree anyway.
  (void)stopped;
  ASSERT_EQ(train("--out part.safetensors --set train.steps=400").code, 0);
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
  refused("--images nowhere", "nowhere");
  const Result eval = run("var_tokenizer", "eval --tokenizer tiny.yaml --images images/val");
  EXPECT_EQ(eval.code, 2) << eval.text;
  EXPECT_NE(eval.text.find("tiny.yaml"), std::string::npos) << eval.text;
}

TEST(QuickstartTokenizer, ReadsWithoutAFault) {
  const auto path = fs::path(std::getenv("VARSCALE_SOURCE")) / "sweeps/quickstart_tokenizer.yaml";
  const base::Document document = base::Document::load(path);
  base::Faults faults;
  const auto config = base::read_config<TokenizerConfig>(document.root(), faults);
  faults.refuse_unread(document);
  EXPECT_TRUE(faults.empty());
  EXPECT_NO_THROW(config.model.check());
  EXPECT_EQ(scaling::ScaleList(config.model.scales).tokens(), 85);
}

}  // namespace
}  // namespace varscale::tokenizer
