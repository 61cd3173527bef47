// Files that the public code's torch has saved.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace varscale::archives {

inline std::filesystem::path fixture(const std::string& name) {
  return std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / "pth" / name;
}

}  // namespace varscale::archives
