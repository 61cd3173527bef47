// Batches of token maps: what the trainer and the evaluation read from a tokens.h5.
//
//   records::TokenFile file("tokens.h5");
//   TrainBatches train(file, /*data_seed=*/0, /*batch=*/256);
//   Batch part = train.load(step, rank_begin, rank_end);   // this rank's rows of the global batch
//
// Order    Batch `step` (from 0) is a pure function of (data_seed, step): row i of it is the global sample
//          g = step * batch + i, which is in epoch g / n of the n training images. An epoch visits every
//          image once, in the order Permutation(n, data_seed, "epoch", epoch). How the rows are divided
//          among ranks, and what was loaded before, changes nothing.
// Crops    Image j takes crop (first(j) + epoch) mod crops, with first(j) drawn from (data_seed, j): fresh
//          in every epoch until all stored crops of the image have been seen.
// Memory   The batches point into the TokenFile, which must outlive them. load() may be called from any
//          thread.
// Errors   UserError naming the file where it has no images of the kind asked for.
// Legend   B rows, L tokens an image.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "records/token_file.hpp"

namespace varscale::data {

struct Batch {
  at::Tensor tokens_BL;             // int64, CPU
  at::Tensor labels_B;              // int64, CPU
  std::vector<int64_t> sample_ids;  // global sample index of each row: step * batch + i
};

// Where one training sample comes from.
struct TrainSample {
  int64_t epoch, image, crop;
};

class TrainBatches {
 public:
  TrainBatches(const records::TokenFile& file, uint64_t data_seed, int64_t batch);  // batch >= 1
  int64_t images() const;  // training images: an epoch
  int64_t batch() const noexcept { return batch_; }
  TrainSample sample(int64_t sample_id) const;
  // Rows [begin, end) of global batch `step`; 0 <= begin <= end <= batch.
  Batch load(int64_t step, int64_t begin, int64_t end) const;

 private:
  const records::TokenFile* file_;
  uint64_t data_seed_;
  int64_t batch_;
};

// The validation images in the file's order; sample_ids are their numbers.
class ValidationBatches {
 public:
  explicit ValidationBatches(const records::TokenFile& file);
  int64_t images() const;
  Batch load(int64_t begin, int64_t end) const;    // images [begin, end)
  Batch load(std::vector<int64_t> numbers) const;  // the images of these numbers

 private:
  const records::TokenFile* file_;
};

}  // namespace varscale::data
