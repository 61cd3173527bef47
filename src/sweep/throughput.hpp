// How fast one rank trains, for the hours of a plan, and where that figure comes from.
//
//   Throughput throughput("h200");
//   throughput.add_measured("finished runs", measured);        // asked first
//   throughput.add_measured("calibration", read_calibration(calibration_path("h200")));
//   Rate rate = throughput.rate(16, "bf16");   // rate.flops_per_s, rate.source
//
// A source answers for the precision that it measured; between its depths the rate is interpolated
// over log depth, beyond them it is that of the nearest. Without a measurement the device table
// answers: peak x an assumed share of it. Ranks are taken to add up. Errors   UserError: a device
// that is not in the table (with the known ones), a calibration file that
//          is not one.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "records/run_file.hpp"

namespace varscale::sweep {

inline constexpr double kAssumedMfu = 0.35;       // model FLOP/s over the device's peak
inline constexpr double kCpuFlopsPerCore = 40e9;  // sustained; a rank is taken to have one core

struct Rate {
  double flops_per_s = 0;  // one rank, by the exact FLOP formula
  std::string source;      // "calibration", "h200 peak x 0.35"
};

// The median step of one run on one rank.
struct MeasuredRate {
  int64_t depth = 0;
  std::string precision;   // "fp32" or "bf16"
  double flops_per_s = 0;  // one rank
};

class Throughput {
 public:
  explicit Throughput(std::string device);
  void add_measured(std::string source, std::vector<MeasuredRate> rates);
  Rate rate(int64_t depth, const std::string& precision) const;
  const std::string& device() const noexcept { return device_; }

 private:
  struct Source {
    std::string name;
    std::vector<MeasuredRate> rates;
  };
  std::string device_;
  std::vector<Source> sources_;
};

std::vector<std::string> known_devices();

// FLOPs of a step over the median step time: the first steps and the saves do not count. 0: no
// rows.
double measured_flops_per_s(const records::RunTables& tables);

std::filesystem::path calibration_path(
    std::string_view device);  // results/calibration-<device>.json
std::vector<MeasuredRate> read_calibration(const std::filesystem::path& path);  // absent: empty
void write_calibration(const std::filesystem::path& path, std::string_view device,
                       const std::vector<MeasuredRate>& rates);

}  // namespace varscale::sweep
