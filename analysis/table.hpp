// What the files of a fit share: constants and noise in JSON, rows of CSV with ten significant digits.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/file.hpp"
#include "fit/bootstrap.hpp"
#include "six_digits.hpp"

namespace varscale::analysis {

nlohmann::ordered_json constant(double value, const std::optional<fit::Interval>& interval);  // {value, low, high}
nlohmann::ordered_json noise_json(const std::optional<fit::Noise>& noise);

// Comma-separated rows; texts here never hold a comma but in a formula or a rule, which are quoted.
class Csv {
 public:
  explicit Csv(std::string header) : text_(std::move(header) + "\n") {}
  template <class... Cells>
  void row(const Cells&... cells) {
    std::string line;
    ((line += (line.empty() ? "" : ",") + cell(cells)), ...);
    text_ += line + "\n";
  }
  void save(const std::filesystem::path& path) const { base::write_file_atomic(path, text_); }

 private:
  static std::string cell(double value) { return fmt::format("{:.10g}", value); }
  static std::string cell(int64_t value) { return std::to_string(value); }
  static std::string cell(const std::string& value) {
    return value.find(',') == std::string::npos ? value : '"' + value + '"';
  }
  static std::string cell(const char* value) { return value; }
  static std::string cell(const std::optional<double>& value) {
    return value ? cell(*value) : std::string();
  }
  std::string text_;
};

}  // namespace varscale::analysis
