// Trains one run: batches in, rows of run.h5 and checkpoints out; resumes where it stopped.
//
//   TrainJob job{.run = run, .facts = facts, .sweep = "depth", .folder = ledger.run_folder(id)};
//   Outcome outcome = train(job, token_file, *world, stop);
//
// Order    The update of step s (from 0) is a function of the configuration, the seed and s; rows
//          carry the number of updates taken, s + 1. Loss and gradients are sums over the global
//          batch divided by the global count, so any division of the batch among ranks and
//          micro-batches gives the same update up to the order of additions; with data.tokens online
//          also up to near ties of the encoder.
// Restart  Continues from the newest complete checkpoint; run.h5 is rebuilt from the rows it
//          carries. At one layout every later row (but segment and timings) and all weights are bit
//          for bit those of an undisturbed run.
// Branches With an origin a run without a checkpoint begins from the trunk's, with its rows: run.h5 is then the
//          whole history, and rows and weights are those of the run trained from its first step.
// Errors   UserError: a checkpoint of another configuration or of another trunk, a token file that is not the planned
//          one, images or a tokenizer that are not those of the token file. A loss that is not finite ends the run
//          with an error naming the step. These every rank throws (comm::Agreed); what a rank meets alone, such as a
//          full disk or an image that cannot be read, it throws alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/signals.hpp"
#include "comm/communicator.hpp"
#include "nn/graph.hpp"
#include "records/token_file.hpp"
#include "sweep/identity.hpp"

namespace varscale::data {
class TrainImages;
}

namespace varscale::train {

// A place in another run where this one begins.
struct Origin {
  std::filesystem::path folder;  // of that run
  std::string run_id, config_hash;
  int64_t step = 0;  // of its checkpoint
};

// From outside, between two steps.
struct Wish {
  bool stop = false;  // in good order, as by a signal
  bool save = false;
};

struct TrainJob {
  sweep::RunConfig run;  // resolved
  sweep::TokenFacts facts;
  std::string sweep;  // name, for the records
  std::filesystem::path folder;
  // Called on the first rank after every step with the updates taken; may be empty.
  std::function<void(int64_t step, double loss_mean)> on_step;
  // Called on every rank before each step with the updates taken; may be empty, and may throw: for
  // tests of faults.
  std::function<void(int64_t step)> before_step = {};
  // Called on the first rank directly before a checkpoint is published; may be empty. If it throws, nothing is
  // published, and every rank throws its sentence.
  std::function<void()> before_publish = {};
  // Asked on the first rank after every step; may be empty.
  std::function<Wish()> wish = {};
  // Called on the first rank after a checkpoint with the seconds that training waited for it; may be empty.
  std::function<void(double seconds)> on_save = {};
  int64_t host_ranks = 0;  // ranks of the launch on this host, which share its memory; 0: those of the group
  // Of a branch: its trunk, whose first steps are those of this run. Not looked at where the run has a
  // checkpoint of its own.
  std::optional<Origin> origin = {};
  // Of data.tokens online: the images and the tokenizer behind the token file. Asked on every rank while the run is
  // set up; what it throws, all throw.
  std::function<std::shared_ptr<const data::TrainImages>()> open_images = {};
  // What train.cuda_graph records with, for tests: without it the device's own. Given, updates are recorded on any device.
  std::function<std::unique_ptr<nn::Graph>()> make_graph = {};
  bool quiet = false;      // no progress line
  int64_t stop_after = 0;  // stop in good order after this many updates (0: never): for tests
};

struct Outcome {
  enum class State { kDone, kStopped } state;
  int64_t step;
};

// Collective over `world`.
Outcome train(const TrainJob& job, const records::TokenFile& tokens, comm::Communicator& world,
              const base::StopSignals& stop);

}  // namespace varscale::train
