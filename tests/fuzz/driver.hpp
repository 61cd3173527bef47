// A fuzzer by mutation, for readers of files.
//
//   int main(int argc, char** argv) {
//     return fuzz::run(argc, argv, {.name = "manifest", .dictionary = {"\"rows\"", ...}, .read = read});
//   }
//   manifest_fuzz --seconds 60 --seed 3       mutates the files of tests/fuzz/corpus/manifest
//   manifest_fuzz FILE...                     reads these as they are, as every run does those named finding-*
//
// Outcome  `read` returns or throws base::UserError. Any other exception, a signal, a sanitizer's report, an
//          invariant of the fuzzer's own (VARSCALE_CHECK), 60 s or 3 GB for one input is a finding: the
//          input is written to finding-<name>-<digest> and the program ends with 1, after at most 10 of them.
// Order    Execution i is a function of the corpus, the seed, i (base/random) and the executions before it: an
//          input with a sentence or result that was not met before joins the inputs to mutate, unless it is slow.
// Process  A child reads and mutates; the parent keeps its last input in shared memory and begins another
//          child after a finding.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace varscale::fuzz {

struct Target {
  std::string name;
  std::vector<std::string> dictionary;  // texts that the reader looks for
  std::vector<std::string> seeds;       // inputs besides those of the corpus
  // Reads one input; what it returns is a word for how it ended well.
  std::function<std::string(const std::string& input)> read;
};

int run(int argc, char** argv, const Target& target);

// A folder in memory where the machine has one, removed at the end.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  const std::string& path() const { return path_; }
  // Writes the input as this file and returns the path.
  std::string write(const std::string& name, const std::string& bytes) const;

 private:
  std::string path_;
  int owner_;  // the process that made it
};

}  // namespace varscale::fuzz
