#include "coordinate/worker.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "base/clock.hpp"
#include "base/machine.hpp"
#include "base/random.hpp"
#include "nn/device.hpp"
#include "sweep/gather.hpp"
#include "train/set_up.hpp"

namespace varscale::coordinate {

namespace {

using base::ExitCode;
using base::seconds_since;
using base::UserError;
using Clock = std::chrono::steady_clock;

// How many ranks of the launch run on this one's host. Collective.
int64_t ranks_of_this_host(comm::Communicator& world) {
  const auto mine = static_cast<int64_t>(base::fnv1a64(base::host_name()) >> 1);
  at::Tensor hosts_R = at::zeros({world.size()}, at::kLong);
  world.all_gather(hosts_R, at::full({1}, mine, at::kLong), "hosts").wait();
  return hosts_R.eq(mine).sum().item<int64_t>();
}

// The speed of a run as its group's first rank sees it.
class Speedometer {
 public:
  // Steps/s, if it is time to report them.
  std::optional<double> step(int64_t step) {
    constexpr double kReportEvery_s = 1;
    if (first_ == 0) {  // the first step of this start also loads and compiles
      first_ = step;
      since_ = reported_ = Clock::now();
      return std::nullopt;
    }
    if (seconds_since(reported_) < kReportEvery_s) return std::nullopt;
    reported_ = Clock::now();
    return static_cast<double>(step - first_) / seconds_since(since_);
  }

 private:
  int64_t first_ = 0;
  Clock::time_point since_, reported_;
};

}  // namespace

Worker::Worker(const sweep::Sweep& sweep, comm::Communicator& world, const base::StopSignals& stop, bool quiet,
               BeforeStep before_step)
    : sweep_(sweep),
      world_(world),
      stop_(stop),
      quiet_(quiet),
      before_step_(std::move(before_step)),
      post_(world.post()),
      ledger_(sweep::Ledger::look(sweep)),
      host_ranks_(ranks_of_this_host(world)),
      jobs_(sweep) {}

ExitCode Worker::work() {
  report({.kind = Report::Kind::kIdle});
  for (;;) {
    if (stop_.requested() && !told_) {
      told_ = true;
      report({.kind = Report::Kind::kStop});
    }
    const auto letter = post_->take(kWorkerBox, 0.2);
    if (!letter) continue;
    const Order order = Order::parse(letter->text);
    if (order.kind == Order::Kind::kEnd) return static_cast<ExitCode>(order.exit_code);
    if (order.kind != Order::Kind::kTrain) continue;  // for a group that has ended
    train(order);
    gather();
    report({.kind = Report::Kind::kIdle});
  }
}

// On the first rank, between runs and for a part in 500 of the time at most: it reads the records of every run.
void Worker::gather() {
  constexpr double kLeast_s = 60, kOverCost = 500;
  if (world_.rank() > 0 || seconds_since(gathered_) < std::max(kLeast_s, kOverCost * gather_s_)) return;
  const Clock::time_point begin = Clock::now();
  sweep::write_sweep_file(sweep_, ledger_);
  gathered_ = Clock::now();
  gather_s_ = seconds_since(begin);
}

// Orders that have come for the group in training.
void Worker::listen(int64_t group, train::Wish& wish) {
  while (const auto letter = post_->take(kWorkerBox, 0)) {
    const Order order = Order::parse(letter->text);
    if (order.group != group) continue;
    wish.stop |= order.kind == Order::Kind::kGiveBack;
    wish.save |= order.kind == Order::Kind::kSave;
  }
}

void Worker::train(const Order& order) {
  const sweep::SweepRun& run = sweep_.runs.at(static_cast<size_t>(order.run));
  const auto attempt = sweep::Attempt::parse(order.attempt);
  const auto group = world_.create_group(order.ranks, run.id, order.group);
  const bool first = group->rank() == 0;

  Speedometer speed;
  double save_s = 0;
  train::Wish wish;
  train::TrainJob job = jobs_.job_of(run, attempt.folder);
  job.host_ranks = host_ranks_;
  // One progress line at a time.
  job.quiet = quiet_ || group->size() < world_.size();
  if (const auto& from = run.branch)
    job.origin = train::Origin{attempt.run.parent_path() / from->trunk, from->trunk, from->trunk_hash, from->step};
  if (before_step_) job.before_step = [&](int64_t step) { before_step_(run.id, *group, step); };
  if (first) {
    job.before_publish = [&] { attempt.require_held(); };
    job.on_save = [&](double seconds) {
      save_s = seconds;
      wish.save = false;
    };
    job.wish = [&] {
      listen(order.group, wish);
      return wish;
    };
    job.on_step = [&](int64_t step, double loss) {
      if (const auto steps_per_s = speed.step(step))
        report({.kind = Report::Kind::kStep, .group = order.group, .step = step, .steps_per_s = *steps_per_s,
                .loss = loss, .save_s = save_s});
    };
  }

  Report end{.kind = Report::Kind::kEnded, .end = Report::End::kDone, .group = order.group};
  bool speaks = first, alone = false;
  const Clock::time_point begin = Clock::now();
  try {
    const train::Outcome outcome = train::train(job, jobs_.tokens_of(run), *group, stop_);
    end.step = outcome.step;
    if (outcome.state == train::Outcome::State::kStopped) end.end = Report::End::kStopped;
  } catch (const comm::GroupEnded&) {
    return;  // whoever ended it has said why
  } catch (const comm::CommError&) {
    throw;
  } catch (const std::exception& error) {
    if (!nn::device_works(train::device_of(run.config))) throw;
    alone = dynamic_cast<const comm::Agreed*>(&error) == nullptr;
    speaks |= alone;
    end.end = Report::End::kFailed;
    end.users_fault = dynamic_cast<const UserError*>(&error) != nullptr;
    end.reason = attempt.plain(alone && world_.size() > 1 ? fmt::format("rank {}: {}", world_.rank(), error.what())
                                                          : error.what());
  }
  end.train_s = seconds_since(begin);
  if (speaks) report(end);
  if (alone) group->end_group(end.reason);
}

}  // namespace varscale::coordinate
