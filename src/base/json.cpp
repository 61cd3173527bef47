#include "base/json.hpp"

#include <nlohmann/json.hpp>

namespace varscale::base {

using nlohmann::ordered_json;

ordered_json parse_json(std::string_view text) {
  return ordered_json::parse(text.begin(), text.end());
}

std::string json_text(const ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace varscale::base
