// The project's Python, for what its libraries write and read.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/file.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::test {

// Runs a Python program with the file's path as argument; its output, or a failure that shows it.
inline std::string run_python(const std::string& program, const std::filesystem::path& argument) {
  const char* source = std::getenv("VARSCALE_SOURCE");
  if (source == nullptr) {
    ADD_FAILURE() << "VARSCALE_SOURCE is not set: run through ctest";
    return {};
  }
  const std::string python = std::string(source) + "/.deps/venv/bin/python";
  if (!std::filesystem::exists(python)) {
    ADD_FAILURE() << python << " is missing: run launch/setup.sh";
    return {};
  }
  const base::TemporaryFolder folder;
  std::ofstream(folder / "program.py") << program;
  const std::string output = (folder / "output").string();
  const std::string command = python + " -W error " + (folder / "program.py").string() + " " +
                              argument.string() + " > " + output + " 2>&1";
  const int status = std::system(command.c_str());
  std::string text = base::read_file(output);
  EXPECT_EQ(status, 0) << text;
  return text;
}

}  // namespace varscale::test
