#include "sweep/simulation.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <queue>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::sweep {

namespace {

constexpr double kForever = std::numeric_limits<double>::infinity();

double speed_at(const SimulatedRun& run, int64_t ranks) {
  return std::ranges::find(run.speeds, ranks, &Speed::ranks)->steps_per_s;
}

// Runs in training and the clock.
class Clockwork {
 public:
  Clockwork(const Simulation& simulation, const std::vector<SimulatedRun>& truth)
      : simulation_(simulation),
        truth_(truth),
        placement_(simulation.ranks, {.change_s = simulation.change_s, .node_ranks = simulation.node_ranks}) {}

  Makespans run() {
    for (size_t i = 0; i < truth_.size(); ++i)
      placement_.add(static_cast<int64_t>(i), truth_[i].steps, simulation_.runs[i].speeds);
    double next_report = simulation_.report_s;
    act();
    while (!placement_.idle()) {
      double next = next_report;
      for (const auto& [number, group] : groups_) next = std::min(next, group.leaves_s());
      now_ = next;
      for (auto it = groups_.begin(); it != groups_.end();) {
        if (it->second.leaves_s() > now_) {
          ++it;
          continue;
        }
        const auto [number, group] = *it;
        it = groups_.erase(it);
        if (group.returns_s < group.ends_s)
          placement_.returned(number, group.steps_left(group.returns_s));
        else
          placement_.ended(number);
      }
      if (now_ >= next_report) {
        next_report += simulation_.report_s;
        for (const auto& [number, group] : groups_)
          if (now_ > group.trains_s) placement_.measured(number, group.steps_left(now_), group.steps_per_s);
      }
      act();
      VARSCALE_CHECK(placement_.idle() || !groups_.empty(), "nothing is in training and {} ranks are free",
                     placement_.free_ranks());
    }
    return {.placed = now_, .changes = changes_};
  }

 private:
  struct Group {
    double trains_s, steps, steps_per_s, ends_s;
    double returns_s = kForever;
    double leaves_s() const { return std::min(ends_s, returns_s); }
    double steps_left(double now) const { return std::max(0.0, steps - std::max(0.0, now - trains_s) * steps_per_s); }
  };

  void act() {
    const double half = simulation_.change_s / 2;
    const Decision decision = placement_.decide();
    for (const Start& start : decision.starts) {
      const double speed = speed_at(truth_[static_cast<size_t>(start.run)], static_cast<int64_t>(start.ranks.size()));
      const double steps = left_.contains(start.run) ? left_[start.run] : truth_[static_cast<size_t>(start.run)].steps;
      groups_[start.run] = {now_ + half, steps, speed, now_ + half + steps / speed};
    }
    for (const int64_t number : decision.give_back) {
      Group& group = groups_.at(number);
      ++changes_;
      // It trains on until it saves, and saves at once.
      left_[number] = group.steps_left(now_);
      group.steps = left_[number];
      group.trains_s = now_ + half;
      group.returns_s = now_ + half;
      if (group.ends_s <= group.returns_s) group.returns_s = kForever;
    }
  }

  const Simulation& simulation_;
  const std::vector<SimulatedRun>& truth_;
  Placement placement_;
  std::map<int64_t, Group> groups_;
  std::map<int64_t, double> left_;
  double now_ = 0;
  int64_t changes_ = 0;
};

double one_by_one(const std::vector<SimulatedRun>& runs) {
  double sum = 0;
  for (const SimulatedRun& run : runs) sum += run.steps / std::ranges::max(run.speeds, {}, &Speed::steps_per_s).steps_per_s;
  return sum;
}

// Equal groups of `width` ranks, each taking the longest run that waits.
double fixed_groups(const std::vector<SimulatedRun>& runs, int64_t ranks, int64_t width) {
  std::vector<double> seconds;
  for (const SimulatedRun& run : runs) {
    double speed = 0;
    for (const Speed& each : run.speeds)
      if (each.ranks <= width) speed = std::max(speed, each.steps_per_s);
    if (speed == 0) return kForever;
    seconds.push_back(run.steps / speed);
  }
  std::ranges::sort(seconds, std::greater());
  std::priority_queue<double, std::vector<double>, std::greater<>> groups;
  for (int64_t g = 0; g < ranks / width; ++g) groups.push(0);
  double end = 0;
  for (const double each : seconds) {
    const double ends = groups.top() + each;
    groups.pop();
    groups.push(ends);
    end = std::max(end, ends);
  }
  return end;
}

}  // namespace

double lower_bound(const std::vector<SimulatedRun>& runs, int64_t ranks) {
  double area = 0, longest = 0;
  for (const SimulatedRun& run : runs) {
    double cheapest = kForever, fastest = kForever;
    for (const Speed& speed : run.speeds) {
      const double seconds = run.steps / speed.steps_per_s;
      cheapest = std::min(cheapest, seconds * static_cast<double>(speed.ranks));
      fastest = std::min(fastest, seconds);
    }
    area += cheapest;
    longest = std::max(longest, fastest);
  }
  return std::max(area / static_cast<double>(ranks), longest);
}

Makespans simulate(const Simulation& simulation, uint64_t draw) {
  std::vector<SimulatedRun> truth = simulation.runs;
  const base::RandomStream random(simulation.seed, "hidden speed", draw);
  for (size_t i = 0; i < truth.size(); ++i) {
    std::erase_if(truth[i].speeds, [&](const Speed& speed) { return speed.ranks > simulation.ranks; });
    const double factor = 1 + simulation.error * (2 * random.uniform_double(i) - 1);
    for (Speed& speed : truth[i].speeds) speed.steps_per_s *= factor;
  }
  Makespans result = Clockwork(simulation, truth).run();
  result.one_by_one = one_by_one(truth);
  result.fixed_groups = kForever;
  for (int64_t width = 1; width <= simulation.ranks; ++width)
    if (simulation.ranks % width == 0)
      result.fixed_groups = std::min(result.fixed_groups, fixed_groups(truth, simulation.ranks, width));
  result.bound = lower_bound(truth, simulation.ranks);
  return result;
}

Distribution distribution_of(std::vector<double> values) {
  VARSCALE_CHECK(!values.empty(), "no values");
  std::ranges::sort(values);
  const auto at = [&](double share) {
    return values[static_cast<size_t>(std::ceil(share * static_cast<double>(values.size()))) - 1];
  };
  return {at(0.5), at(0.95)};
}

}  // namespace varscale::sweep
