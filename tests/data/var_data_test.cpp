// The program itself: from nothing to a token file, and every mistake of its user.
#include <sys/wait.h>

#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "data/png.hpp"
#include "data/synth.hpp"
#include "support.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code;
  std::string out, err;
};

Outcome var_data(const TemporaryFolder& folder, const std::string& arguments) {
  const char* bin = std::getenv("VARSCALE_BIN");
  const TemporaryFolder logs;
  const std::string command =
      fmt::format("cd '{}' && OMP_NUM_THREADS=2 '{}/var_data' {} > '{}' 2> '{}'",
                  folder.path().string(), bin == nullptr ? "VARSCALE_BIN is not set" : bin,
                  arguments, (logs / "out").string(), (logs / "err").string());
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, base::read_file(logs / "out"),
          base::read_file(logs / "err")};
}

// Random weights: tokens without meaning, but of the right form.
void save_tiny_tokenizer(const fs::path& path, int64_t side = 16, uint64_t seed = 5) {
  tokenizer::VqvaeConfig config;
  config.image_side = side;
  config.channels = 8;
  config.channel_mult = {1, 1, 2};
  config.blocks = 1;
  config.groups = 4;
  config.code_width = 4;
  config.vocabulary = 32;
  config.scales = {1, 2, side / 4};
  config.phis = 2;
  tokenizer::Vqvae vqvae(config);
  vqvae.initialise(tokenizer::Init::kPublic, seed);
  vqvae.save(path);
}

TEST(VarData, GoesFromNothingToAnInspectedTokenFile) {
  const TemporaryFolder folder;
  save_tiny_tokenizer(folder / "tok.safetensors");
  const Outcome synth =
      var_data(folder, "synth --out images --train 20 --val 10 --side 16 --seed 3");
  ASSERT_EQ(synth.exit_code, 0) << synth.err;
  const Outcome tokenize = var_data(
      folder,
      "tokenize --train images/train --val images/val --tokenizer tok.safetensors --out tokens.h5");
  ASSERT_EQ(tokenize.exit_code, 0) << tokenize.err;

  const Outcome text = var_data(folder, "inspect tokens.h5");
  ASSERT_EQ(text.exit_code, 0) << text.err;
  EXPECT_NE(text.out.find("20 training x 1 crop, 10 validation"), std::string::npos) << text.out;
  const Outcome inspect = var_data(folder, "inspect tokens.h5 --json --verify");
  ASSERT_EQ(inspect.exit_code, 0) << inspect.err;
  const auto json = nlohmann::json::parse(inspect.out);
  EXPECT_EQ(json.at("train_images"), 20);
  EXPECT_EQ(json.at("tokens_per_image"), 1 + 4 + 16);
  EXPECT_EQ(json.at("vocabulary"), 32);
  EXPECT_EQ(json.at("class_names").get<std::vector<std::string>>(), synth_class_names());
  EXPECT_EQ(json.at("statistics").at("scales").size(), 3u);

  // The picture: 8 training rows above 8 validation rows of 16 pixels with white lines of 2 between.
  const Outcome picture = var_data(folder, "inspect tokens.h5 --picture rows.png");
  ASSERT_EQ(picture.exit_code, 0) << picture.err;
  const RgbImage rows = decode_rgb(folder / "rows.png");
  EXPECT_EQ(rows.width, 8 * 18 + 2);
  EXPECT_EQ(rows.height, 2 * 18 + 2);
  tokenizer::Vqvae tok = tokenizer::Vqvae::load(folder / "tok.safetensors");
  const records::TokenFile drawn(folder / "tokens.h5");
  at::Tensor shown_L = at::empty({21}, at::kLong);
  std::copy_n(drawn.row(drawn.validation_row(1 * 10 / 8)), 21, shown_L.mutable_data_ptr<int64_t>());
  const at::Tensor second_below = to_tensor(rows).slice(0, 20, 36).slice(1, 20, 36);
  EXPECT_LE(largest_difference(second_below, to_u8_BHWC(tok.decode_tokens(shown_L.unsqueeze(0)))[0]), 1);
  // Another tokenizer is refused, and so is one that is not there.
  save_tiny_tokenizer(folder / "other.safetensors", 16, /*seed=*/6);
  const Outcome refused = var_data(folder, "inspect tokens.h5 --picture no.png --tokenizer other.safetensors");
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_NE(refused.err.find("other.safetensors: is not the tokenizer of tokens.h5: its fingerprint is"),
            std::string::npos) << refused.err;
  EXPECT_FALSE(fs::exists(folder / "no.png"));

  // The tokens are those that the library gives for the drawn image.
  const auto vqvae = tokenizer::Vqvae::load(folder / "tok.safetensors");
  EXPECT_EQ(json.at("tokenizer_fingerprint"), vqvae.fingerprint());
  const records::TokenFile file(folder / "tokens.h5");
  const at::Tensor bytes = to_tensor({16, 16, draw_leaves({.seed = 3, .index = 11, .side = 16})});
  const at::Tensor x = bytes.permute({2, 0, 1}).unsqueeze(0).to(at::kFloat) / 255 * 2 - 1;
  const at::Tensor tokens_BL = vqvae.tokens(x);
  const int64_t row = file.train_row(3, 0);  // class 1's second image: index 11
  EXPECT_EQ(file.label(row), 1);
  int64_t equal = 0;
  for (int64_t l = 0; l < 21; ++l) equal += tokens_BL[0][l].item<int64_t>() == file.row(row)[l];
  EXPECT_GE(equal, 20);  // a batch of another size may round a near tie the other way
}

struct Mistake {
  const char* what;
  const char* arguments;
  const char* sentence;
};

TEST(VarData, AnswersMistakesWithOneSentenceExitCode2AndNoOutput) {
  const TemporaryFolder folder;
  save_tiny_tokenizer(folder / "tok.safetensors");
  write_tree(folder / "good", 2, 3, 16);
  write_tree(folder / "val", 2, 1, 16);
  write_tree(folder / "corrupt", 2, 3, 16);
  truncate(folder / "corrupt/c0/1.png");
  write_tree(folder / "mixed", 2, 1, 16);
  write_plain(folder / "mixed/loose.png", 16, 16, 1);
  write_plain(folder / "flat/a.png", 16, 16, 1);
  fs::create_directories(folder / "empty");
  folder.write("labels.txt", "9\n");
  folder.write("text.h5", "this is no HDF5 file");
  folder.write("text.tar", std::string(2000, 't'));
  folder.write("text.safetensors", "this is no tokenizer");
  write_tokens(
      folder / "cut.h5", 50, 5, 1, [](int64_t, int64_t) { return 1; }, [](int64_t) { return 0; });
  fs::resize_file(folder / "cut.h5", fs::file_size(folder / "cut.h5") / 2);
  const int before = folder.entries();

  const std::string good = "tokenize --tokenizer tok.safetensors --out out.h5 ";
  const Mistake mistakes[] = {
      {"no command", "", "subcommand"},
      {"unknown command", "draw --out x", "subcommand"},
      {"unknown option", "synth --out x --trian 20", "--trian"},
      {"not a number", "synth --out x --train many", "--train"},
      {"missing option", "synth", "--out is required"},
      {"too few images", "synth --out x --train 5", "--train 5"},
      {"side", "synth --out x --side 4", "--side 4: expected 8 to 1024"},
      {"folder taken", "synth --out good", "good: exists already"},
      {"no such folder", "T --train nowhere", "nowhere: does not exist"},
      {"a list without labels", "T --train labels.txt", "labels.txt:1: \"9\", expected \"path label\""},
      {"tars that are not there", "T --train x-{0..3}.tar", "x-0.tar: cannot be read"},
      {"no tar", "T --train text.tar", "text.tar: the header at byte 0 is damaged, or this is no tar archive"},
      {"precision", "T --train good --precision fp16", "--precision"},
      {"empty folder", "T --train empty", "empty: holds no class folders"},
      {"no class folders", "T --train flat", "flat: holds image files but no class folders"},
      {"mixed folder", "T --train mixed",
       "mixed: holds image files (loose.png) beside class folders (c0)"},
      {"truncated image", "T --train corrupt --val val", "corrupt/c0/1.png: not a readable image"},
      {"same folder twice", "T --train good --val good", "good: is the training source"},
      {"split and val", "T --train good --val val --split 0.1", "--split"},
      {"split too large", "T --train good --split 0.99", "--split 0.99: leaves no training images"},
      {"crops", "T --train good --crops 0", "--crops 0"},
      {"labels", "T --train good --val flat --val-labels labels.txt",
       "labels.txt:1: label 9 is out of range, expected 0 to 1"},
      {"labels alone", "T --train good --val-labels labels.txt", "needs --val"},
      {"no tokenizer", "tokenize --train good --tokenizer no.safetensors --out out.h5",
       "no.safetensors"},
      {"not a tokenizer", "tokenize --train good --tokenizer text.safetensors --out out.h5",
       "text.safetensors"},
      {"no place for output", "tokenize --train good --tokenizer tok.safetensors --out no/out.h5",
       "no/out.h5"},
      {"inspect: tokenizer alone", "inspect cut.h5 --tokenizer tok.safetensors", "--picture"},
      {"inspect: absent", "inspect absent.h5", "absent.h5"},
      {"inspect: not HDF5", "inspect text.h5", "text.h5"},
      {"inspect: truncated", "inspect cut.h5", "cut.h5"},
  };
  for (const Mistake& mistake : mistakes) {
    std::string arguments = mistake.arguments;
    if (arguments.starts_with("T ")) arguments = good + arguments.substr(2);
    const Outcome outcome = var_data(folder, arguments);
    EXPECT_EQ(outcome.exit_code, 2) << mistake.what << ": " << outcome.err;
    EXPECT_NE(outcome.err.find(mistake.sentence), std::string::npos)
        << mistake.what << ": " << outcome.err;
    EXPECT_NE(outcome.err.find("var_data: "), std::string::npos)
        << mistake.what << ": " << outcome.err;
    EXPECT_EQ(outcome.err.find("WARNING"), std::string::npos)
        << mistake.what << ": " << outcome.err;
    EXPECT_EQ(folder.entries(), before) << mistake.what;
  }
}

TEST(VarData, SkipsCorruptImagesOnlyWhenAskedAndNamesThem) {
  const TemporaryFolder folder;
  save_tiny_tokenizer(folder / "tok.safetensors");
  write_tree(folder / "set", 2, 3, 16);
  truncate(folder / "set/c1/0.png");
  const Outcome outcome = var_data(
      folder,
      "tokenize --train set --split 0.2 --skip-corrupt --tokenizer tok.safetensors --out t.h5");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_NE(outcome.out.find("set/c1/0.png"), std::string::npos) << outcome.out;
  EXPECT_NE(outcome.out.find("1 unreadable images skipped"), std::string::npos) << outcome.out;
  EXPECT_EQ(records::TokenFile(folder / "t.h5").info().rows(), 5);
}

TEST(VarData, EncodesInBf16AndSaysSo) {
  const TemporaryFolder folder;
  save_tiny_tokenizer(folder / "tok.safetensors");
  write_tree(folder / "set", 2, 8, 16);
  const std::string command = "tokenize --train set --split 0.25 --tokenizer tok.safetensors --out ";
  ASSERT_EQ(var_data(folder, command + "a.h5").exit_code, 0);
  const Outcome outcome = var_data(folder, command + "b.h5 --precision bf16");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const records::TokenFile exact(folder / "a.h5"), rounded(folder / "b.h5");
  rounded.verify();
  EXPECT_EQ(exact.info().precision, "fp32");
  EXPECT_EQ(rounded.info().precision, "bf16");
  EXPECT_EQ(rounded.info().tokenizer_fingerprint, exact.info().tokenizer_fingerprint);
  EXPECT_NE(rounded.fingerprint(), exact.fingerprint());
  int64_t equal = 0, tokens = 0;
  for (int64_t row = 0; row < exact.info().rows(); ++row)
    for (int64_t l = 0; l < 21; ++l, ++tokens) equal += exact.row(row)[l] == rounded.row(row)[l];
  EXPECT_GT(equal, tokens / 2);  // weights without training: many codes are nearly as near
}

TEST(VarData, HelpShowsExamples) {
  const TemporaryFolder folder;
  const Outcome help = var_data(folder, "--help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_NE(help.out.find("var_data tokenize --train"), std::string::npos);
}

}  // namespace
}  // namespace varscale::data
