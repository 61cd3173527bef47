// A tokenizer's training from its first step to its file: saved states, records, stops.
//
//   TokenizerJob job{.config = config, .images = source, .out = "tok.safetensors"};
//   Outcome outcome = train_tokenizer(job, *world, stop);
//
// Files    <out> when it is done; <out>.h5, the records (records/tokenizer_file.hpp); while it trains <out>.state, a
//          folder of checkpoints (checkpoint/checkpoint.hpp), which carry the records so far. Any number of ranks and
//          any mode goes on from one.
// Order    Collective. Stops after a step that all agree on, with its state saved.
// Errors   UserError: <out> or its state belong to other settings or images. An error of training that has diverged.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>

#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "tokenizer/image_source.hpp"
#include "tokenizer_training/config.hpp"

namespace varscale::tokenizer_training {

struct TokenizerJob {
  TokenizerConfig config;
  tokenizer::ImageSource images;
  std::filesystem::path out;
  bool quiet = false;      // no progress line
  int64_t stop_after = 0;  // stop in good order after this many updates (0: never): for tests
};

struct Outcome {
  enum class State { kDone, kStopped, kWasDone } state;
  int64_t step = 0;          // updates taken
  int64_t steps_here = 0;    // of them by this call
  double seconds = 0;        // of this call's steps
  std::string fingerprint = {};  // of the finished tokenizer
  int64_t parameters = 0;
};

Outcome train_tokenizer(const TokenizerJob& job, comm::Communicator& world, const base::StopSignals& stop);

}  // namespace varscale::tokenizer_training
