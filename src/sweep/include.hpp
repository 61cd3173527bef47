// A sweep file with the files that its `include:` names, one path or a list, each found from the folder of the file
// that names it. Variables of the environment are filled in.
//
// Errors   UserError with file:line: an included file that cannot be read, files that include one another, YAML that
//          is none, a variable that is not set.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/config.hpp"

namespace varscale::sweep {

struct Layers {
  std::vector<base::Document> documents;  // included files before the file that includes them
  std::string text;                       // of the file, then of those that it includes as comments
};

// The overrides change the file itself.
Layers load_layers(const std::filesystem::path& path, const std::vector<std::string>& overrides);

}  // namespace varscale::sweep
