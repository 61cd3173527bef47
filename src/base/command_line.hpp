// What all programs do with their command line.
//
//   CLI::App app(kAbout, "var_data");
//   ...
//   if (!parse_command_line(app, argc, argv)) return ExitCode::kDone;     // --help was printed
//
// Errors   UserError: an unknown option, a missing or mistyped value; it points to --help.
#pragma once

#include <CLI/CLI.hpp>

#include "base/error.hpp"

namespace varscale::base {

inline bool parse_command_line(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {
      app.exit(error);  // prints the help
      return false;
    }
    throw UserError("{} ({} --help shows the options)", error.what(), app.get_name());
  }
  return true;
}

}  // namespace varscale::base
