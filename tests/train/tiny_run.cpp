#include "tests/train/tiny_run.hpp"

#include <unistd.h>

#include "base/random.hpp"

namespace varscale::test {

ScratchFolder::ScratchFolder(const std::string& name)
    : path_(std::filesystem::temp_directory_path() / fmt::format("varscale-{}-{}", name, getpid())) {
  std::filesystem::remove_all(path_);
  std::filesystem::create_directories(path_);
}

ScratchFolder::~ScratchFolder() { std::filesystem::remove_all(path_); }

void write_tiny_tokens(const std::filesystem::path& path) {
  records::TokenFileInfo info;
  info.train_images = 24;
  info.validation_images = 9;
  info.classes = 3;
  info.class_names = {"a", "b", "c"};
  info.vocabulary = 16;
  info.scales = {1, 2, 3};
  info.image_side = 12;
  info.tokenizer_fingerprint = "none: tokens are drawn";
  info.preprocessing = "none";
  info.source_fingerprint = "none";

  records::QuantizerWeights quantizer{.vocabulary = 16, .code_width = 4, .phis = 2, .phi_ratio = 0.5,
                                      .embedding = std::vector<float>(16 * 4),
                                      .phi_weight = std::vector<float>(2 * 4 * 4 * 9),
                                      .phi_bias = std::vector<float>(2 * 4)};
  base::RandomStream(1, "test", "embedding").fill_normal(quantizer.embedding.data(), 0, quantizer.embedding.size(), 1);
  base::RandomStream(1, "test", "phi").fill_normal(quantizer.phi_weight.data(), 0, quantizer.phi_weight.size(), 0.2F);

  records::TokenFileWriter writer(path, info, quantizer);
  const base::RandomStream noise(1, "test", "tokens");
  for (int64_t row = 0; row < info.rows(); ++row) {
    const auto label = static_cast<int32_t>(row % 3);
    std::vector<uint16_t> tokens(info.tokens_per_image());
    for (size_t i = 0; i < tokens.size(); ++i) {  // mostly a function of class and place: something to learn
      const uint64_t index = static_cast<uint64_t>(row) * tokens.size() + i;
      const bool noisy = noise.uniform(index) < 0.3F;
      tokens[i] = static_cast<uint16_t>(noisy ? noise.below(1000000 + index, 16) : (5 * label + 3 * i) % 16);
    }
    writer.write_row(row, tokens.data(), label, row);
  }
  writer.commit();
}

sweep::RunConfig tiny_run(const records::TokenFile& tokens) {
  sweep::RunConfig run;
  run.tokens = tokens.path().string();
  run.model.depth = 2;
  run.model.drop_path = 0.2;
  run.optimizer.lr = 3e-3;
  run.train.batch = 6;
  run.train.images = 120;
  run.train.seed = 3;
  run.eval.points = 5;
  run.eval.max_cost = 100;
  return sweep::resolve(run, sweep::facts_of(tokens));
}

train::TrainJob tiny_job(const records::TokenFile& tokens, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  return {.run = tiny_run(tokens), .facts = sweep::facts_of(tokens), .sweep = "tiny", .folder = folder, .on_step = {}, .quiet = true};
}

}  // namespace varscale::test
