// JSON text: the parser and the serializer are compiled here once instead of in every file that uses them.
//
//   const nlohmann::ordered_json json = parse_json(read_file(path));
//   write_file_atomic(path, json_text(json, 2) + "\n");
//
// Errors   parse_json throws nlohmann::ordered_json::exception; callers add the file's name and advice.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace varscale::base {

nlohmann::ordered_json parse_json(std::string_view text);

// indent -1: one line. Bytes that are not UTF-8 become U+FFFD.
std::string json_text(const nlohmann::ordered_json& json, int indent = -1);

}  // namespace varscale::base
