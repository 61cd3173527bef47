// Training of the tokenizer on one process.
//
//   ImageSource images{set.size(), set.fingerprint(), [&](const auto& numbers) { return set.batch(numbers); }};
//   TokenizerTrainer trainer(config, images);
//   while (!trainer.done()) { TokenizerStep facts = trainer.step(); }
//   trainer.finished().save("tok.safetensors", trainer.training_record());
//
// Order    Batch k is a function of (seed, k): every pass over the images is a new permutation.
// Resume   save_state() holds everything that step() depends on: at the same number of threads a
//          resumed training gives the same bits as an undisturbed one.
// Errors   UserError: no images, a state of another configuration or of other images.
// Legend   B batch, S scales, V codes, X image side.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "optim/adamw.hpp"
#include "optim/schedule.hpp"
#include "tokenizer/codebook.hpp"
#include "tokenizer/train_config.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::tokenizer {

// Where images come from: batch(numbers) gives float32 [B, 3, X, X] in [-1, 1]; numbers are below count.
struct ImageSource {
  int64_t count = 0;
  std::string fingerprint;  // of the images, recorded with the result
  std::function<Tensor(const std::vector<int64_t>& numbers)> batch;
};

// What a step's reconstruction costs: l2 mean((r - x)^2) + l1 mean(|r - x|).
Tensor reconstruction_loss(const LossConfig& loss, const Tensor& reconstruction_B3XX,
                           const Tensor& image_B3XX);

struct TokenizerStep {
  int64_t step = 0;
  double loss = 0, mse = 0, vq_loss = 0, grad_norm = 0, lr = 0;
  int64_t codes_used = 0,
          restarted = 0;  // codes chosen in this batch; codes put elsewhere after it
};

class TokenizerTrainer {
 public:
  TokenizerTrainer(TokenizerConfig config, ImageSource images);

  int64_t steps_done() const noexcept { return steps_done_; }
  bool done() const noexcept { return steps_done_ == config_.train.steps; }
  TokenizerStep step();

  // The model being trained, and the one to save: its running mean where train.average is set.
  const Vqvae& model() const noexcept { return vqvae_; }
  Vqvae finished() const;

  // Configuration and images as one JSON text; what was trained is the same if and only if it is equal.
  std::string training_record() const;

  void save_state(const std::filesystem::path& path) const;  // aside, fsync, rename
  void load_state(const std::filesystem::path& path);

 private:
  nn::NamedTensors state() const;
  std::vector<int64_t> batch_numbers(int64_t step) const;
  void start_codebook();

  TokenizerConfig config_;
  ImageSource images_;
  Vqvae vqvae_;
  std::vector<nn::NamedTensor>
      trained_;  // all parameters, without the codebook where it is averaged
  optim::AdamW optimizer_;
  optim::Schedule schedule_;
  CodebookAverage codebook_;
  std::vector<Tensor> averages_;  // of trained_, where train.average is set
  std::optional<std::vector<int64_t>>
      subset_;  // numbers of the images trained on, where not all are
  int64_t steps_done_ = 0;
};

}  // namespace varscale::tokenizer
