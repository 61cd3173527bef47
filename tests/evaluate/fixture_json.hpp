// frechet.json: reference values of the public evaluators, and its lists as tensors.
#pragma once

#include <ATen/ATen.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/file.hpp"
#include "base/json.hpp"

namespace varscale::evaluate {

inline nlohmann::ordered_json reference_values(const char* part) {
  const std::string path = std::string(std::getenv("VARSCALE_FIXTURES")) + "/frechet.json";
  return base::parse_json(base::read_file(path)).at(part);
}

// A list of rows as float64 [N,D].
inline at::Tensor rows_of(const nlohmann::ordered_json& json) {
  std::vector<at::Tensor> rows;
  for (const auto& row : json) rows.push_back(at::tensor(row.get<std::vector<double>>(), at::kDouble));
  return at::stack(rows);
}

inline at::Tensor vector_of(const nlohmann::ordered_json& json) {
  return at::tensor(json.get<std::vector<double>>(), at::kDouble);
}

}  // namespace varscale::evaluate
