// Writes the run.h5 and plan.json of a synthetic sweep, to try var_fit and its page on:
//
//   write_sweep paper FOLDER        twelve depths that follow the published laws
//   write_sweep quickstart FOLDER   five small depths and three more budgets
//   write_sweep grid FOLDER         eight depths at four budgets each, which have a compute-optimal frontier
//   write_sweep isoflop FOLDER      three families of equal compute, for var_fit --across-data
#include <cstdio>
#include <string>

#include "tests/fit/paper_sweep.hpp"

int main(int argc, char** argv) {
  const std::string kind = argc == 3 ? argv[1] : "";
  if (kind == "paper")
    varscale::fit::paper_sweep().write(argv[2]);
  else if (kind == "quickstart")
    varscale::fit::SyntheticSweep::quickstart().write(argv[2]);
  else if (kind == "grid")
    varscale::fit::SyntheticSweep::grid(8, {20000, 80000, 320000, 1280000}).write(argv[2]);
  else if (kind == "isoflop")
    varscale::fit::SyntheticSweep::isoflop({{2e13, 1, 4}, {2e14, 2, 6}, {2e15, 3, 8}}).write(argv[2]);
  else {
    std::fputs("usage: write_sweep paper|quickstart|grid|isoflop FOLDER\n", stderr);
    return 2;
  }
  return 0;
}
