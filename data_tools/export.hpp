// `var_data export`: the weights of a run as one file.
#pragma once

#include <cstdint>
#include <filesystem>

namespace varscale::data {

struct ExportOptions {
  std::filesystem::path run;  // <sweep>/runs/<id>
  std::filesystem::path out;  // a .safetensors file, complete or absent
  int64_t step = 0;           // of a checkpoint; 0: the newest
};

// UserError: no such checkpoint (with those that are there), or a damaged one.
void export_run(const ExportOptions& options);

}  // namespace varscale::data
