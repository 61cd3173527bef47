#include "coordinate/coordinator.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <stdexcept>

#include "base/clock.hpp"
#include "sweep/branches.hpp"

namespace varscale::coordinate {

namespace {

using base::ExitCode;
using base::seconds_since;

constexpr double kLookEvery_s = 0.5;  // for switches and for runs that have become free
constexpr double kMargin_s = 30;      // before a time limit, beside three of the longest saves
constexpr double kShortRun_s = 10;    // of runs that take less the next ones are claimed ahead

// "0-3" or "0, 2, 5".
std::string words(const std::vector<int>& ranks) {
  if (ranks.size() > 1 && ranks.back() - ranks.front() + 1 == static_cast<int>(ranks.size()))
    return fmt::format("ranks {}-{}", ranks.front(), ranks.back());
  return fmt::format("rank{} {}", ranks.size() == 1 ? "" : "s", fmt::join(ranks, ", "));
}

// No group of the launch has the number of another, also of another coordinator.
int64_t new_group_number() {
  static std::atomic<int64_t> newest = 0;
  return ++newest;
}

bool take_switch(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::remove(path, error);
}

}  // namespace

Coordinator::Coordinator(const sweep::Sweep& sweep, const sweep::Ledger& ledger, std::shared_ptr<comm::Post> post,
                         int ranks, CoordinatorOptions options)
    : sweep_(sweep),
      ledger_(ledger),
      post_(std::move(post)),
      ranks_(ranks),
      options_(std::move(options)),
      placement_(ranks, options_.placement),
      book_(sweep, ledger),
      tried_(options_.left_out) {
  thread_ = std::thread([this] { work(); });
}

Coordinator::~Coordinator() {
  abandoned_ = true;
  if (thread_.joinable()) thread_.join();
}

void Coordinator::finish() {
  thread_.join();
  if (failure_) std::rethrow_exception(failure_);
}

void Coordinator::say(const std::string& sentence) {
  if (options_.quiet) return;
  if (progress_)
    progress_->say(sentence);
  else
    std::fputs((sentence + "\n").c_str(), stderr);
}

// Of what is not done: also what other jobs may do of it.
void Coordinator::open_progress() {
  if (!several_at_once() || options_.quiet) return;
  double gflop = 0;
  for (size_t i = 0; i < sweep_.runs.size(); ++i) {
    const sweep::SweepRun& run = sweep_.runs[i];
    const sweep::RunStatus status = ledger_.status(run.id);
    if (tried_.contains(run.id) || status.state == sweep::RunState::kDone) continue;
    const int64_t first = run.branch ? std::max(status.step, run.branch->step) : status.step;
    counted_[static_cast<int64_t>(i)] = first;
    gflop += options_.step_flops.at(i) * static_cast<double>(sweep::steps_of(run.config) - first) / 1e9;
  }
  if (gflop >= 1) progress_.emplace(sweep_.name, static_cast<int64_t>(gflop), "GFLOP");
}

void Coordinator::count_steps(const Group& group, int64_t step) {
  if (!progress_ || !counted_.contains(group.run)) return;
  int64_t& counted = counted_.at(group.run);
  if (step <= counted) return;
  uncounted_gflop_ += options_.step_flops.at(static_cast<size_t>(group.run)) * static_cast<double>(step - counted) / 1e9;
  counted = step;
  const auto whole = static_cast<int64_t>(uncounted_gflop_);
  uncounted_gflop_ -= static_cast<double>(whole);
  progress_->advance(whole);
  std::vector<std::string> parts;
  for (const auto& [number, each] : groups_)
    parts.push_back(fmt::format("{} {:.0f} %", id_of(each.run),
                                100.0 * static_cast<double>(each.step) /
                                    static_cast<double>(sweep::steps_of(sweep_.runs[static_cast<size_t>(each.run)].config))));
  constexpr size_t kMostNamed = 4;
  const size_t more = parts.size() > kMostNamed ? parts.size() - kMostNamed : 0;
  parts.resize(parts.size() - more);
  progress_->note(fmt::format("{}{}", fmt::join(parts, ", "), more > 0 ? fmt::format(" and {} more", more) : ""));
}

void Coordinator::work() {
  while (!abandoned_) {
    try {
      loop();
      return;
    } catch (const comm::CommError&) {
      failure_ = std::current_exception();
      return;  // nobody can be reached any more
    } catch (...) {
      if (!failure_) failure_ = std::current_exception();
      stopping_ = true;
      ask_all_back();
    }
  }
}

void Coordinator::loop() {
  if (!progress_) open_progress();
  look_around();
  while (!abandoned_) {
    act();
    settle();
    if (finished()) break;
    auto letter = post_->take(kCoordinatorBox, 0.2);
    for (; letter; letter = post_->take(kCoordinatorBox, 0)) read(*letter);
    look_around();
  }
  if (progress_) progress_->finish();
  const ExitCode code = failure_ ? ExitCode::kFailure : exit_code();
  const double all_s = static_cast<double>(ranks_) * seconds_since(begin_);
  if (in_runs_s_ > 0 && several_at_once())
    say(fmt::format("{:.2f} % of the ranks' time was given to runs, {:.1f} s of {:.1f} s", 100 * in_runs_s_ / all_s,
                    in_runs_s_, all_s));
  for (int rank = 0; rank < ranks_ && !abandoned_; ++rank)
    order(rank, {.kind = Order::Kind::kEnd, .exit_code = static_cast<int>(code)});
}

void Coordinator::read(const comm::Letter& letter) {
  const Report report = Report::parse(letter.text);
  // What came before a rank's first word to this coordinator was for one before it.
  if (report.kind == Report::Kind::kIdle) came_.insert(letter.from);
  if (!came_.contains(letter.from)) return;
  const auto found = groups_.find(report.group);
  switch (report.kind) {
    case Report::Kind::kStop:
      stop("");
      return;
    case Report::Kind::kIdle:
      for (auto it = groups_.begin(); it != groups_.end(); ++it) {
        Group& group = it->second;
        if (std::ranges::find(group.ranks, letter.from) == group.ranks.end()) continue;
        if (++group.idle < group.ranks.size()) return;
        const Group back = std::move(group);
        groups_.erase(it);
        came_back(back);
        return;
      }
      return;
    case Report::Kind::kStep: {
      if (found == groups_.end()) return;
      Group& group = found->second;
      group.step = report.step;
      book_.stepped(group.run, report);
      count_steps(group, report.step);
      longest_save_s_ = std::max(longest_save_s_, report.save_s);
      const auto steps = sweep::steps_of(sweep_.runs[static_cast<size_t>(group.run)].config);
      if (!group.asked)
        placement_.measured(group.run, static_cast<double>(steps - report.step), report.steps_per_s);
      return;
    }
    case Report::Kind::kEnded:
      // Of a group that fails several ranks may report; the first of them ended it.
      if (found != groups_.end() && !found->second.ended) found->second.ended = report;
      return;
  }
}

void Coordinator::came_back(const Group& group) {
  VARSCALE_CHECK(group.ended, "the group of run {} has come back without a word", id_of(group.run));
  const Report& report = *group.ended;
  in_runs_s_ += static_cast<double>(group.ranks.size()) * report.train_s;
  last_run_s_ = seconds_since(group.since);
  last_end_ = Clock::now();
  const sweep::SweepRun& run = sweep_.runs[static_cast<size_t>(group.run)];
  if (report.end == Report::End::kDone || report.end == Report::End::kStopped) count_steps(group, report.step);
  const bool goes_on =
      report.end == Report::End::kStopped && group.asked && !stopping_ && !tried_.contains(run.id);
  book_.ended(group.run, report, goes_on);
  if (goes_on) {
    placement_.returned(group.run, static_cast<double>(sweep::steps_of(run.config) - report.step));
    return;
  }
  placement_.ended(group.run);
  placed_.erase(group.run);
  tried_.insert(run.id);
  if (report.end == Report::End::kStopped && !group.asked) stop("");
  if (report.end == Report::End::kFailed) settle();  // before others start: they may have no place to write
}

// The ranks are at work, or have nothing to do: time for the disk.
void Coordinator::settle() {
  const RunBook::News news = book_.write();
  if (news.broken) {  // the next would fail too
    if (!failure_) failure_ = std::make_exception_ptr(std::runtime_error(*news.broken));
    stopping_ = true;
    ask_all_back();
  }
  for (const auto& [run, report] : news.ended) say_end(run, report);
  for (const std::string& sentence : news.sentences) std::fputs(("var_sweep: " + sentence + "\n").c_str(), stderr);
  for (const int64_t run : news.lost) {
    for (auto& [number, group] : groups_) {
      if (group.run != run) continue;
      group.asked = true;
      ask_back(number, group);
    }
  }
  // Not for long: another job may be out of work.
  if (!stopping_ && last_end_ && last_run_s_ < kShortRun_s && seconds_since(*last_end_) < kShortRun_s)
    book_.take_ahead(placement_.next_up(std::ssize(groups_)));
  else
    book_.give_up_ahead();
}

void Coordinator::say_end(int64_t number, const Report& report) {
  const std::string& id = id_of(number);
  switch (report.end) {
    case Report::End::kDone:
      if (several_at_once()) say(fmt::format("{} is done", id));
      looked_ = begin_ - std::chrono::hours(1);  // its branches may wait for it
      return;
    case Report::End::kStopped:
      return;
    case Report::End::kFailed:
      users_fault_ |= report.users_fault;
      std::fputs(fmt::format("var_sweep: run {} failed: {}\n", id, report.reason).c_str(), stderr);
      return;
    case Report::End::kLost:
      tried_.erase(id);  // to be had again if the other job ends
      std::fputs(fmt::format("var_sweep: run {} was taken over by another job, which goes on from its last checkpoint\n", id)
                     .c_str(),
                 stderr);
      return;
  }
}

// All runs save and end; nothing new starts.
void Coordinator::stop(const std::string& why) {
  stopped_ = true;
  if (stopping_) return;
  stopping_ = true;
  if (!why.empty()) say(why);
  ask_all_back();
}

void Coordinator::ask_back(int64_t number, const Group& group) {
  order(group.ranks.front(), {.kind = Order::Kind::kGiveBack, .group = number});
}

void Coordinator::ask_all_back() {
  for (const auto& [number, group] : groups_) ask_back(number, group);
}

void Coordinator::look_around() {
  if (seconds_since(looked_) < kLookEvery_s) return;
  looked_ = Clock::now();
  if (const std::string failure = ledger_.take_job_failure(); !failure.empty())
    std::fputs(fmt::format("var_sweep: {}; other jobs may take this one for dead\n", failure).c_str(), stderr);
  if (options_.time_limit_s && seconds_since(begin_) > *options_.time_limit_s - kMargin_s - 3 * longest_save_s_ && !stopping_)
    stop("the time limit is near: every run saves and stops");
  obey_switches();
  find_runs();
}

void Coordinator::obey_switches() {
  if (take_switch(ledger_.folder() / "stop")) stop("stopped by the file `stop`");
  const bool save_all = take_switch(ledger_.folder() / "save");
  for (auto& [number, group] : groups_) {
    const auto folder = ledger_.run_folder(id_of(group.run));
    if (take_switch(folder / "save") || save_all)
      order(group.ranks.front(), {.kind = Order::Kind::kSave, .group = number});
    if (is_switched_off(id_of(group.run)) && tried_.insert(id_of(group.run)).second) {
      say(fmt::format("{} stops: there is a file `stop` in its folder", id_of(group.run)));
      group.asked = true;
      ask_back(number, group);
    }
  }
}

// What may start now and is not placed yet.
void Coordinator::find_runs() {
  for (size_t i = 0; i < sweep_.runs.size(); ++i) {
    const auto number = static_cast<int64_t>(i);
    const sweep::SweepRun& run = sweep_.runs[i];
    if (placed_.contains(number) || tried_.contains(run.id)) continue;
    const sweep::RunStatus status = ledger_.status(run.id);
    if (status.state == sweep::RunState::kDone) {  // and stays so: it is not looked at again
      tried_.insert(run.id);
      continue;
    }
    if (is_switched_off(run.id) || !sweep::may_start(run, ledger_)) continue;
    const int64_t left = sweep::steps_of(run.config) - status.step;
    placement_.add(number, static_cast<double>(std::max<int64_t>(1, left)), options_.speeds.at(i));
    placed_.insert(number);
  }
}

bool Coordinator::is_switched_off(const std::string& id) const {
  std::error_code error;
  return std::filesystem::exists(ledger_.run_folder(id) / "stop", error);
}

void Coordinator::start(const sweep::Start& start) {
  const std::optional<sweep::Attempt> attempt = book_.take(start.run);
  if (!attempt) {  // another job was faster, or had it meanwhile
    placement_.ended(start.run);
    placed_.erase(start.run);
    return;
  }
  const int64_t number = new_group_number();
  groups_.emplace(number, Group{.run = start.run, .ranks = start.ranks, .ended = {}, .since = Clock::now()});
  const Order train{.kind = Order::Kind::kTrain,
                    .group = number,
                    .run = start.run,
                    .ranks = start.ranks,
                    .attempt = attempt->text()};
  for (const int rank : start.ranks) order(rank, train);
  if (several_at_once()) say(fmt::format("{} trains on {}", id_of(start.run), words(start.ranks)));
}

void Coordinator::act() {
  if (stopping_ || std::ssize(came_) < ranks_) return;
  const sweep::Decision decision = placement_.decide();
  for (const sweep::Start& each : decision.starts) start(each);
  for (const int64_t run : decision.give_back) {
    for (auto& [number, group] : groups_) {
      if (group.run != run) continue;
      group.asked = true;
      ask_back(number, group);
    }
  }
}

bool Coordinator::finished() {
  if (!groups_.empty() || std::ssize(came_) < ranks_) return false;
  if (stopping_) return true;
  if (!placement_.idle()) return false;
  // Jobs that have died without a trace look for a while like those that train.
  for (const sweep::HeldRun& run : sweep::held_elsewhere(sweep_, ledger_, tried_))
    if (run.holder.life == sweep::Life::kUnknown) return false;
  find_runs();  // one of them may just have been found dead
  return placement_.idle();
}

// Done; or a run has failed, now or too often before; or other jobs have what is not done.
ExitCode Coordinator::exit_code() {
  if (stopped_) return ExitCode::kStopped;
  if (users_fault_) return ExitCode::kBadInput;
  ExitCode code = ExitCode::kDone;
  std::set<std::string> held = options_.left_out;
  for (const sweep::HeldRun& run : sweep::held_elsewhere(sweep_, ledger_, options_.left_out)) {
    held.insert(run.id);
    code = ExitCode::kStopped;
    std::fputs(fmt::format("var_sweep: run {} is left to {}; start again to go on when that ends\n", run.id,
                           run.holder.job.words())
                   .c_str(),
               stderr);
  }
  for (const sweep::SweepRun& run : sweep_.runs) {
    if (!is_switched_off(run.id)) continue;
    held.insert(run.id);
    say(fmt::format("{} is left out while there is a file `stop` in its folder", run.id));
  }
  for (const sweep::SweepRun& run : sweep_.runs) {
    const sweep::RunStatus status = ledger_.status(run.id);
    if (held.contains(run.id) || status.state == sweep::RunState::kDone) continue;
    // A branch whose checkpoint another job may still write, or has written by now.
    const bool open = !tried_.contains(run.id) && status.failures < sweep::kMostFailures;
    const std::string waiting = sweep::waiting_words(run, ledger_);
    if (run.branch && open && (waiting.empty() || ledger_.holder(run.branch->trunk))) {
      if (code == ExitCode::kDone) code = ExitCode::kStopped;
      std::fputs(fmt::format("var_sweep: run {} {}\n", run.id, waiting.empty() ? "can begin now" : waiting).c_str(),
                 stderr);
    } else {
      code = ExitCode::kFailure;
    }
  }
  return code;
}

}  // namespace varscale::coordinate
