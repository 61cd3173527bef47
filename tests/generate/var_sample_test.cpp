// The program var_sample on a run folder made here: an untrained model, but every file a real one.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "checkpoint/saver.hpp"
#include "comm/communicator.hpp"
#include "data/image_file.hpp"
#include "data/png.hpp"
#include "evaluate/resnet.hpp"
#include "generate/pyramid.hpp"
#include "generate/sampler.hpp"
#include "records/token_file.hpp"
#include "sweep/identity.hpp"
#include "tests/support/temporary_folder.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::generate {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr int64_t kClasses = 3;

tokenizer::Vqvae small_tokenizer(uint64_t seed) {
  tokenizer::VqvaeConfig config;
  config.image_side = 16;
  config.channels = 8;
  config.channel_mult = {1, 2};
  config.blocks = 1;
  config.groups = 4;
  config.code_width = 8;
  config.vocabulary = 64;
  config.scales = {1, 2, 4, 8};
  tokenizer::Vqvae tokenizer(config);
  test::fill_hash_weights(tokenizer.parameters(), seed);
  return tokenizer;
}

class VarSample : public testing::Test {
 protected:
  VarSample()
      : tokenizer_(small_tokenizer(1)), run_(folder_ / "d1-s0-abcdef"), model_(write_run()) {}

  models::Var write_run() {
    tokenizer_.save(folder_ / "tok.safetensors");
    write_tokens(folder_ / "tokens.h5", 0);
    const records::TokenFile tokens(folder_ / "tokens.h5");
    const sweep::TokenFacts facts = sweep::facts_of(tokens);

    sweep::RunConfig config;
    config.tokens = tokens.path().string();
    config.model.depth = 1;
    config.train.batch = 4;
    config.train.images = 8;
    config = sweep::resolve(config, facts);
    nlohmann::ordered_json json = base::dump_config(config);
    json["id"] = "d1-s0-abcdef";
    json["identity"] = sweep::identity_hash(config, facts);
    fs::create_directories(run_);
    base::write_file_atomic(run_ / "config.yaml", json.dump(2));

    models::Var model(sweep::shape_of(config, facts));
    const auto self = comm::make_self();
    checkpoint::Saver saver(run_ / "checkpoints", 2, *self);
    for (const int64_t step : {1, 2}) {  // the newest counts
      test::fill_hash_weights(model.parameters(), static_cast<uint64_t>(step));
      checkpoint::State state;
      state.step = step;
      state.pieces = checkpoint::whole_pieces("param.", model.parameters());
      state.write_rows = [&](const auto& file) {
        records::RunTables rows;
        rows.facts["tokens_fingerprint"] = tokens.fingerprint();
        records::write_run(file, rows);
      };
      saver.save(std::move(state));
    }
    return model;
  }

  void write_tokens(const fs::path& path, uint16_t first_token) const {
    records::TokenFileInfo info;
    info.train_images = 4;
    info.validation_images = 1;
    info.classes = kClasses;
    info.class_names = {"ash", "birch", "cedar"};
    info.vocabulary = 64;
    info.scales = {1, 2, 4, 8};
    info.image_side = 16;
    info.tokenizer_fingerprint = tokenizer_.fingerprint();
    records::TokenFileWriter writer(path, info, tokenizer_.quantizer().weights());
    const std::vector<uint16_t> tokens_L(info.tokens_per_image(), first_token);
    for (int64_t row = 0; row < info.rows(); ++row) writer.write_row(row, tokens_L.data(), 0, row);
    writer.commit();
  }

  // Exit status; what it printed is in text("out") and text("err").
  int run(const std::string& more) const { return run_on(run_, folder_ / "tok.safetensors", more); }
  int run_on(const fs::path& run, const fs::path& tokenizer, const std::string& more) const {
    const char* bin = std::getenv("VARSCALE_BIN");
    EXPECT_NE(bin, nullptr) << "run me through ctest";
    const std::string command = fmt::format(
        "cd {} && {}/var_sample {} --tokenizer {} {} >out 2>err", folder_.path().string(),
        bin ? bin : ".", run.string(), tokenizer.string(), more);
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  std::string text(const char* name) const { return base::read_file(folder_ / name); }

  base::TemporaryFolder folder_;
  tokenizer::Vqvae tokenizer_;
  fs::path run_;
  models::Var model_;  // the newest weights
};

TEST_F(VarSample, DrawsARowAClassAndSaysHow) {
  ASSERT_EQ(run("--classes 2,ash --per-class 3 --cfg 2 --top-k 20 --seed 9 --out grid.png"), 0)
      << text("err");
  const auto caption = nlohmann::json::parse(text("grid.json"));
  EXPECT_EQ(caption.at("run"), "d1-s0-abcdef");
  EXPECT_EQ(caption.at("step"), 2);
  EXPECT_EQ(caption.at("images_seen"), 8);
  EXPECT_EQ(caption.at("class_names"), (nlohmann::json{"cedar", "ash"}));
  EXPECT_EQ(caption.at("seed"), 9);
  EXPECT_EQ(caption.at("top_k"), 20);
  EXPECT_THAT(text("out"), HasSubstr("Samples of run d1-s0-abcdef (depth 1) after 2 of 2 steps"));

  // The same pixels from the library, enlarged 96 / 16 times.
  const Sampler sampler(model_, tokenizer_.quantizer(), {.cfg = 2, .top_k = 20, .seed = 9});
  std::vector<Request> requests;
  for (const int64_t c : {2, 0}) {
    for (int64_t j = 0; j < 3; ++j) requests.push_back({c * 1'000'001 + j, c});
  }
  const Tensor images =
      data::to_u8_BHWC(decode_each(tokenizer_, sampler.sample(requests).f_hat_BEHW));
  const Tensor want = data::enlarge(data::grid(images, 3), 6);
  data::RgbImage drawn = data::decode_rgb(folder_ / "grid.png");
  EXPECT_TRUE(at::equal(
      at::from_blob(drawn.pixels.data(), {drawn.height, drawn.width, 3}, at::kByte), want));
}

TEST_F(VarSample, ShowsHowAnImageComesAbout) {
  ASSERT_EQ(run("--classes birch,2 --seed 9 --pyramid pyramid.png"), 0) << text("err");
  EXPECT_FALSE(fs::exists(folder_ / "samples.png"));
  EXPECT_THAT(nlohmann::json::parse(text("pyramid.json")).at("pyramid").get<std::string>(), HasSubstr("first image"));
  const Sampler sampler(model_, tokenizer_.quantizer(), {.seed = 9});
  const auto shown = [&](const char* name) {
    data::RgbImage drawn = data::decode_rgb(folder_ / name);
    return at::from_blob(drawn.pixels.data(), {drawn.height, drawn.width, 3}, at::kByte).clone();
  };
  const Tensor want = data::enlarge(
      data::grid(pyramid(tokenizer_, sampler.sample({{.image = 1'000'001, .label = 1}}).tokens_BL), 4), 6);
  EXPECT_TRUE(at::equal(shown("pyramid.png"), want));
  // Beside other outputs, which have all images.
  ASSERT_EQ(run("--classes birch,2 --per-class 2 --seed 9 --out grid.png --pyramid again.png"), 0) << text("err");
  EXPECT_TRUE(at::equal(shown("again.png"), want));
  EXPECT_EQ(shown("grid.png").size(0), (2 * (16 + 2) + 2) * 6);
}

TEST_F(VarSample, KeepsWhatAClassifierFindsLikeliest) {
  const auto save_classifier = [&](const char* name, int64_t classes) {
    nn::NamedTensors weights = evaluate::ResNet50::state(classes);
    for (nn::NamedTensor& named : weights) named.tensor = test::hash_param(named.name, named.tensor.sizes());
    nn::save_tensors(folder_ / name, weights);
  };
  save_classifier("c.safetensors", kClasses);
  const std::string drawn = "--classes 2,ash --seed 9 --cfg 2 --per-class ";
  ASSERT_EQ(run(drawn + "2 --classifier c.safetensors --keep-share 0.4 --images kept --npz kept.npz"), 0)
      << text("err");
  ASSERT_EQ(run(drawn + "5 --images all"), 0) << text("err");  // 2 / 0.4

  const evaluate::ResNet50 classifier = evaluate::ResNet50::load(folder_ / "c.safetensors");
  int64_t names = 0;
  double sum_kept = 0, sum_all = 0;
  for (const int64_t c : {0, 2}) {
    std::vector<std::pair<double, std::string>> ranked;
    for (int64_t j = 0; j < 5; ++j) {
      const std::string name = fmt::format("{:04}-{:06}.png", c, j);
      data::RgbImage image = data::decode_rgb(folder_ / "all" / name);
      const Tensor pixels = at::from_blob(image.pixels.data(), {1, 16, 16, 3}, at::kByte).permute({0, 3, 1, 2});
      ranked.emplace_back(classifier.probabilities(pixels.contiguous())[0][c].item<double>(), name);
      sum_all += ranked.back().first;
    }
    std::ranges::sort(ranked, std::greater<>());
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ(fs::exists(folder_ / "kept" / ranked[i].second), i < 2) << ranked[i].second;
      if (i >= 2) continue;
      EXPECT_EQ(base::read_file(folder_ / "kept" / ranked[i].second),
                base::read_file(folder_ / "all" / ranked[i].second));
      sum_kept += ranked[i].first;
      ++names;
    }
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "kept"), {}), names);
  const auto caption = nlohmann::json::parse(text("kept.json"));
  EXPECT_EQ(caption.at("candidates_per_class"), 5);
  EXPECT_EQ(caption.at("keep_share"), 0.4);
  EXPECT_EQ(caption.at("classifier").at("identity"), classifier.identity());
  // The program sees candidates together and may run on other threads.
  EXPECT_NEAR(caption.at("probability_of_kept").get<double>(), sum_kept / 4, 1e-4);
  EXPECT_NEAR(caption.at("probability_of_all").get<double>(), sum_all / 10, 1e-4);
  EXPECT_THAT(caption.at("caption").get<std::string>(),
              HasSubstr("seed 9; of 5 drawn of each class the 2 that a classifier finds likeliest."));

  save_classifier("other.safetensors", kClasses + 1);
  for (const auto& [arguments, sentence] : std::vector<std::pair<std::string, std::string>>{
           {"--classifier other.safetensors --keep-share 0.5", "tells 4 classes apart, the model was trained on 3"},
           {"--classifier c.safetensors", "--classifier requires --keep-share"},
           {"--keep-share 0.5", "--keep-share requires --classifier"},
           {"--classifier c.safetensors --keep-share 1", "--keep-share 1: expected more than 0 and less than 1"},
           {"--classifier c.safetensors --keep-share 1e-9", "--keep-share 1e-09: asks for"},
           {"--classifier c.safetensors --keep-share 0.5 --pyramid p.png", "has no effect on --pyramid alone"},
           {"--classifier tok.safetensors --keep-share 0.5", "tok.safetensors: holds no tensor conv1.weight"}}) {
    EXPECT_EQ(run(arguments), 2) << arguments;
    EXPECT_THAT(text("err"), HasSubstr(sentence));
    EXPECT_FALSE(fs::exists(folder_ / "samples.png")) << arguments;
  }
}

TEST_F(VarSample, RefusesInOneSentenceAndWritesNothing) {
  struct Case {
    std::string arguments, sentence;
  };
  for (const Case& c : {
           Case{"--classes 3", "--classes: 3 is not a class; expected 0 to 2"},
           Case{"--classes brich", "--classes: no class is named brich; did you mean birch?"},
           Case{"--classes 1,birch", "--classes: 1 is named twice"},
           Case{"--top-k 65", "top-k is 65, expected 0 (off) to 64, the size of the vocabulary"},
           Case{"--cfg -1", "cfg is -1, expected at least 0"},
           Case{"--per-class 0", "--per-class"},
           Case{"--precision fp8", "--precision"},
           Case{"--out grid.jpg", "--out grid.jpg: expected a name that ends in .png"},
           Case{"--tokens nowhere.h5", "nowhere.h5"},
           Case{"--pyramid a.jpg", "--pyramid a.jpg: expected a name that ends in .png"},
           Case{"--npz-tokens", "--npz-tokens requires --npz"},
           Case{"--npz a.npz --npz-tokens --smooth", "--npz-tokens: expected images of tokens, and with --smooth an"},
           Case{"--pyramid a.png --smooth", "--pyramid a.png: shows tokens, and with --smooth an image is a mixture"},
       }) {
    EXPECT_EQ(run(c.arguments), 2) << c.arguments;
    EXPECT_THAT(text("err"), HasSubstr(c.sentence));
    EXPECT_FALSE(fs::exists(folder_ / "samples.png") || fs::exists(folder_ / "a.npz")) << c.arguments;
  }
}

TEST_F(VarSample, RefusesFilesThatDoNotBelongTogether) {
  small_tokenizer(2).save(folder_ / "other.safetensors");
  EXPECT_EQ(run_on(run_, folder_ / "other.safetensors", ""), 2);
  EXPECT_THAT(text("err"), HasSubstr("not the tokenizer that made"));

  write_tokens(folder_ / "other.h5", 5);
  EXPECT_EQ(run("--tokens other.h5"), 2);
  EXPECT_THAT(text("err"), HasSubstr("was trained on other tokens than"));

  EXPECT_EQ(run_on(folder_.path(), folder_ / "tok.safetensors", ""), 2);
  EXPECT_THAT(text("err"), HasSubstr("no config.yaml here; expected the folder of a run"));

  fs::remove_all(run_ / "checkpoints");
  EXPECT_EQ(run(""), 2);
  EXPECT_THAT(text("err"), HasSubstr("the run has no checkpoint yet"));
}

}  // namespace
}  // namespace varscale::generate
