#include "tokenizer_training/run.hpp"

#include <ATen/ATen.h>

#include <chrono>
#include <cmath>
#include <optional>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "checkpoint/saver.hpp"
#include "nn/device.hpp"
#include "tokenizer_training/trainer.hpp"

namespace varscale::tokenizer_training {

namespace {

namespace fs = std::filesystem;
using base::UserError;
using Clock = std::chrono::steady_clock;

// Means over some steps, for the progress line.
struct Window {
  records::TokenizerStepRow sum{};
  int64_t steps = 0;
  void add(const records::TokenizerStepRow& row) {
    sum.l2 += row.l2, sum.vq += row.vq, sum.lpips += row.lpips, sum.restarted += row.restarted;
    sum.generator += row.generator, sum.discriminator += row.discriminator, ++steps;
  }
  std::string words(const TokenizerConfig& config) const {
    const auto n = static_cast<double>(steps);
    std::string words = fmt::format("mse {:.5f} ({:.2f} dB), vq {:.4f}", sum.l2 / n, 10 * std::log10(4 * n / sum.l2), sum.vq / n);
    if (config.loss.lpips > 0) words += fmt::format(", lpips {:.4f}", sum.lpips / n);
    if (config.adversarial.is_on())
      words += fmt::format(", generator {:.3f}, discriminator {:.3f}", sum.generator / n, sum.discriminator / n);
    return words + fmt::format(", {} codes restarted", sum.restarted);
  }
};

class Run {
 public:
  Run(const TokenizerJob& job, comm::Communicator& world, const base::StopSignals& stop)
      : job_(job),
        world_(world),
        stop_(stop),
        folder_(job.out.string() + ".state"),
        record_file_(fs::path(job.out).replace_extension(".h5")),
        checkpoints_(folder_, /*keep=*/2),
        saver_(folder_, 2, world) {
    comm::agree_on(world_, "set-up of the training", [&] { trainer_.emplace(job.config, job.images, world); });
    identity_ = {.run_id = "tokenizer", .config_hash = base::sha256_hex(trainer_->training_record())};
  }

  Outcome operator()() {
    if (is_done_already()) return {.state = Outcome::State::kWasDone};
    start();
    const TrainConfig& train = job_.config.train;
    begin_ = last_save_ = Clock::now();
    const int64_t first = trainer_->steps_done();
    if (world_.rank() == 0) {
      progress_.emplace("tokenizer", train.steps, "steps", job_.quiet ? base::Progress::Style::kSilent : base::Progress::Style::kAuto);
      progress_->set(first);
    }
    while (!trainer_->done()) {
      const Wishes wishes = exchange();
      if (wishes.stop) {
        save();
        return outcome(Outcome::State::kStopped, first);
      }
      if (wishes.save) save();
      records::TokenizerStepRow row = trainer_->step();
      world_.set_deadline(job_.config.parallel.deadline_s);
      record(row);
    }
    const Vqvae result = trainer_->finished();
    comm::agree_on(world_, "write the tokenizer", [&] {
      if (world_.rank() != 0) return;
      rows_->set_fact("complete", int64_t{1});
      rows_->sync();
      result.save(job_.out, trainer_->training_record());
      fs::remove_all(folder_);
    });
    if (progress_) progress_->finish();
    Outcome done = outcome(Outcome::State::kDone, first);
    done.fingerprint = result.fingerprint();
    done.parameters = nn::count_elements(result.parameters());
    return done;
  }

 private:
  struct Wishes {
    bool stop, save;
  };

  Outcome outcome(Outcome::State state, int64_t first) const {
    return {.state = state,
            .step = trainer_->steps_done(),
            .steps_here = trainer_->steps_done() - first,
            .seconds = base::seconds_since(begin_)};
  }

  bool is_done_already() {
    bool done = false;
    comm::agree_on(world_, "the tokenizer's file", [&] {
      base::require_writable_folder(job_.out.has_parent_path() ? job_.out.parent_path() : fs::path("."));
      if (!fs::exists(job_.out)) return;
      if (tokenizer::stored_training(job_.out) != trainer_->training_record())
        throw UserError(
            "{} exists and was trained otherwise (settings or images differ); remove it, or give another --out",
            job_.out.string());
      done = true;
    });
    return done;
  }

  // From the newest saved state, or from the beginning. The first rank looks; all load the same.
  void start() {
    at::Tensor newest = at::full({1}, int64_t{-1}, at::kLong);
    if (world_.rank() == 0) newest.fill_(checkpoints_.latest().value_or(-1));
    world_.broadcast(newest, 0, "newest saved state").wait();
    const auto step = newest.item<int64_t>();
    comm::agree_on(world_, "start of the training", [&] {
      records::TokenizerTables tables;
      if (step >= 0) {
        if (checkpoints_.manifest(step)["config_hash"].get<std::string>() != identity_.config_hash)
          throw UserError(
              "{}: the state of another training (settings or images differ); remove it, or write to another --out",
              folder_.string());
        const checkpoint::Position position = checkpoints_.load(step, identity_, trainer_->pieces(false));
        trainer_->loaded(position.step);
        segment_ = position.segment + 1;
        tables = records::read_tokenizer_record(checkpoints_.rows_file(step));
      }
      tables.facts["training"] = trainer_->training_record();
      tables.facts["segments"] = segment_ + 1;
      if (world_.rank() == 0) rows_ = records::TokenizerRecord::recreate(record_file_, std::move(tables));
    });
    if (step >= 0 && world_.rank() == 0 && !job_.quiet)
      fmt::print(stderr, "{}: going on at step {}\n", folder_.string(), trainer_->steps_done());
  }

  // Any rank's wish to stop stops all after the same step; the first rank's clock decides about saving.
  Wishes exchange() {
    const bool stop_here = job_.stop_after > 0 && trainer_->steps_done() >= job_.stop_after;
    const bool due = world_.rank() == 0 && base::seconds_since(last_save_) > 60 * job_.config.train.save_every_min;
    at::Tensor flags = at::tensor({int64_t{stop_.requested() || stop_here}, int64_t{due}}, at::kLong);
    world_.all_reduce(flags, comm::Reduce::kMax, "stop or save").wait();
    return {flags[0].item<int64_t>() != 0, flags[1].item<int64_t>() != 0};
  }

  void record(records::TokenizerStepRow& row) {
    row.segment = segment_;
    const TrainConfig& train = job_.config.train;
    const bool report = row.step % train.report_every == 0 || trainer_->done();
    const std::vector<records::CodeRow> codes = report ? trainer_->take_code_rows() : std::vector<records::CodeRow>();
    if (rows_) {
      rows_->append(row);
      for (const records::CodeRow& each : codes) rows_->append(each);
      if (report) rows_->flush();
    }
    window_.add(row);
    if (progress_) {
      constexpr int64_t kWindow = 20;
      if (window_.steps == kWindow) {
        progress_->note(window_.words(job_.config));
        window_ = {};
      }
      progress_->advance(1);
    }
    if (trainer_->skipped_in_a_row() > train.max_skipped) {
      // The figures are sums over the ranks, so all of them come here.
      world_.agree(fmt::format("step {}: loss {} with gradient norm {}: training has diverged; {} updates in a row were "
                               "skipped (train.max_skipped is {})",
                               row.step, row.loss, row.grad_norm, trainer_->skipped_in_a_row(), train.max_skipped),
                   /*user=*/false, "divergence");
    }
  }

  void save() {
    world_.set_deadline(job_.config.parallel.first_deadline_s);
    comm::agree_on(world_, "flush of the records", [&] {
      if (rows_) rows_->sync();
    });
    checkpoint::State state{.identity = identity_,
                            .step = trainer_->steps_done(),
                            .segment = segment_,
                            .pieces = trainer_->pieces(true)};
    if (rows_)
      state.write_rows = [tables = rows_->tables()](const fs::path& file) { records::write_tokenizer_record(file, tables); };
    saver_.save(std::move(state));
    last_save_ = Clock::now();
  }

  const TokenizerJob& job_;
  comm::Communicator& world_;
  const base::StopSignals& stop_;
  fs::path folder_, record_file_;
  checkpoint::CheckpointFolder checkpoints_;
  checkpoint::Saver saver_;
  checkpoint::Identity identity_;
  std::optional<TokenizerTrainer> trainer_;
  std::optional<records::TokenizerRecord> rows_;  // on the first rank
  std::optional<base::Progress> progress_;        // on the first rank
  Window window_;
  Clock::time_point begin_, last_save_;
  int64_t segment_ = 0;
};

}  // namespace

Outcome train_tokenizer(const TokenizerJob& job, comm::Communicator& world, const base::StopSignals& stop) {
  std::unique_ptr<comm::Communicator> nccl;
  if (job.config.train.device == "cuda") {
    nn::repeatable_cuda();
    nccl = comm::open_nccl(world);
  }
  comm::Communicator& group = nccl ? *nccl : world;
  group.set_deadline(job.config.parallel.first_deadline_s);
  return Run(job, group, stop)();
}

}  // namespace varscale::tokenizer_training
