// run.h5 that a kill or a bad disk has damaged: it is read or refused, and a run goes on whatever is there.
#include <fmt/format.h>

#include <cstring>

#include "base/error.hpp"
#include "base/file.hpp"
#include "records/run_file.hpp"
#include "tests/fuzz/driver.hpp"

#if defined(__SANITIZE_ADDRESS__)
// Of a damaged file HDF5 loses memory, and the program ends soon.
extern "C" const char* __lsan_default_suppressions() { return "leak:libhdf5"; }
extern "C" const char* __lsan_default_options() { return "print_suppressions=0"; }
#endif

namespace varscale {
namespace {

using records::RunTables;

RunTables some_rows(int64_t steps) {
  RunTables tables;
  tables.facts = {{"depth", int64_t{4}}, {"lr", 6e-3}, {"role", std::string("main")}};
  for (int64_t step = 1; step <= steps; ++step) {
    records::StepRow row{};
    row.step = step;
    row.loss_mean = 5.0 - 0.1 * static_cast<double>(step);
    tables.steps.push_back(row);
    records::EvalRow eval{};
    eval.step = step;
    tables.eval.push_back(eval);
    tables.scales.push_back({step, 0, 4.5, 0.5});
  }
  return tables;
}

std::string file_with(const fuzz::Scratch& scratch, int64_t steps) {
  const std::string path = scratch.path() + "/seed.h5";
  records::write_run(path, some_rows(steps));
  return base::read_file(path);
}

// A run that goes on from a checkpoint of step 2, over what lies there.
void recover(const std::string& path) {
  RunTables expected = some_rows(2);
  records::RunFile::recreate(path, expected).append(some_rows(3).steps.back());
  expected.steps.push_back(some_rows(3).steps.back());
  const RunTables found = records::read_run(path);
  VARSCALE_CHECK(found.facts == expected.facts && found.steps.size() == 3 && found.eval.size() == 2 &&
                     std::memcmp(found.steps.data(), expected.steps.data(), 3 * sizeof(records::StepRow)) == 0,
                 "the file was not rebuilt");
}

std::string read(const fuzz::Scratch& scratch, const std::string& input) {
  static uint64_t reads = 0;
  const std::string path = scratch.write("run.h5", input);
  const bool recovers = reads++ % 16 == 0;  // it takes as long as reading sixteen times
  std::string outcome;
  try {
    RunTables tables = records::read_run(path);
    outcome = fmt::format("{} {} {}", tables.steps.empty() ? "empty" : "steps", tables.eval.empty() ? "empty" : "eval",
                          tables.scales.empty() ? "empty" : "scales");
    if (recovers) {  // whatever was read can be written and read again
      const size_t steps = tables.steps.size();
      records::RunFile::recreate(scratch.path() + "/copy.h5", std::move(tables));
      VARSCALE_CHECK(records::read_run(scratch.path() + "/copy.h5").steps.size() <= steps, "rows appeared");
    }
  } catch (const base::UserError&) {
    if (recovers) recover(path);
    throw;
  }
  if (recovers) recover(path);
  return outcome;
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  const varscale::fuzz::Scratch scratch;
  return varscale::fuzz::run(
      argc, argv,
      {.name = "run_file",
       .dictionary = {"TREE", "HEAP", "SNOD", "OHDR", "GCOL", "\x89HDF\r\n\x1a\n", "steps", "eval", "scales", "step",
                      "schema_version", "loss_mean", std::string("\0\0\0\0\0\0\0\0", 8),
                      std::string("\xff\xff\xff\xff\xff\xff\xff\xff", 8)},
       .seeds = {varscale::file_with(scratch, 0), varscale::file_with(scratch, 3)},
       .read = [&](const std::string& input) { return varscale::read(scratch, input); }});
}
