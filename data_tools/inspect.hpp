// What `var_data inspect` shows of a token file.
#pragma once

#include <filesystem>

namespace varscale::data {

struct InspectOptions {
  std::filesystem::path file;
  bool json = false;    // one JSON object on stdout instead of a page of text
  bool verify = false;  // also check every token and the stored fingerprint
};

void inspect(const InspectOptions& options);

}  // namespace varscale::data
