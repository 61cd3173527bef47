#include "data/batch.hpp"

#include <ATen/ops/empty.h>

#include <numeric>
#include <optional>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::data {
namespace {

Batch make_batch(const records::TokenFile& file, const std::vector<int64_t>& rows,
                 std::vector<int64_t> sample_ids) {
  const int64_t count = static_cast<int64_t>(rows.size());
  const int64_t length = file.info().tokens_per_image();
  Batch batch{at::empty({count, length}, at::kLong), at::empty({count}, at::kLong),
              std::move(sample_ids)};
  int64_t* tokens = batch.tokens_BL.mutable_data_ptr<int64_t>();
  int64_t* labels = batch.labels_B.mutable_data_ptr<int64_t>();
  for (int64_t b = 0; b < count; ++b) {
    const uint16_t* row = file.row(rows[b]);
    std::copy(row, row + length, tokens + b * length);
    labels[b] = file.label(rows[b]);
  }
  return batch;
}

}  // namespace

TrainBatches::TrainBatches(const records::TokenFile& file, uint64_t data_seed, int64_t batch)
    : file_(&file), data_seed_(data_seed), batch_(batch) {
  VARSCALE_CHECK(batch >= 1, "a batch of {} images", batch);
  if (images() < 1) {
    throw base::UserError("{}: holds no training images, expected at least one",
                          file.path().string());
  }
}

int64_t TrainBatches::images() const { return file_->info().train_images; }

TrainSample TrainBatches::sample(int64_t sample_id) const {
  VARSCALE_CHECK(sample_id >= 0, "sample {}", sample_id);
  return samples({sample_id}).front();
}

std::vector<int64_t> TrainBatches::sample_ids(int64_t step, int64_t begin, int64_t end) const {
  VARSCALE_CHECK(step >= 0 && 0 <= begin && begin <= end && end <= batch_,
                 "rows [{}, {}) of batch {}, which has {}", begin, end, step, batch_);
  std::vector<int64_t> sample_ids(end - begin);
  std::iota(sample_ids.begin(), sample_ids.end(), step * batch_ + begin);
  return sample_ids;
}

std::vector<TrainSample> TrainBatches::samples(const std::vector<int64_t>& sample_ids) const {
  std::vector<TrainSample> samples;
  samples.reserve(sample_ids.size());
  std::optional<base::Permutation> order;
  int64_t order_epoch = -1;
  for (const int64_t id : sample_ids) {
    const int64_t epoch = id / images();
    if (epoch != order_epoch) {
      order.emplace(images(), data_seed_, "epoch", epoch);
      order_epoch = epoch;
    }
    const auto image = static_cast<int64_t>((*order)(static_cast<uint64_t>(id % images())));
    samples.push_back({epoch, image, crop_of(epoch, image)});
  }
  return samples;
}

CachedBatches::CachedBatches(const records::TokenFile& file, uint64_t data_seed, int64_t batch)
    : TrainBatches(file, data_seed, batch), first_crop_(data_seed, "crop") {}

int64_t CachedBatches::crop_of(int64_t epoch, int64_t image) const {
  const int64_t crops = file().info().crops;
  const auto first = static_cast<int64_t>(first_crop_.below(static_cast<uint64_t>(image), crops));
  return (first + epoch) % crops;
}

Batch CachedBatches::load(int64_t step, int64_t begin, int64_t end) {
  std::vector<int64_t> ids = sample_ids(step, begin, end), rows;
  for (const TrainSample& at : samples(ids)) rows.push_back(file().train_row(at.image, at.crop));
  return make_batch(file(), rows, std::move(ids));
}

ValidationBatches::ValidationBatches(const records::TokenFile& file) : file_(&file) {
  if (images() < 1) {
    throw base::UserError("{}: holds no validation images, expected at least one",
                          file.path().string());
  }
}

int64_t ValidationBatches::images() const { return file_->info().validation_images; }

Batch ValidationBatches::load(int64_t begin, int64_t end) const {
  std::vector<int64_t> numbers(end - begin);
  std::iota(numbers.begin(), numbers.end(), begin);
  return load(std::move(numbers));
}

Batch ValidationBatches::load(std::vector<int64_t> numbers) const {
  std::vector<int64_t> rows;
  for (int64_t number : numbers) {
    VARSCALE_CHECK(0 <= number && number < images(), "validation image {} of {}", number, images());
    rows.push_back(file_->validation_row(number));
  }
  return make_batch(*file_, rows, std::move(numbers));
}

}  // namespace varscale::data
