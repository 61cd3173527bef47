// The runs of a sweep as jobs of the trainer, and what they read: token files and training images, each opened once.
//
//   RunJobs jobs(sweep);
//   train::train(jobs.job_of(run, folder), jobs.tokens_of(run), world, stop);
//
// Errors   UserError as records::TokenFile, and when a job opens its images as data::TrainImages.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "data/online_batches.hpp"
#include "records/token_file.hpp"
#include "sweep/ledger.hpp"
#include "sweep/spec.hpp"
#include "train/trainer.hpp"

namespace varscale::coordinate {

class RunJobs {
 public:
  explicit RunJobs(const sweep::Sweep& sweep) : sweep_(sweep) {}
  // The job may use this until it has ended.
  train::TrainJob job_of(const sweep::SweepRun& run, const std::filesystem::path& folder);
  const records::TokenFile& tokens_of(const sweep::SweepRun& run) { return tokens_of(run.config); }

 private:
  using ImagesKey = std::tuple<std::string, std::string, std::string, std::string>;
  const records::TokenFile& tokens_of(const sweep::RunConfig& config);
  std::shared_ptr<const data::TrainImages> images_of(const sweep::RunConfig& config);

  const sweep::Sweep& sweep_;
  std::map<std::string, std::unique_ptr<records::TokenFile>> files_;
  std::map<ImagesKey, std::shared_ptr<const data::TrainImages>> images_;
};

// Whether a run of the sweep encodes images while it trains, for which a data::VipsRuntime has to be there.
bool any_online(const sweep::Sweep& sweep);

// Opens what online runs that are not done read, so that a mistake is told before anything is written.
void check_images(const sweep::Sweep& sweep, const sweep::Ledger& ledger);

}  // namespace varscale::coordinate
