#include "sweep/health.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

namespace varscale::sweep {

namespace {

constexpr double kDeviations = 5, kNormal = 1.4826;  // a normal deviation over the median absolute one
constexpr double kLeastRise = 0.1;                   // nat

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

bool is_spike(double loss, const std::vector<double>& before) {
  const double center = median(before);
  // The deviations cost as much again; most losses do not need them.
  if (!(loss > center + kLeastRise)) return false;
  std::vector<double> deviations;
  for (const double each : before) deviations.push_back(std::abs(each - center));
  return loss > center + kDeviations * kNormal * median(deviations);
}

void count_spikes(const std::vector<records::StepRow>& steps, Health& health) {
  std::vector<double> window;  // in no order: the oldest is overwritten
  size_t oldest = 0;
  for (const records::StepRow& row : steps) {
    if (!std::isfinite(row.loss_mean)) continue;
    if (window.size() < static_cast<size_t>(kHealthWindow)) {
      window.push_back(row.loss_mean);
      continue;
    }
    if (is_spike(row.loss_mean, window)) {
      ++health.spikes;
      health.last_spike = row.step;
    }
    window[oldest] = row.loss_mean;
    oldest = (oldest + 1) % window.size();
  }
}

std::string host_of(const records::Facts& facts, int64_t rank) {
  const auto found = facts.find("hosts");
  const auto* names = found == facts.end() ? nullptr : std::get_if<std::string>(&found->second);
  if (names == nullptr) return {};
  std::istringstream list(*names);
  std::string name;
  for (int64_t i = 0; std::getline(list, name, ','); ++i)
    if (i == rank) return name;
  return {};
}

void find_straggler(const records::RunTables& tables, Health& health) {
  const auto& steps = tables.steps;
  std::vector<double> ratios;
  std::map<int64_t, int64_t> times_slowest;
  for (auto row = steps.rbegin(); row != steps.rend() && ratios.size() < static_cast<size_t>(kHealthWindow); ++row) {
    if (row->segment != steps.back().segment) break;  // other ranks, maybe
    if (!(row->busy_min_s > 0)) continue;
    ratios.push_back(row->busy_max_s / row->busy_min_s);
    ++times_slowest[row->slowest_rank];
  }
  if (ratios.empty()) return;
  health.imbalance = median(ratios);
  health.slowest_rank = std::ranges::max_element(times_slowest, {}, [](const auto& each) { return each.second; })->first;
  health.slowest_host = host_of(tables.facts, health.slowest_rank);
}

}  // namespace

Health health_of(const records::RunTables& tables) {
  Health health;
  for (const records::StepRow& row : tables.steps) health.skipped += row.skipped != 0;
  count_spikes(tables.steps, health);
  find_straggler(tables, health);
  return health;
}

std::string Health::words() const {
  std::vector<std::string> words;
  if (skipped > 0) words.push_back(fmt::format("{} skipped", skipped));
  if (spikes > 0)
    words.push_back(spikes == 1 ? fmt::format("1 spike (step {})", last_spike)
                                : fmt::format("{} spikes (last at step {})", spikes, last_spike));
  if (straggles())
    words.push_back(fmt::format("rank {}{} works {:.2f} x as long as the fastest", slowest_rank,
                                slowest_host.empty() ? "" : " on " + slowest_host, imbalance));
  return words.empty() ? "good" : fmt::format("{}", fmt::join(words, ", "));
}

nlohmann::ordered_json Health::json() const {
  nlohmann::ordered_json json;
  json["skipped"] = skipped;
  json["spikes"] = spikes;
  json["last_spike"] = last_spike == 0 ? nlohmann::ordered_json() : nlohmann::ordered_json(last_spike);
  json["imbalance"] = imbalance;
  json["slowest_rank"] = slowest_rank;
  json["slowest_host"] = slowest_host;
  return json;
}

}  // namespace varscale::sweep
