#include "table.hpp"

namespace varscale::analysis {

using nlohmann::ordered_json;

ordered_json constant(double value, const std::optional<fit::Interval>& interval) {
  ordered_json json = {{"value", six(value)}};
  if (interval) json["low"] = six(interval->low), json["high"] = six(interval->high);
  return json;
}

ordered_json noise_json(const std::optional<fit::Noise>& noise) {
  if (!noise) return nullptr;
  return {{"sd", six(noise->sd)},
          {"degrees_of_freedom", noise->degrees_of_freedom},
          {"source", noise->source}};
}

}  // namespace varscale::analysis
