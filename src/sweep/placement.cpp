#include "sweep/placement.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <ranges>

#include "base/error.hpp"

namespace varscale::sweep {

namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
// A change of widths that ends the whole sooner by less than this share of what is left is not worth its risk.
constexpr double kWorthwhile = 0.02;
// A measured speed that differs by less from the one that the plan knows changes nothing.
constexpr double kNews = 0.03;
constexpr int64_t kMostMoves = 60;
constexpr double kCrowd = 40;  // the exponent of End::norm_s
constexpr int64_t kMostPacked = 64;  // runs; more of them fill every gap

}  // namespace

Placement::Placement(int64_t ranks, const PlacementOptions& options)
    : ranks_(ranks), options_(options), busy_(static_cast<size_t>(ranks), false) {
  VARSCALE_CHECK(ranks >= 1 && options.node_ranks >= 1, "a placement on {} ranks, {} a node", ranks, options.node_ranks);
}

void Placement::add(int64_t number, double steps_left, std::vector<Speed> speeds) {
  std::erase_if(speeds, [&](const Speed& speed) { return speed.ranks > ranks_; });
  VARSCALE_CHECK(!speeds.empty() && steps_left >= 0 && !runs_.contains(number), "run {} with {} widths and {} steps left",
                 number, speeds.size(), steps_left);
  for (const Speed& speed : speeds)
    VARSCALE_CHECK(speed.ranks >= 1 && speed.steps_per_s > 0, "run {}: {} steps/s on {} ranks", number,
                   speed.steps_per_s, speed.ranks);
  runs_[number] = {.steps_left = steps_left, .speeds = std::move(speeds)};
  planned_runs_ = 0;
  news_ = true;
}

void Placement::measured(int64_t number, double steps_left, double steps_per_s) {
  Run& run = runs_.at(number);
  VARSCALE_CHECK(!run.waits(), "run {} is not in training", number);
  run.steps_left = std::max(0.0, steps_left);
  if (!(steps_per_s > 0)) return;
  const auto speed = std::ranges::find(run.speeds, run.width(), &Speed::ranks);
  VARSCALE_CHECK(speed != run.speeds.end(), "run {} on {} ranks", number, run.width());
  run.correction = steps_per_s / speed->steps_per_s;
  news_ |= std::abs(run.correction - run.planned_with) > kNews * run.planned_with;
  corrections_[number] = run.correction;
  std::vector<double> known;
  for (const double each : corrections_ | std::views::values) known.push_back(each);
  const auto middle = known.begin() + static_cast<std::ptrdiff_t>(known.size() / 2);
  std::ranges::nth_element(known, middle);
  usual_correction_ = *middle;
}

void Placement::returned(int64_t number, double steps_left) {
  Run& run = runs_.at(number);
  VARSCALE_CHECK(!run.waits(), "run {} has no ranks to return", number);
  for (const int rank : run.ranks) busy_[static_cast<size_t>(rank)] = false;
  run.ranks.clear();
  run.asked = false;
  run.steps_left = std::max(0.0, steps_left);
  planned_runs_ = 0;
  news_ = true;
}

void Placement::ended(int64_t number) {
  const auto found = runs_.find(number);
  VARSCALE_CHECK(found != runs_.end(), "run {} is not known", number);
  for (const int rank : found->second.ranks) busy_[static_cast<size_t>(rank)] = false;
  runs_.erase(found);
  news_ = true;
}

int64_t Placement::free_ranks() const { return std::ranges::count(busy_, false); }

double Placement::seconds(const Run& run, int64_t ranks) const {
  const auto speed = std::ranges::find(run.speeds, ranks, &Speed::ranks);
  return run.steps_left / (speed->steps_per_s * (run.correction > 0 ? run.correction : usual_correction_));
}

int64_t Placement::fewest(const Run& run, double horizon_s) const {
  for (const Speed& speed : run.speeds) {
    const bool changes = !run.waits() && speed.ranks != run.width();
    if (seconds(run, speed.ranks) + (changes ? options_.change_s : 0) <= horizon_s) return speed.ranks;
  }
  return 0;
}

// Whether all can end within the horizon: every run at some width, and all without more rank-seconds than there are.
// A run in training keeps its ranks, if it ends in time.
bool Placement::is_feasible(double horizon_s) const {
  double area = 0;
  for (const Run& run : runs_ | std::views::values) {
    const bool in_time = !run.waits() && seconds(run, run.width()) <= horizon_s;
    const int64_t ranks = in_time ? run.width() : fewest(run, horizon_s);
    if (ranks == 0) return false;
    area += static_cast<double>(ranks) * seconds(run, ranks);
  }
  return area <= static_cast<double>(ranks_) * horizon_s;
}

double Placement::best_horizon() const {
  // Where each run takes its most economical width there is a horizon that is long enough.
  double low = 0, high = 1;
  for (; high < 1e15 && !is_feasible(high); high *= 2) low = high;
  while (high - low > 1e-3 * high) {
    const double middle = (low + high) / 2;
    (is_feasible(middle) ? high : low) = middle;
  }
  return high;
}

double Placement::estimate_s() const {
  if (runs_.empty()) return 0;
  double longest = 0;
  for (const Run& run : runs_ | std::views::values)
    if (!run.waits()) longest = std::max(longest, seconds(run, run.width()));
  return std::max(longest, best_horizon());
}

// Consecutive free ranks that begin at a multiple of their number or of a node; else consecutive ones; else any.
std::vector<int> Placement::choose_ranks(int64_t count) const {
  std::vector<int> free;
  for (int r = 0; r < static_cast<int>(ranks_); ++r)
    if (!busy_[static_cast<size_t>(r)]) free.push_back(r);
  const auto n = static_cast<size_t>(count);
  const int64_t step = count < options_.node_ranks ? count : options_.node_ranks;
  std::vector<int> consecutive;
  for (size_t i = 0; i + n <= free.size(); ++i) {
    if (free[i + n - 1] - free[i] != static_cast<int>(count) - 1) continue;
    const auto here = free.begin() + static_cast<std::ptrdiff_t>(i);
    const std::vector<int> block(here, here + static_cast<std::ptrdiff_t>(n));
    if (free[i] % step == 0) return block;
    if (consecutive.empty()) consecutive = block;
  }
  if (!consecutive.empty()) return consecutive;
  free.resize(n);
  return free;
}

void Placement::start(int64_t number, int64_t ranks, Decision& decision) {
  Run& run = runs_.at(number);
  run.ranks = choose_ranks(ranks);
  run.asked = false;
  for (const int rank : run.ranks) busy_[static_cast<size_t>(rank)] = true;
  decision.starts.push_back({number, run.ranks});
}

std::vector<Placement::Waiting> Placement::waiting_in_order(const Widths& widths) const {
  std::vector<Waiting> waiting;
  for (const auto& [number, run] : runs_) {
    if (!run.waits()) continue;
    const int64_t ranks = widths.at(number);
    waiting.push_back({number, ranks, seconds(run, ranks)});
  }
  std::ranges::stable_sort(waiting, [](const Waiting& a, const Waiting& b) {
    return a.ranks != b.ranks ? a.ranks > b.ranks : a.seconds > b.seconds;
  });
  return waiting;
}

std::vector<int64_t> Placement::next_up(int64_t count) const {
  std::vector<int64_t> runs;
  const auto full = [&] { return std::ssize(runs) >= count; };
  if (options_.whole) {
    for (auto it = runs_.begin(); it != runs_.end() && !full(); ++it)
      if (it->second.waits()) runs.push_back(it->first);
    return runs;
  }
  const bool planned = planned_runs_ > kMostPacked && std::ssize(runs_) > kMostPacked;
  const auto order = planned ? planned_order_ : waiting_in_order(fewest_by_run(planned_horizon_s_));
  for (auto it = order.begin(); it != order.end() && !full(); ++it)
    if (still_waits(*it)) runs.push_back(it->number);
  return runs;
}

bool Placement::still_waits(const Waiting& each) const {
  const auto found = runs_.find(each.number);
  return found != runs_.end() && found->second.waits();
}

void Placement::start_waiting(const std::vector<Waiting>& order, Decision& decision) {
  // Until the first run that does not fit can start, the others must not take its ranks: they may end before, or
  // take what it will leave over.
  double start_of_blocked = kNever;
  int64_t left_over = ranks_;
  for (const Waiting& each : order) {
    const int64_t free = free_ranks();
    if (free == 0) return;
    if (!still_waits(each)) continue;
    if (each.ranks <= free && (each.seconds <= start_of_blocked || each.ranks <= left_over)) {
      if (each.seconds > start_of_blocked) left_over -= each.ranks;
      start(each.number, each.ranks, decision);
    } else if (start_of_blocked == kNever) {
      std::vector<std::pair<double, int64_t>> ends;
      for (const Run& run : runs_ | std::views::values)
        if (!run.waits()) ends.emplace_back(seconds(run, run.width()), run.width());
      std::ranges::sort(ends);
      int64_t then = free;
      for (const auto& [end, ranks] : ends) {
        then += ranks;
        start_of_blocked = end;
        if (then >= each.ranks) break;
      }
      left_over = then - each.ranks;
    }
  }
}

// The placement in which runs that do not fit the horizon have given their ranks back: those that are late in it
// alone, or all that could have other widths. Empty where that changes nothing.
std::vector<int64_t> Placement::misplaced(double horizon_s, bool late_alone) const {
  std::vector<int64_t> runs;
  for (const auto& [number, run] : runs_) {
    if (run.waits()) continue;
    const bool late = seconds(run, run.width()) > horizon_s;
    const int64_t ranks = fewest(run, horizon_s);
    if (ranks > 0 && ranks != run.width() && (late || !late_alone)) runs.push_back(number);
  }
  return runs;
}

// Other widths for what is in training, where all then ends sooner by more than that costs.
void Placement::rearrange(double now_ends, Decision& decision) {
  double earliest = now_ends - std::max(options_.change_s, kWorthwhile * now_ends);
  const double shortest = best_horizon();
  for (double factor = 1; factor < 1.3; factor *= 1.02) {
    for (const bool late_alone : {true, false}) {
      const std::vector<int64_t> runs = misplaced(shortest * factor, late_alone);
      if (runs.empty()) continue;
      Placement changed(*this);
      for (const int64_t number : runs) {
        // The change costs what the run could have done in that time.
        Run& run = changed.runs_.at(number);
        const double steps = run.steps_left * (1 + options_.change_s / changed.seconds(run, run.width()));
        changed.returned(number, steps);
      }
      const double end = changed.end_with(changed.fewest_by_run(shortest * factor)).last_s;
      if (end >= earliest) continue;
      earliest = end;
      decision.give_back = runs;
    }
  }
  for (const int64_t number : decision.give_back) runs_.at(number).asked = true;
}

Decision Placement::decide_whole() {
  Decision decision;
  if (runs_.empty() || free_ranks() < ranks_) return decision;
  const auto& [number, run] = *runs_.begin();
  start(number, run.speeds.back().ranks, decision);
  return decision;
}

// When all would have ended, by the estimates, if waiting runs started with these widths.
Placement::End Placement::end_with(const Widths& widths) const {
  Placement future(*this);
  double now = 0, crowd = 0;
  std::vector<double> ends;
  for (;;) {
    Decision ignored;
    future.start_waiting(future.waiting_in_order(widths), ignored);
    double next = kNever;
    for (const Run& run : future.runs_ | std::views::values)
      if (!run.waits()) next = std::min(next, future.seconds(run, run.width()));
    if (next == kNever) break;
    now += next;
    for (auto it = future.runs_.begin(); it != future.runs_.end();) {
      Run& run = it->second;
      const int64_t number = (it++)->first;
      if (run.waits()) continue;
      const double left = future.seconds(run, run.width());
      if (left <= next * (1 + 1e-9)) {
        future.ended(number);
        ends.push_back(now);
      } else {
        run.steps_left *= 1 - next / left;
      }
    }
  }
  for (const double end : ends) crowd += std::pow(end / now, kCrowd);
  return {now, now > 0 ? now * std::pow(crowd, 1 / kCrowd) : 0};
}

Placement::Widths Placement::fewest_by_run(double horizon_s) const {
  Widths widths;
  for (const auto& [number, run] : runs_) {
    if (!run.waits()) continue;
    const int64_t ranks = fewest(run, horizon_s);
    widths[number] = ranks > 0 ? ranks : run.speeds.back().ranks;
  }
  return widths;
}

// The horizon of many runs hardly moves as one of them ends, nor does their order.
void Placement::plan_many() {
  const auto count = std::ssize(runs_);
  if (std::abs(count - planned_runs_) <= planned_runs_ / 20) return;
  planned_horizon_s_ = best_horizon();
  planned_order_ = waiting_in_order(fewest_by_run(planned_horizon_s_));
  planned_runs_ = count;
}

// The area alone does not say how well the widths pack: those of some longer horizons are tried too, and then the
// next wider and narrower width of each run, as long as that ends all sooner.
Placement::Plan Placement::plan() {
  const double shortest = planned_horizon_s_ = best_horizon();
  Plan best{fewest_by_run(shortest), {kNever, kNever}};
  if (best.widths.empty()) {
    best.end = end_with(best.widths);
    return best;
  }
  const auto try_widths = [&](const Widths& widths) {
    const End end = end_with(widths);
    if (end.norm_s >= best.end.norm_s * (1 - 1e-6)) return false;
    best = {widths, end};
    return true;
  };
  for (double factor = 1; factor < 1.3; factor *= 1.01) try_widths(fewest_by_run(shortest * factor));
  // From here single runs change by one width, and pairs of which one gives the other room.
  const auto beside = [&](int64_t number, int64_t ranks, int step) -> int64_t {
    const std::vector<Speed>& speeds = runs_.at(number).speeds;
    const auto here = std::ranges::find(speeds, ranks, &Speed::ranks) - speeds.begin() + step;
    return here < 0 || here >= std::ssize(speeds) ? 0 : speeds[static_cast<size_t>(here)].ranks;
  };
  const auto improve = [&] {
    const Widths from = best.widths;
    for (const auto& [one, ranks] : from) {
      for (const int step : {1, -1}) {
        Widths widths = from;
        if ((widths[one] = beside(one, ranks, step)) == 0) continue;
        if (try_widths(widths)) return true;
        if (step < 0) continue;
        for (const auto& [other, other_ranks] : from) {
          Widths pair = widths;
          if (other == one || (pair[other] = beside(other, other_ranks, -1)) == 0) continue;
          if (try_widths(pair)) return true;
        }
      }
    }
    return false;
  };
  for (int64_t moves = 0; moves < kMostMoves && improve(); ++moves) {
  }
  return best;
}

Decision Placement::decide() {
  if (options_.whole) return decide_whole();
  Decision decision;
  // Ranks that are about to come back are placed together with what is free.
  if (!news_ || std::ranges::any_of(runs_ | std::views::values, &Run::asked)) return decision;
  news_ = false;
  for (Run& run : runs_ | std::views::values) run.planned_with = run.correction > 0 ? run.correction : usual_correction_;
  if (std::ssize(runs_) > kMostPacked) {
    plan_many();
    start_waiting(planned_order_, decision);
    return decision;
  }
  const Plan now = plan();
  if (free_ranks() > 0) start_waiting(waiting_in_order(now.widths), decision);
  rearrange(now.end.last_s, decision);
  return decision;
}

}  // namespace varscale::sweep
