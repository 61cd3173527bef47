// Options that several subcommands have.
#pragma once

#include <c10/core/ScalarType.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace varscale::bench {

struct Repeats {
  int64_t count = 10, warmup = 3;
  void add_to(CLI::App& command) {
    command.add_option("--repeats", count, "measured")->check(CLI::PositiveNumber);
    command.add_option("--warmup", warmup, "run before")->check(CLI::NonNegativeNumber);
  }
};

struct Precision {
  std::string name = "fp32";
  void add_to(CLI::App& command) {
    command.add_option("--precision", name, "fp32 or bf16")->check(CLI::IsMember({"fp32", "bf16"}));
  }
  at::ScalarType type() const { return name == "bf16" ? at::kBFloat16 : at::kFloat; }
};

inline void add_device(CLI::App& command, std::string& device) {
  command.add_option("--device", device, "cpu, or cuda: one rank a GPU")->check(CLI::IsMember({"cpu", "cuda"}));
}

}  // namespace varscale::bench
