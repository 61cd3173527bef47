// The runs of a sweep as jobs of the trainer, and the token files that they read, each opened once.
//
//   RunJobs jobs(sweep);
//   train::train(jobs.job_of(run, folder), jobs.tokens_of(run), world, stop);
//
// Errors   UserError as records::TokenFile.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "records/token_file.hpp"
#include "sweep/spec.hpp"
#include "train/trainer.hpp"

namespace varscale::coordinate {

class RunJobs {
 public:
  explicit RunJobs(const sweep::Sweep& sweep) : sweep_(sweep) {}
  train::TrainJob job_of(const sweep::SweepRun& run, const std::filesystem::path& folder) const;
  const records::TokenFile& tokens_of(const sweep::SweepRun& run);

 private:
  const sweep::Sweep& sweep_;
  std::map<std::string, std::unique_ptr<records::TokenFile>> files_;
};

}  // namespace varscale::coordinate
