#include "coordinate/run_jobs.hpp"

#include <algorithm>
#include <set>

#include "train/set_up.hpp"

namespace varscale::coordinate {

train::TrainJob RunJobs::job_of(const sweep::SweepRun& run, const std::filesystem::path& folder) {
  train::TrainJob job;
  job.run = run.config;
  job.facts = run.tokens;
  job.sweep = sweep_.name;
  job.folder = folder;
  if (run.config.data.online()) job.open_images = [this, config = run.config] { return images_of(config); };
  return job;
}

const records::TokenFile& RunJobs::tokens_of(const sweep::RunConfig& config) {
  auto& file = files_[config.tokens];
  if (!file) file = std::make_unique<records::TokenFile>(config.tokens);
  return *file;
}

std::shared_ptr<const data::TrainImages> RunJobs::images_of(const sweep::RunConfig& config) {
  auto& images = images_[{config.tokens, config.data.images, config.data.tokenizer, config.train.device}];
  if (!images) {
    const records::TokenFile& file = tokens_of(config);
    images = std::make_shared<data::TrainImages>(
        file, config.data.images,
        data::load_encoder(config.data.tokenizer, train::device_of(config), file.info().precision));
  }
  return images;
}

bool any_online(const sweep::Sweep& sweep) {
  return std::ranges::any_of(sweep.runs, [](const sweep::SweepRun& run) { return run.config.data.online(); });
}

void check_images(const sweep::Sweep& sweep, const sweep::Ledger& ledger) {
  std::set<std::tuple<std::string, std::string, std::string>> seen;
  for (const sweep::SweepRun& run : sweep.runs) {
    const sweep::DataConfig& data = run.config.data;
    if (!data.online() || ledger.status(run.id).state == sweep::RunState::kDone) continue;
    if (!seen.emplace(run.config.tokens, data.images, data.tokenizer).second) continue;
    const records::TokenFile file(run.config.tokens);
    data::TrainImages(file, data.images, data::load_encoder(data.tokenizer, at::kCPU, file.info().precision));
  }
}

}  // namespace varscale::coordinate
