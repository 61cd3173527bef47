// Batches of token maps: what the trainer and the evaluation read, from a tokens.h5 or by way of it
// (online_batches.hpp).
//
//   records::TokenFile file("tokens.h5");
//   CachedBatches train(file, /*data_seed=*/0, /*batch=*/256);
//   Batch part = train.load(step, rank_begin, rank_end);   // this rank's rows of the global batch
//   train.prepare(step + 1, rank_begin, rank_end);         // what will be loaded next
//
// Order    Batch `step` (from 0) is a pure function of (data_seed, step): row i of it is the global sample
//          g = step * batch + i, which is in epoch g / n of the n training images. An epoch visits every
//          image once, in the order Permutation(n, data_seed, "epoch", epoch). How the rows are divided
//          among ranks, and what was loaded before, changes nothing.
// Crops    CachedBatches: image j takes crop (first(j) + epoch) mod crops, with first(j) drawn from
//          (data_seed, j): fresh in every epoch until all stored crops of the image have been seen.
// Memory   The batches point into the TokenFile, which must outlive them.
// Threads  One at a time.
// Errors   UserError naming the file where it has no images of the kind asked for.
// Legend   B rows, L tokens an image.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "base/random.hpp"
#include "records/token_file.hpp"

namespace varscale::data {

struct Batch {
  at::Tensor tokens_BL;             // int64, on the CPU or where they were encoded
  at::Tensor labels_B;              // int64, CPU
  std::vector<int64_t> sample_ids;  // global sample index of each row: step * batch + i
};

// Where one training sample comes from.
struct TrainSample {
  int64_t epoch, image, crop;
};

class TrainBatches {
 public:
  virtual ~TrainBatches() = default;
  int64_t images() const;  // training images: an epoch
  int64_t batch() const noexcept { return batch_; }
  TrainSample sample(int64_t sample_id) const;
  // Rows [begin, end) of global batch `step`; 0 <= begin <= end <= batch.
  virtual Batch load(int64_t step, int64_t begin, int64_t end) = 0;
  // Says what the next load() will ask for, so that work on it may begin beside the caller's. Only a hint.
  virtual void prepare(int64_t step, int64_t begin, int64_t end) = 0;

 protected:
  TrainBatches(const records::TokenFile& file, uint64_t data_seed, int64_t batch);  // batch >= 1
  const records::TokenFile& file() const noexcept { return *file_; }
  std::vector<int64_t> sample_ids(int64_t step, int64_t begin, int64_t end) const;
  std::vector<TrainSample> samples(const std::vector<int64_t>& sample_ids) const;

 private:
  virtual int64_t crop_of(int64_t epoch, int64_t image) const = 0;
  const records::TokenFile* file_;
  uint64_t data_seed_;
  int64_t batch_;
};

// The crops that the file holds.
class CachedBatches final : public TrainBatches {
 public:
  CachedBatches(const records::TokenFile& file, uint64_t data_seed, int64_t batch);
  Batch load(int64_t step, int64_t begin, int64_t end) override;
  void prepare(int64_t, int64_t, int64_t) override {}

 private:
  int64_t crop_of(int64_t epoch, int64_t image) const override;
  base::RandomStream first_crop_;
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
