// What `var_data inspect` shows of a token file.
#pragma once

#include <filesystem>

namespace varscale::data {

struct InspectOptions {
  std::filesystem::path file;
  bool json = false;    // one JSON object on stdout instead of a page of text
  bool verify = false;  // also check every token, the checksums and the stored fingerprint
  std::filesystem::path picture = {};    // a PNG of some rows, decoded: above those of training, below validation
  std::filesystem::path tokenizer = {};  // that decodes them; empty: the file's own
};

// UserError: a damaged file, or a tokenizer with another fingerprint.
void inspect(const InspectOptions& options);

}  // namespace varscale::data
