// Which images of a step a rank trains on, in micro-batches.
//
//   const Share share(config.train, images.count, world);
//   for (int64_t pass = 0; pass < share.passes(); ++pass) { const Portion part = share.of(step, pass); ... }
//
// Order    Sample i of step s is place s * batch + i; every pass over the images is a permutation of them, keyed by
//          the seed and the pass. All ranks make equally many passes over a step, since they gather weights together:
//          where one has no rows left, the batch's first stands in, and is not counted.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "parallel/parallel.hpp"
#include "tokenizer/image_source.hpp"
#include "tokenizer_training/config.hpp"

namespace varscale::tokenizer_training {

struct Portion {
  tokenizer::ImageSource::Batch images;
  std::vector<int64_t> samples;  // global sample numbers
  int64_t first = 0;             // row of the step's batch
  bool counted = true;
  int64_t count() const { return static_cast<int64_t>(samples.size()); }
};

class Share {
 public:
  // UserError: no images, or fewer than train.images; fewer images a step than ranks.
  Share(const TrainConfig& config, int64_t images, const comm::Communicator& world);
  int64_t passes() const noexcept { return micro_batches_.passes(); }  // of a step
  Portion of(int64_t step, int64_t pass) const;
  // Any rows [begin, end) of a step's batch.
  Portion rows(int64_t step, int64_t begin, int64_t end) const;

 private:
  int64_t batch_, count_;
  uint64_t seed_;
  bool random_crops_;
  parallel::MicroBatches micro_batches_;
  std::optional<std::vector<int64_t>> subset_;  // numbers of the images trained on, where not all are
};

}  // namespace varscale::tokenizer_training
