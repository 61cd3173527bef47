#include "train/feed.hpp"

#include <algorithm>

#include "base/error.hpp"
#include "sweep/identity.hpp"

namespace varscale::train {

std::unique_ptr<data::TrainBatches> make_batches(
    const sweep::RunConfig& run, const records::TokenFile& tokens,
    const std::function<std::shared_ptr<const data::TrainImages>()>& open_images) {
  const uint64_t seed = run.train.data_seed;
  if (!run.data.online()) return std::make_unique<data::CachedBatches>(tokens, seed, run.train.batch);
  VARSCALE_CHECK(open_images, "data.tokens is online, and nothing opens the images");
  return std::make_unique<data::OnlineBatches>(tokens, open_images(), seed, run.train.batch);
}

Feed::Feed(std::unique_ptr<data::TrainBatches> batches, const sweep::RunConfig& run, const comm::Communicator& world)
    : batches_(std::move(batches)),
      micro_batches_(run.train.batch, run.train.micro_batch, world),
      steps_(sweep::steps_of(run)) {}

Feed::Portion Feed::take(int64_t step, int64_t pass) {
  const auto to_load = [&](int64_t of_pass) {
    const parallel::Share rows = micro_batches_.rows(of_pass);
    return rows.count() > 0 ? rows : parallel::Share{0, 1};
  };
  const parallel::Share here = to_load(pass);
  Portion portion{batches_->load(step, here.begin, here.end), micro_batches_.rows(pass).count() > 0};
  const bool last = pass + 1 == passes();
  if (!last || step + 1 < steps_) {
    const parallel::Share next = to_load(last ? 0 : pass + 1);
    batches_->prepare(last ? step + 1 : step, next.begin, next.end);
  }
  return portion;
}

}  // namespace varscale::train
