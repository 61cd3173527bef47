// Starts var_fit on a folder of its own and reads what it leaves.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "base/json.hpp"
#include "tests/fit/synthetic_sweep.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::fit {

inline std::string text_of(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

class VarFit : public testing::Test {
 protected:
  // Exit status; what it printed is in out() and err().
  int run(const std::string& arguments, const std::string& environment = "") {
    const char* bin = std::getenv("VARSCALE_BIN");
    EXPECT_NE(bin, nullptr) << "run me through ctest";
    const std::string command = environment + " " + (bin ? bin : ".") + "/var_fit " + arguments +
                                " >" + (folder_ / "out").string() + " 2>" +
                                (folder_ / "err").string();
    const int status = std::system(command.c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  int fit(const std::string& more = "--no-figures --resamples 100") {
    return run(folder_.string() + " " + more);
  }
  std::string out() const { return text_of(folder_ / "out"); }
  std::string err() const { return text_of(folder_ / "err"); }
  nlohmann::ordered_json json() const {
    return base::parse_json(text_of(folder_ / "fit" / "fit.json"));
  }

  base::TemporaryFolder scratch_;
  std::filesystem::path folder_ = scratch_.path();
};

inline nlohmann::ordered_json headline(const nlohmann::ordered_json& json) {
  for (const auto& law : json.at("fits"))
    if (law.at("id") == "L(N) total loss_mean E free") return law;
  return {};
}

}  // namespace varscale::fit
