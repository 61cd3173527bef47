// A tiny data set and run for tests of the trainer: 24 training images of 3 classes, scales 1,2,3,
// 16 codes of width 4, all from the counter-based generator.
#pragma once

#include <filesystem>
#include <string>

#include "records/token_file.hpp"
#include "sweep/identity.hpp"
#include "train/trainer.hpp"

namespace varscale::test {

// A folder of its own, removed at the end.
class ScratchFolder {
 public:
  explicit ScratchFolder(const std::string& name);
  ~ScratchFolder();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

void write_tiny_tokens(const std::filesystem::path& path);

// d2 of width 128, 20 steps of 6 images, drop path and label drop on.
sweep::RunConfig tiny_run(const records::TokenFile& tokens);

train::TrainJob tiny_job(const records::TokenFile& tokens, const std::filesystem::path& folder);

}  // namespace varscale::test
