// What one rank is fed: its rows of each step's batch in micro-batches, the next one prepared meanwhile.
//
//   Feed feed(make_batches(run, tokens, open_images), run, world);
//   for (int64_t pass = 0; pass < feed.passes(); ++pass) {
//     const Feed::Portion portion = feed.take(step, pass);
//     ...
//   }
//
// Order    All ranks make equally many passes, since they gather weights together: where one has no rows
//          left, the batch's first row stands in, and is not counted.
// Errors   As data::TrainBatches.
#pragma once

#include <functional>
#include <memory>

#include "data/online_batches.hpp"
#include "parallel/parallel.hpp"
#include "sweep/run_config.hpp"

namespace varscale::train {

// Training batches of data.tokens; `open_images` is called where it is online.
std::unique_ptr<data::TrainBatches> make_batches(
    const sweep::RunConfig& run, const records::TokenFile& tokens,
    const std::function<std::shared_ptr<const data::TrainImages>()>& open_images);

class Feed {
 public:
  struct Portion {
    data::Batch batch;
    bool counted;
  };
  Feed(std::unique_ptr<data::TrainBatches> batches, const sweep::RunConfig& run, const comm::Communicator& world);
  int64_t passes() const noexcept { return micro_batches_.passes(); }  // of a step
  Portion take(int64_t step, int64_t pass);

 private:
  std::unique_ptr<data::TrainBatches> batches_;
  parallel::MicroBatches micro_batches_;
  int64_t steps_;
};

}  // namespace varscale::train
