#include "sweep/throughput.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/clock.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "scaling/device.hpp"

namespace varscale::sweep {

using base::UserError;

std::vector<std::string> known_devices() {
  std::vector<std::string> names{"cpu"};
  for (const scaling::Device& device : scaling::known_devices()) names.emplace_back(device.name);
  return names;
}

Throughput::Throughput(std::string device) : device_(std::move(device)) {
  if (device_ != "cpu" && !scaling::find_device(device_))
    throw UserError("--device {}: no such device in the table; expected one of {}", device_,
                    fmt::join(known_devices(), ", "));
}

void Throughput::add_measured(std::string source, std::vector<MeasuredRate> rates) {
  std::ranges::sort(rates, {}, &MeasuredRate::depth);
  sources_.push_back({std::move(source), std::move(rates)});
}

Rate Throughput::rate(int64_t depth, const std::string& precision) const {
  for (const Source& source : sources_) {
    const MeasuredRate *below = nullptr, *above = nullptr;
    for (const MeasuredRate& each : source.rates) {
      if (each.precision != precision || !(each.flops_per_s > 0)) continue;
      if (each.depth <= depth) below = &each;
      if (each.depth >= depth && !above) above = &each;
    }
    if (!below && !above) continue;
    if (!below || !above || below->depth == above->depth)
      return {(below ? below : above)->flops_per_s, source.name};
    const double share =
        std::log(static_cast<double>(depth) / static_cast<double>(below->depth)) /
        std::log(static_cast<double>(above->depth) / static_cast<double>(below->depth));
    return {below->flops_per_s + share * (above->flops_per_s - below->flops_per_s), source.name};
  }
  if (const scaling::Device* device = scaling::find_device(device_)) {
    return {kAssumedMfu * device->peak(precision),
            fmt::format("{} {} peak x {} assumed", device_, precision, kAssumedMfu)};
  }
  return {kCpuFlopsPerCore,
          fmt::format("cpu at {:g} GFLOP/s a rank assumed", kCpuFlopsPerCore / 1e9)};
}

double measured_flops_per_s(const records::RunTables& tables) {
  if (tables.steps.empty()) return 0;
  std::vector<double> step_s;
  for (const records::StepRow& row : tables.steps) step_s.push_back(row.step_s);
  const auto middle = step_s.begin() + static_cast<std::ptrdiff_t>(step_s.size() / 2);
  std::nth_element(step_s.begin(), middle, step_s.end());
  const records::StepRow& last = tables.steps.back();
  if (!(*middle > 0) || last.step < 1) return 0;
  return last.flops / static_cast<double>(last.step) / *middle;
}

std::filesystem::path calibration_path(std::string_view device) {
  return std::filesystem::path("results") / fmt::format("calibration-{}.json", device);
}

std::vector<MeasuredRate> read_calibration(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return {};
  try {
    std::vector<MeasuredRate> rates;
    const auto json = base::parse_json(base::read_file(path));
    for (const auto& point : json.at("points"))
      rates.push_back({point.at("depth").get<int64_t>(), point.at("precision").get<std::string>(),
                       point.at("flops_per_s_per_rank").get<double>()});
    return rates;
  } catch (const nlohmann::ordered_json::exception& problem) {
    throw UserError(
        "{}: not a calibration written by var_sweep --calibrate ({}); remove it or "
        "calibrate again",
        path.string(), problem.what());
  }
}

void write_calibration(const std::filesystem::path& path, std::string_view device,
                       const std::vector<MeasuredRate>& rates) {
  nlohmann::ordered_json json;
  json["device"] = device;
  json["created"] = base::utc_now();
  json["points"] = nlohmann::ordered_json::array();
  for (const MeasuredRate& rate : rates) {
    nlohmann::ordered_json point;
    point["depth"] = rate.depth;
    point["precision"] = rate.precision;
    point["flops_per_s_per_rank"] = rate.flops_per_s;
    json["points"].push_back(point);
  }
  if (path.has_parent_path()) base::require_writable_folder(path.parent_path());
  base::write_file_atomic(path, base::json_text(json, 2) + "\n");
}

}  // namespace varscale::sweep
