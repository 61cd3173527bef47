// Writes the run.h5 and plan.json of a synthetic sweep, to try var_fit and its page on:
//
//   write_sweep paper FOLDER        twelve depths that follow the published laws
//   write_sweep quickstart FOLDER   five small depths and three more budgets
#include <cstdio>
#include <string>

#include "tests/fit/paper_sweep.hpp"

int main(int argc, char** argv) {
  const std::string kind = argc == 3 ? argv[1] : "";
  if (kind == "paper")
    varscale::fit::paper_sweep().write(argv[2]);
  else if (kind == "quickstart")
    varscale::fit::SyntheticSweep::quickstart().write(argv[2]);
  else {
    std::fputs("usage: write_sweep paper|quickstart FOLDER\n", stderr);
    return 2;
  }
  return 0;
}
