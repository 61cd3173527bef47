// `var_data import`: weights of the public code as files of ours.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace varscale::data {

struct ImportOptions {
  std::filesystem::path file;   // .pth or .safetensors
  std::filesystem::path out;    // a .safetensors file, complete or absent
  std::string part;             // of a trainer's checkpoint: "var" or "vae"; empty: the one that is there
  std::vector<int64_t> scales;  // empty: as the file says
  int64_t heads = 0;            // 0: as the file says
};

// A VAR becomes a file of weights (archives/weights_file.hpp), a tokenizer one of var_tokenizer's. UserError: what
// archives/ refuses, and sides of a tokenizer's maps that the file does not tell.
void import_weights(const ImportOptions& options);

}  // namespace varscale::data
