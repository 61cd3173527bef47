// `var_data export`: the weights of a run, of a file of weights or of a tokenizer as one file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace varscale::data {

struct ExportOptions {
  std::filesystem::path from;   // <sweep>/runs/<id>, a file of weights, or one of var_tokenizer
  std::filesystem::path out;    // complete or absent
  std::string format;           // "safetensors" or "pth"; empty: by the name of `out`
  int64_t step = 0;             // of a run's checkpoint; 0: the newest
  std::vector<int64_t> scales;  // of a run that does not say its maps' sides
};

// safetensors: a file of weights (archives/weights_file.hpp). pth: the public code's state dict, in its order and with
// its buffers, for strict loading. UserError: no such checkpoint (with those that are there), or a damaged one; a
// tokenizer as safetensors, which it is.
void export_weights(const ExportOptions& options);

}  // namespace varscale::data
