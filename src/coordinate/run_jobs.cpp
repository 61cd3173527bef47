#include "coordinate/run_jobs.hpp"

namespace varscale::coordinate {

train::TrainJob RunJobs::job_of(const sweep::SweepRun& run, const std::filesystem::path& folder) const {
  train::TrainJob job;
  job.run = run.config;
  job.facts = run.tokens;
  job.sweep = sweep_.name;
  job.folder = folder;
  return job;
}

const records::TokenFile& RunJobs::tokens_of(const sweep::SweepRun& run) {
  auto& file = files_[run.config.tokens];
  if (!file) file = std::make_unique<records::TokenFile>(run.config.tokens);
  return *file;
}

}  // namespace varscale::coordinate
