// Trains the tiny run in a folder and lets one rank fail on the way, for tests/programs/faults_test.py.
//
//   mpirun -n 3 fault_run here --mode zero3 --fault stall --rank 0 --deadline 2
//   mpirun -n 3 fault_run here --mode zero3              goes on from the last checkpoint to the end
//
// A checkpoint is always being written. The fault strikes when this launch has completed one and is
// at the next. Files in the folder: pid-<rank>, of the newest launch; struck, with the number of
// updates, once the fault has come; run/, the run's own folder.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "base/command_line.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/signals.hpp"
#include "checkpoint/checkpoint.hpp"
#include "comm/communicator.hpp"
#include "records/token_file.hpp"
#include "tests/train/tiny_run.hpp"
#include "train/trainer.hpp"

namespace varscale {
namespace {

constexpr int64_t kSteps = 60;

struct Options {
  std::filesystem::path folder;
  std::string mode = "replicated", fault;
  int rank = 0;
  int64_t shards = 0;
  double deadline_s = 60;  // from the fault on
};

[[noreturn]] void sleep_for_ever() {
  for (;;) pause();  // returns after signals, which only set a flag
}

// Does to this rank what --fault says.
void fail(const std::string& fault, int64_t step, comm::Communicator& world) {
  if (fault == "throw" || fault == "all-throw")
    throw std::runtime_error(fmt::format("a fault before step {}", step));
  if (fault == "exit") _exit(3);
  if (fault == "kill") kill(getpid(), SIGKILL);
  if (fault == "freeze") kill(getpid(), SIGSTOP);  // its communication stands still as well
  if (fault == "mismatch") {
    at::Tensor other = at::ones({3});
    world.all_reduce(other, comm::Reduce::kSum, "another call").wait();
  }
  sleep_for_ever();  // stall
}

// What stands in a run's folder. All ranks see the same before a step: it changes only in collective
// calls.
struct Saved {
  int64_t newest = -1;  // step of the newest complete checkpoint
  bool begun = false;   // another one is being written
};

Saved look(const std::filesystem::path& folder) {
  Saved saved;
  const auto checkpoints = folder / "checkpoints";
  saved.newest = checkpoint::CheckpointFolder(checkpoints, 1).latest().value_or(-1);
  if (!std::filesystem::exists(checkpoints)) return saved;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoints))
    saved.begun |= entry.path().filename().string().find(".tmp") != std::string::npos;
  return saved;
}

base::ExitCode train(const Options& options, comm::Communicator& world) {
  const auto tokens_file = options.folder / "tokens.h5";
  comm::agree_on(world, "folder", [&] {
    if (world.rank() > 0) return;
    std::filesystem::create_directories(options.folder);
    if (!std::filesystem::exists(tokens_file)) test::write_tiny_tokens(tokens_file);
  });
  base::write_file_atomic(options.folder / fmt::format("pid-{}", world.rank()),
                          std::to_string(getpid()));
  const records::TokenFile tokens(tokens_file);
  train::TrainJob job = test::tiny_job(tokens, options.folder / "run");
  job.run.train.images = kSteps * job.run.train.batch;
  job.run.train.save_every_min = 0;
  job.run.parallel.mode = options.mode;
  job.run.parallel.shards = options.shards;
  const int64_t start = std::max<int64_t>(0, look(job.folder).newest);
  if (!options.fault.empty()) {
    job.before_step = [&, start](int64_t step) {
      const Saved saved = look(job.folder);
      if (saved.newest <= start || !saved.begun) {
        usleep(50000);  // a slow disk gets its time before the steps run out
        return;
      }
      world.set_deadline(options.deadline_s);
      if (options.fault != "all-throw" && options.rank != world.rank()) return;
      base::write_file_atomic(options.folder / "struck", std::to_string(step));
      fail(options.fault, step, world);
    };
  }
  const base::StopSignals stop;
  const train::Outcome outcome = train::train(job, tokens, world, stop);
  return outcome.state == train::Outcome::State::kDone ? base::ExitCode::kDone
                                                       : base::ExitCode::kStopped;
}

base::ExitCode run(int argc, char** argv) {
  Options options;
  CLI::App app("Trains the tiny run and lets one rank fail.", "fault_run");
  app.add_option("folder", options.folder)->required();
  app.add_option("--mode", options.mode, "parallel.mode");
  app.add_option("--shards", options.shards, "parallel.shards");
  app.add_option("--fault", options.fault)
      ->check(CLI::IsMember({"throw", "all-throw", "exit", "kill", "stall", "freeze", "mismatch"}));
  app.add_option("--rank", options.rank, "the one that fails");
  app.add_option("--deadline", options.deadline_s, "seconds that a call then waits");
  if (!base::parse_command_line(app, argc, argv)) return base::ExitCode::kDone;
  const auto world = comm::open_world();
  return comm::end_together(*world, [&] { return train(options, *world); });
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  return varscale::base::run_main("fault_run", [&] { return varscale::run(argc, argv); });
}
