// Training of the tokenizer by a group of ranks: its updates, and the state they depend on.
//
//   TokenizerTrainer trainer(config, images, *world);
//   while (!trainer.done()) { records::TokenizerStepRow row = trainer.step(); }
//   trainer.finished().save("tok.safetensors", trainer.training_record());
//
// The program's loop, with saved states and records, is tokenizer_training/run.hpp.
//
// Loss     l2 mean((r - x)^2) + l1 mean(|r - x|) + lpips distance + vq quantiser's loss + entropy term, and the
//          adversarial term times its weight; means over the whole batch.
// Order    The update of step s is a function of the configuration, the seed and s: any number of ranks, mode and
//          micro-batch gives the same up to the order of additions. All calls are collective.
// Resume   pieces() hold everything that step() depends on: at one layout and number of threads a resumed training
//          gives the same bits as an undisturbed one.
// Errors   UserError: no images, weight files that are missing or of another network, settings that do not fit. These
//          every rank throws alike.
// Legend   B batch, S scales, V codes, C code width, X image side.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.hpp"
#include "comm/communicator.hpp"
#include "losses/lpips.hpp"
#include "optim/adamw.hpp"
#include "optim/schedule.hpp"
#include "parallel/parallel.hpp"
#include "records/tokenizer_file.hpp"
#include "tokenizer/codebook.hpp"
#include "tokenizer/image_source.hpp"
#include "tokenizer/vqvae.hpp"
#include "tokenizer_training/adversary.hpp"
#include "tokenizer_training/config.hpp"
#include "tokenizer_training/share.hpp"

namespace varscale::tokenizer_training {

using at::Tensor;
using tokenizer::ImageSource;
using tokenizer::Vqvae;

class TokenizerTrainer {
 public:
  TokenizerTrainer(TokenizerConfig config, ImageSource images, comm::Communicator& world);

  int64_t steps_done() const noexcept { return steps_done_; }
  bool done() const noexcept { return steps_done_ == config_.train.steps; }
  // One update; the row's segment is 0 and step_s this rank's. An update that is not finite is skipped.
  records::TokenizerStepRow step();
  int64_t skipped_in_a_row() const noexcept { return skipped_in_a_row_; }
  // The use of codes by scale since the last call, one row a scale; begins anew.
  std::vector<records::CodeRow> take_code_rows();

  // The model to use, float32 on the CPU of every rank: the running mean where train.average is set.
  Vqvae finished() const;

  // Configuration, images and networks as one JSON text; what was trained is the same if and only if it is equal.
  const std::string& training_record() const noexcept { return record_; }

  // Everything that later steps depend on: what this rank owns, or (`to_save`) what it writes. Load into them, then
  // call loaded().
  std::vector<checkpoint::Piece> pieces(bool to_save);
  void loaded(int64_t steps_done);

  const std::vector<parallel::Owned>& owned() const { return parallel_->owned(); }  // by this rank

 private:
  struct Gathered;  // what the micro-batches of a step leave behind
  void accumulate(const Portion& portion, bool last, Gathered& step);
  void update_codes(const Gathered& gathered, int64_t step, records::TokenizerStepRow& row);
  Tensor rows_of(const Gathered& gathered, const std::vector<tokenizer::RowChoice>& choices);
  Tensor scales_of(const Portion& portion) const;
  Tensor load(const Portion& portion);
  void start_codebook();
  nn::NamedTensors replicated_state();

  TokenizerConfig config_;
  ImageSource images_;
  comm::Communicator& world_;
  at::Device device_;
  Share share_;
  optim::Schedule schedule_;
  std::optional<losses::Lpips> lpips_;
  Vqvae vqvae_;
  std::unique_ptr<parallel::Parallel> parallel_;
  std::optional<optim::AdamW> optimizer_;
  std::optional<tokenizer::CodebookAverage> codebook_;  // where codes are running means
  std::optional<Adversary> adversary_;
  std::vector<Tensor> averages_;  // of owned(), where train.average is set
  Tensor usage_V_;                // running mean of the codes' soft use; where there is an entropy term
  Tensor window_SV_;              // choices since the last code rows
  Tensor saved_2_;                // updates taken, skipped in a row: float64
  std::string record_;
  int64_t steps_done_ = 0, skipped_in_a_row_ = 0;
};

}  // namespace varscale::tokenizer_training
