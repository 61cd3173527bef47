#include "train/trainer.hpp"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/progress.hpp"
#include "base/random.hpp"
#include "checkpoint/saver.hpp"
#include "data/batch.hpp"
#include "models/var/model.hpp"
#include "nn/async.hpp"
#include "nn/device.hpp"
#include "nn/functional.hpp"
#include "optim/adamw.hpp"
#include "optim/schedule.hpp"
#include "parallel/parallel.hpp"
#include "records/event_file.hpp"
#include "records/run_file.hpp"
#include "scaling/count.hpp"
#include "tokenizer/quantizer.hpp"
#include "train/eval_points.hpp"
#include "train/facts.hpp"
#include "train/feed.hpp"
#include "train/initial_weights.hpp"
#include "train/recorded_update.hpp"
#include "train/set_up.hpp"
#include "train/step_report.hpp"
#include "train/validate.hpp"

namespace varscale::train {

namespace {

using base::seconds_since;
using Clock = std::chrono::steady_clock;

// While it lives, ranks may be late by what the start or a checkpoint takes.
class LongDeadline {
 public:
  LongDeadline(comm::Communicator& world, const sweep::ParallelConfig& parallel)
      : world_(world), after_s_(parallel.deadline_s) {
    world_.set_deadline(parallel.first_deadline_s);
  }
  ~LongDeadline() { world_.set_deadline(after_s_); }
  LongDeadline(const LongDeadline&) = delete;
  LongDeadline& operator=(const LongDeadline&) = delete;

 private:
  comm::Communicator& world_;
  double after_s_;
};

// A step that has been launched. On the CPU it is over by then; a GPU may still be at it.
struct Launched {
  records::StepRow row;  // what the host knows
  nn::Fetch figures;     // sums of loss and correct answers by scale, squared norm, skipped
  nn::Interval time;
  std::vector<nn::Interval> waits;
  double data_wait_s;
};

// What a backward pass reads, on the device.
struct Inputs {
  at::Tensor tokens_BL, labels_B, drop_path_SB;  // labels with drops; drop path factors, or undefined
};

// One run in one process: the pieces, and what a step does with them.
class Trainer {
 public:
  Trainer(const TrainJob& job, const records::TokenFile& tokens, comm::Communicator& world,
          const base::StopSignals& stop, const Hardware& hardware,
          const scaling::Layout& layout)
      : job_(job),
        run_(job.run),
        world_(world),
        stop_(stop),
        shape_(sweep::shape_of(job.run, job.facts)),
        schedule_(make_schedule(job.run)),
        feed_(make_batches(run_, tokens, job.open_images), run_, world),
        validation_(tokens),
        device_(device_of(job.run)),
        quantizer_(tokenizer::Quantizer::from_weights(tokens.quantizer(), shape_.tokens.scales)
                       .to(device_)),
        model_(shape_,
               {.device = device_, .weights = compute_dtype(job.run), .allocate = false}),
        hardware_(hardware),
        layout_(layout),
        parallel_(
            parallel::make_parallel(units_of(model_), world, parallel_options(job.run, layout))),
        optimizer_(parallel::owned_weights(*parallel_), {.beta1 = run_.optimizer.beta1,
                                               .beta2 = run_.optimizer.beta2,
                                               .eps = run_.optimizer.eps}),
        keep_(run_.train.keep, sweep::kept_steps_of(run_)),
        checkpoints_(job.folder / "checkpoints", keep_),
        saver_(job.folder / "checkpoints", keep_, world, job.before_publish),
        identity_{.run_id = sweep::run_id(run_, job.facts),
                  .config_hash = sweep::identity_hash(run_, job.facts)},
        flops_per_image_(scaling::training_flops(shape_, 1.0)),
        eval_plan_(plan_evaluations(run_, schedule_, validation_.images(), flops_per_image_,
                                    scaling::count_forward(shape_).total())) {
    if (job.make_graph || run_.train.cuda_graph) record_updates();
    if (tokens.fingerprint() != job.facts.fingerprint) {
      throw base::UserError("{}: its tokens have changed since the run was planned; start again",
                            tokens.path().string());
    }
  }

  Outcome operator()() {
    std::optional<LongDeadline> starting(std::in_place, world_, run_.parallel);
    start();
    if (world_.rank() == 0) {
      progress_.emplace(
          identity_.run_id, schedule_.steps(), "steps",
          job_.quiet ? base::Progress::Style::kSilent : base::Progress::Style::kAuto);
      progress_->set(step_);
      if (!job_.quiet && (world_.size() > 1 || layout_.mode != "replicated"))
        progress_->say(layout_.why);
    }
    last_save_ = began_ = Clock::now();
    first_step_ = step_;
    GroupStep group = exchange(world_, news());
    while (step_ < schedule_.steps()) {
      if (saver_.in_flight() && !group.writing) saver_.publish();
      if (group.stop) {
        save();
        return {Outcome::State::kStopped, step_};
      }
      if (keep_.steps.contains(step_) || (group.save && !saver_.in_flight())) {
        begin_save();
        group.writing = true;
        group.save = false;
      }
      if (job_.before_step) job_.before_step(step_);
      launch_step();
      if (eval_plan_.steps.contains(step_)) evaluate(launched_.back().row);
      // On a GPU the host runs one step ahead.
      group = settle(device_.is_cpu() ? 0 : 1).value_or(group);
      starting.reset();
    }
    settle(0);
    if (rows_) rows_->set_fact("complete", int64_t{1});
    save();
    if (progress_) progress_->finish();
    return {Outcome::State::kDone, step_};
  }

 private:
  // Weights and moments of what this rank owns; `to_save`: only what it writes.
  std::vector<checkpoint::Piece> pieces(bool to_save) const {
    std::vector<checkpoint::Piece> pieces;
    const nn::NamedTensors moments = optimizer_.state();
    const std::vector<parallel::Owned>& owned = parallel_->owned();
    for (size_t i = 0; i < owned.size(); ++i) {
      if (to_save && !parallel_->saves(i)) continue;
      const parallel::Owned& part = owned[i];
      auto add = [&](const std::string& name, const at::Tensor& tensor) {
        pieces.push_back({name, part.shape, part.axis, part.begin, part.end, tensor});
      };
      add("param." + part.name, part.weight);
      add(moments[2 * i].name, moments[2 * i].tensor);
      add(moments[2 * i + 1].name, moments[2 * i + 1].tensor);
    }
    return pieces;
  }

  // Stands where the checkpoint stood from here on; its rows. All ranks call it alike.
  records::RunTables go_on_from(const checkpoint::CheckpointFolder& folder, int64_t step,
                                const checkpoint::Identity& identity) {
    const checkpoint::Position position = folder.load(step, identity, pieces(false));
    step_ = position.step;
    segment_ = position.segment + 1;
    records::RunTables tables = folder.rows(step);
    int64_t skipped = 0;
    for (const records::StepRow& row : tables.steps) {
      skipped += row.skipped;
      skipped_in_a_row_ = row.skipped != 0 ? skipped_in_a_row_ + 1 : 0;
    }
    optimizer_.set_steps_taken(step_ - skipped);
    return tables;
  }

  // Fresh or given weights, the trunk's checkpoint or the run's newest. The first rank looks; all load the same.
  void start() {
    at::Tensor found = at::full({1}, int64_t{-1}, at::kLong);
    if (world_.rank() == 0) found.fill_(checkpoints_.latest().value_or(-1));
    world_.broadcast(found, 0, "newest checkpoint").wait();
    const auto newest = found.item<int64_t>();

    comm::agree_on(world_, "start of the run", [&] {
      records::RunTables tables;
      if (newest >= 0) {
        tables = go_on_from(checkpoints_, newest, identity_);
      } else if (job_.origin) {
        const Origin& trunk = *job_.origin;
        VARSCALE_CHECK(trunk.step <= schedule_.decay_begin(), "a branch at step {} of a run whose decay begins at {}",
                       trunk.step, schedule_.decay_begin());
        tables = go_on_from({trunk.folder / "checkpoints", /*keep=*/1}, trunk.step,
                            {.run_id = trunk.run_id, .config_hash = trunk.config_hash});
        tables.facts = run_facts(job_, identity_, shape_, eval_plan_, validation_.images());
      } else if (!run_.model.init_from.empty()) {
        load_initial_weights(run_.model, shape_, parallel_->owned(), world_.rank() == 0);
        tables.facts = run_facts(job_, identity_, shape_, eval_plan_, validation_.images());
      } else {
        const models::InitOptions init{.seed = run_.train.seed,
                                       .std = run_.model.init_std,
                                       .adaln_gamma = run_.model.adaln_gamma_init};
        for (const parallel::Owned& part : parallel_->owned())
          models::fill_initial(part.name, shape_, init, part.first_element(), part.weight);
        tables.facts = run_facts(job_, identity_, shape_, eval_plan_, validation_.images());
      }
      tables.facts["segments"] = segment_ + 1;
      add_layout_facts(tables.facts, layout_, hardware_);
      if (world_.rank() != 0) return;
      rows_ = records::RunFile::recreate(job_.folder / "run.h5", std::move(tables));
      events_.emplace(job_.folder, rows_->tables());
    });
    parallel_->weights_changed();
  }

  // train.save_every_min, or 2 % of what the whole run takes if that is shorter; but a short run does not spend its
  // time with saving.
  double save_interval_s() const {
    constexpr double kShare = 0.02, kLeast_s = 10, kOverSave = 20;
    const double asked = 60 * run_.train.save_every_min;
    if (step_ == first_step_) return asked;
    const double run_s = seconds_since(began_) / static_cast<double>(step_ - first_step_) * static_cast<double>(schedule_.steps());
    return std::min(asked, std::max({kShare * run_s, kLeast_s, kOverSave * save_s_}));
  }

  // Any rank's wish to stop stops all after the same step; the first rank's clock decides about
  // saving; a checkpoint is published when no rank still writes.
  RankStep news() const {
    const bool stop_here = job_.stop_after > 0 && step_ >= job_.stop_after;
    const Wish wish = world_.rank() == 0 && job_.wish ? job_.wish() : Wish{};
    return {.stop = stop_.requested() || stop_here || wish.stop,
            .save_due = wish.save || seconds_since(last_save_) > save_interval_s(),
            .writing = saver_.busy(),
            .memory_bytes = nn::peak_bytes(device_)};
  }

  Inputs inputs_of(const data::Batch& batch) const {
    const at::Tensor labels_B =
        models::drop_labels(batch.labels_B, shape_.classes, run_.model.label_drop, run_.train.seed,
                            step_, batch.sample_ids);
    const at::Tensor drop_path_SB =
        models::drop_path_factors(shape_, run_.train.seed, step_, batch.sample_ids);
    return {nn::to_device(batch.tokens_BL, device_), nn::to_device(labels_B, device_),
            nn::to_device(drop_path_SB, device_)};
  }

  // Forward and backward of some rows of the batch; returns their sums, [2, S] float64 on the device.
  // Not counted: the rows stand in for none, and add nothing.
  at::Tensor accumulate(const Inputs& inputs, bool counted) {
    const models::ForwardOptions options{
        .compute = compute_dtype(run_),
        .drop_path_SB = inputs.drop_path_SB,
        .recompute_inputs = run_.parallel.recompute == "selective",
        .run_block = parallel::block_runner(*parallel_)};
    const at::Tensor logits_BLV =
        model_.forward(inputs.labels_B, quantizer_.teacher_input(inputs.tokens_BL), options);
    const nn::TokenScores scores =
        nn::score_and_consume(logits_BLV.flatten(0, 1), inputs.tokens_BL.flatten());
    const double global_count =
        static_cast<double>(run_.train.batch) * static_cast<double>(shape_.tokens.scales.tokens());
    (scores.loss_N.sum() * ((counted ? 1.0 : 0.0) / global_count)).backward();
    if (!counted) return no_sums();
    return scale_sums(scores.loss_N, scores.correct_N, inputs.labels_B.size(0), shape_.tokens.scales);
  }

  at::Tensor no_sums() const {
    return at::zeros({2, shape_.tokens.scales.count()}, at::TensorOptions(at::kDouble).device(device_));
  }

  // The next rows of this step's batch; adds the seconds that they took to come.
  Feed::Portion take(int64_t pass, double& wait_s) {
    const Clock::time_point begin = Clock::now();
    Feed::Portion portion = feed_.take(step_, pass);
    wait_s += seconds_since(begin);
    return portion;
  }

  // The weights' update from gradients and sums of the whole step. Returns its figures, float64 on the device: the
  // sums over the ranks, the squared norm and whether the update was skipped.
  at::Tensor apply_gradients(const at::Tensor& sums_2S, const auto& lr) {
    if (world_.size() > 1) {
      nn::Interval& wait = waits_.emplace_back(device_);
      world_.all_reduce(sums_2S, comm::Reduce::kSum, "loss sums").wait();
      wait.end();
    }
    const at::Tensor norm_squared = parallel_->gradient_norm_squared();
    const optim::Guard guard =
        optim::guard(norm_squared, sums_2S.select(0, 0).sum(), run_.optimizer.clip);
    const double decay = optim::weight_decay_at(
        run_.optimizer.weight_decay, run_.optimizer.weight_decay_end, step_, schedule_.steps());
    optimizer_.step(parallel::owned_gradients(*parallel_), lr, decay, guard);
    parallel_->weights_changed();
    return at::cat({sums_2S.view({-1}), norm_squared.view({1}), guard.skip.to(at::kDouble).view({1})});
  }

  // Of one rank with one pass a step, whose weight decay is constant (sweep::layout_of).
  void record_updates() {
    recorded_.emplace(job_.make_graph ? job_.make_graph() : nn::make_graph(device_),
                      [this](const std::vector<at::Tensor>& inputs, const at::Tensor& lr) {
                        parallel_->begin_step();
                        parallel_->begin_micro(/*last=*/true);
                        const at::Tensor sums_2S = accumulate({inputs[0], inputs[1], inputs[2]}, /*counted=*/true);
                        parallel_->finish_backward();
                        return apply_gradients(sums_2S, lr);
                      });
  }

  // Forward, backward and update; returns the figures.
  at::Tensor update(double lr, double& data_wait_s) {
    if (recorded_) {
      const Inputs inputs = inputs_of(take(0, data_wait_s).batch);
      return (*recorded_)({inputs.tokens_BL, inputs.labels_B, inputs.drop_path_SB}, lr);
    }
    parallel_->begin_step();
    at::Tensor sums_2S = no_sums();
    for (int64_t pass = 0; pass < feed_.passes(); ++pass) {
      const Feed::Portion portion = take(pass, data_wait_s);
      parallel_->begin_micro(pass + 1 == feed_.passes());
      sums_2S += accumulate(inputs_of(portion.batch), portion.counted);
      parallel_->finish_backward();
    }
    return apply_gradients(sums_2S, lr);
  }

  // One update. Nothing here waits for a GPU: whether loss and gradient are finite, and how far they are
  // clipped, is decided on the device.
  void launch_step() {
    nn::Interval time(device_);
    double data_wait_s = 0;
    const double lr = run_.optimizer.lr * schedule_.lr_factor(step_);
    const at::Tensor figures = update(lr, data_wait_s);
    time.end();
    ++step_;
    for (nn::Interval& wait : parallel_->take_waits()) waits_.push_back(std::move(wait));

    const double images = static_cast<double>(step_) * static_cast<double>(run_.train.batch);
    records::StepRow row{};
    row.step = step_;
    row.segment = segment_;
    row.images = images;
    row.tokens = images * static_cast<double>(shape_.tokens.scales.tokens());
    row.flops = images * flops_per_image_;
    row.lr = lr;
    launched_.push_back({row, nn::Fetch(figures), std::move(time), std::exchange(waits_, {}), data_wait_s});
  }

  // Completes the rows of launched steps but the newest `ahead`; what the ranks have said meanwhile, if
  // there was a row. Collective.
  std::optional<GroupStep> settle(size_t ahead) {
    std::optional<GroupStep> group;
    while (launched_.size() > ahead) {
      const Launched step = std::move(launched_.front());
      launched_.pop_front();
      RankStep mine = news();
      mine.step_s = step.time.seconds();
      mine.data_wait_s = step.data_wait_s;
      for (const nn::Interval& wait : step.waits) mine.comm_wait_s += wait.seconds();
      group = exchange(world_, mine);
      records::StepRow row = step.row;
      read_figures(row, step.figures.host());
      const double images = static_cast<double>(run_.train.batch);
      add_rates(row, *group, hardware_, images * flops_per_image_,
                images * static_cast<double>(shape_.tokens.scales.tokens()));
      record(row);
    }
    return group;
  }

  void read_figures(records::StepRow& row, const at::Tensor& figures) const {
    const int64_t sums = 2 * shape_.tokens.scales.count();
    const Scores scores = scores_from_sums(figures.slice(0, 0, sums).view({2, -1}),
                                           run_.train.batch, shape_.tokens.scales);
    row.loss_mean = scores.loss_mean;
    row.loss_tail = scores.loss_tail;
    row.err_mean = scores.err_mean;
    row.err_tail = scores.err_tail;
    row.grad_norm = std::sqrt(figures[sums].item<double>());
    row.skipped = figures[sums + 1].item<double>() != 0 ? 1 : 0;
  }

  void record(const records::StepRow& row) {
    skipped_in_a_row_ = row.skipped != 0 ? skipped_in_a_row_ + 1 : 0;
    if (rows_) {
      rows_->append(row);
      rows_->flush();
      events_->append(row);
    }
    if (progress_) {
      if (row.skipped != 0)
        progress_->say(fmt::format("step {}: loss {}, gradient norm {}: the update was skipped, {} in a row",
                                   row.step, row.loss_mean, row.grad_norm, skipped_in_a_row_));
      progress_->note(words(row, hardware_));
      progress_->advance(1);
    }
    if (world_.rank() == 0 && job_.on_step) job_.on_step(row.step, row.loss_mean);
    if (skipped_in_a_row_ > run_.train.max_skipped) {
      // The figures are sums over the ranks, so all of them come here.
      world_.agree(fmt::format("{}: step {}: loss {} with gradient norm {}: training has diverged; {} "
                               "updates in a row were skipped (train.max_skipped is {})",
                               identity_.run_id, row.step, row.loss_mean, row.grad_norm,
                               skipped_in_a_row_, run_.train.max_skipped),
                   /*user=*/false, "divergence");
    }
  }

  void evaluate(const records::StepRow& now) {
    const Clock::time_point begin = Clock::now();
    const bool whole = eval_plan_.whole_set.contains(step_);
    const std::vector<int64_t> images = evaluation_images(
        validation_.images(), whole ? validation_.images() : eval_plan_.subset_images);
    const Scores scores = validate(model_, *parallel_, quantizer_, validation_, images, run_, step_, world_);
    if (!rows_) return;
    std::vector<records::ScaleRow> scale_rows;
    for (size_t k = 0; k < scores.loss_scale.size(); ++k) {
      scale_rows.push_back(
          {step_, static_cast<int64_t>(k), scores.loss_scale[k], scores.err_scale[k]});
    }
    const records::EvalRow row{.step = step_,
                               .segment = segment_,
                               .images = now.images,
                               .tokens = now.tokens,
                               .flops = now.flops,
                               .lr = now.lr,
                               .loss_mean = scores.loss_mean,
                               .loss_tail = scores.loss_tail,
                               .err_mean = scores.err_mean,
                               .err_tail = scores.err_tail,
                               .val_images = static_cast<int64_t>(images.size()),
                               .whole_set = whole ? 1 : 0,
                               .eval_s = seconds_since(begin)};
    records::append_evaluation(*rows_, row, scale_rows);
    events_->append(row);
  }

  // Everything launched has been settled.
  checkpoint::State state() {
    VARSCALE_CHECK(launched_.empty(), "a checkpoint of {} steps under way", launched_.size());
    comm::agree_on(world_, "flush of run.h5", [&] {
      if (!rows_) return;
      rows_->sync();
      events_->flush();
    });
    checkpoint::State state{.identity = identity_,
                            .step = step_,
                            .segment = segment_,
                            .pieces = pieces(true)};
    if (rows_) state.write_rows = [tables = rows_->tables()](const std::filesystem::path& file) { records::write_run(file, tables); };
    return state;
  }

  // A checkpoint of this step, written beside training where memory allows.
  void begin_save() {
    const LongDeadline deadline(world_, run_.parallel);
    settle(0);
    const Clock::time_point begin = Clock::now();
    if (saver_.in_flight()) saver_.publish();
    if (layout_.async_save)
      saver_.begin(state());
    else
      saver_.save(state());
    note_save(begin);
  }

  // The state as it is now, and nothing left under way.
  void save() {
    const LongDeadline deadline(world_, run_.parallel);
    settle(0);
    const Clock::time_point begin = Clock::now();
    if (saver_.in_flight()) saver_.publish();
    saver_.save(state());
    note_save(begin);
  }

  void note_save(Clock::time_point begin) {
    last_save_ = Clock::now();
    save_s_ = std::max(save_s_, seconds_since(begin));
    if (world_.rank() == 0 && job_.on_save) job_.on_save(save_s_);
  }

  const TrainJob& job_;
  const sweep::RunConfig& run_;
  comm::Communicator& world_;
  const base::StopSignals& stop_;
  scaling::VarShape shape_;
  optim::Schedule schedule_;
  Feed feed_;
  data::ValidationBatches validation_;
  at::Device device_;
  tokenizer::Quantizer quantizer_;
  models::Var model_;
  const Hardware& hardware_;
  const scaling::Layout& layout_;
  std::unique_ptr<parallel::Parallel> parallel_;
  optim::AdamW optimizer_;
  checkpoint::Keep keep_;
  checkpoint::CheckpointFolder checkpoints_;
  checkpoint::Saver saver_;
  checkpoint::Identity identity_;
  double flops_per_image_;
  EvalPlan eval_plan_;
  std::optional<records::RunFile> rows_;       // on the first rank
  std::optional<records::EventFile> events_;   // on the first rank
  std::optional<base::Progress> progress_;     // on the first rank
  std::optional<RecordedUpdate> recorded_;
  std::vector<nn::Interval> waits_;  // for the loss sums, since the last step
  std::deque<Launched> launched_;
  Clock::time_point last_save_, began_;
  double save_s_ = 0;  // the longest that training waited for a checkpoint
  int64_t first_step_ = 0;
  int64_t step_ = 0, segment_ = 0, skipped_in_a_row_ = 0;
};

}  // namespace

Outcome train(const TrainJob& job, const records::TokenFile& tokens, comm::Communicator& world,
              const base::StopSignals& stop) {
  const ThreadCount threads(job.run.train.threads);
  nn::count_cpu_memory();
  std::unique_ptr<comm::Communicator> nccl;
  if (job.run.train.device == "cuda") {
    nn::repeatable_cuda();
    nccl = comm::open_nccl(world);
  }
  // A recorded update is that of one rank: there is nothing to reduce, and it is recorded on a stream of its own.
  std::unique_ptr<comm::Communicator> alone;
  std::optional<c10::StreamGuard> own_stream;
  if (job.run.train.cuda_graph && nccl && world.size() == 1) {
    alone = comm::make_self();
    own_stream.emplace(nn::stream_of_pool(device_of(job.run)));
  }
  comm::Communicator& group = alone ? *alone : nccl ? *nccl : world;
  group.set_deadline(job.run.parallel.first_deadline_s);
  const at::Device device = device_of(job.run);
  nn::reset_peak(device);
  const Hardware hardware = hardware_of(group, device, job.run.train.precision);
  const scaling::Machine machine = machine_of(group, device, hardware, job.host_ranks);
  std::optional<scaling::Layout> layout;
  std::optional<Trainer> trainer;
  comm::agree_on(group, "set-up of the run", [&] {
    layout = layout_for(job.run, sweep::shape_of(job.run, job.facts), machine);
    trainer.emplace(job, tokens, group, stop, hardware, *layout);
  });
  const Outcome outcome = (*trainer)();
  group.set_deadline(job.run.parallel.first_deadline_s);  // for what comes between runs
  return outcome;
}

}  // namespace varscale::train
