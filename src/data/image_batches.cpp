#include "data/image_batches.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "base/error.hpp"
#include "base/random.hpp"
#include "data/parallel_images.hpp"
#include "data/png.hpp"

namespace varscale::data {

int64_t Preprocessing::resized_side() const {
  return std::llrint(resize * static_cast<double>(side));  // the default rounding: half to even
}

std::string Preprocessing::words() const {
  return fmt::format(
      "short side to {} (Lanczos as Pillow), training crop {}x{} at random (seed {}), validation "
      "crop "
      "central{}; RGB / 255 * 2 - 1",
      resized_side(), side, side, seed,
      keep_exact ? fmt::format("; images of exactly {}x{} taken as they are", side, side) : "");
}

ImageBatches::ImageBatches(ImageSet set, Preprocessing how, Crop crop, int64_t cache_bytes)
    : set_(std::move(set)),
      how_(how),
      crop_(crop),
      cache_limit_(cache_bytes),
      cache_(cache_bytes > 0 ? set_.size() : 0) {
  VARSCALE_CHECK(how.side >= 1 && how.resized_side() >= how.side, "side {}, resized to {}",
                 how.side, how.resized_side());
}

std::shared_ptr<const RgbImage> ImageBatches::resized(int64_t number) const {
  const bool caches = !cache_.empty();
  if (caches)
    if (auto kept = cache_[number].load()) return kept;
  RgbImage image = decode_rgb(set_.read(number), set_.where(number));
  const bool exact = how_.keep_exact && image.width == how_.side && image.height == how_.side;
  if (!exact) {
    const int64_t to = how_.resized_side();
    const int64_t shorter = std::min(image.width, image.height);
    const auto scaled = [&](int64_t length) { return to * length / shorter; };
    image = resize_lanczos(image, scaled(image.width), scaled(image.height));
  }
  auto result = std::make_shared<const RgbImage>(std::move(image));
  const auto bytes = static_cast<int64_t>(result->pixels.size());
  if (caches && cached_bytes_ + bytes <= cache_limit_) {
    cached_bytes_ += bytes;
    cache_[number].store(result);
  }
  return result;
}

at::Tensor ImageBatches::batch_u8_BHWC(const std::vector<int64_t>& numbers, int64_t crop) const {
  return batch_u8_BHWC(numbers, std::vector<int64_t>(numbers.size(), crop));
}

at::Tensor ImageBatches::batch_u8_BHWC(const std::vector<int64_t>& numbers,
                                       const std::vector<int64_t>& crops) const {
  VARSCALE_CHECK(crops.size() == numbers.size(), "{} crop numbers for {} images", crops.size(),
                 numbers.size());
  const auto count = static_cast<int64_t>(numbers.size());
  const int64_t side = how_.side;
  at::Tensor images = at::empty({count, side, side, 3}, at::kByte);
  auto* out = images.mutable_data_ptr<uint8_t>();
  for_each_image(count, default_threads(), [&](int64_t b) {
    cut(*resized(numbers[b]), numbers[b], crops[b], out + b * side * side * 3);
  });
  return images;
}

at::Tensor ImageBatches::crops_u8_NBHWC(const std::vector<int64_t>& numbers, int64_t first, int64_t count) const {
  const auto batch = static_cast<int64_t>(numbers.size());
  const int64_t side = how_.side;
  at::Tensor images = at::empty({count, batch, side, side, 3}, at::kByte);
  auto* out = images.mutable_data_ptr<uint8_t>();
  for_each_image(batch, default_threads(), [&](int64_t b) {
    const auto image = resized(numbers[b]);
    for (int64_t n = 0; n < count; ++n) cut(*image, numbers[b], first + n, out + (n * batch + b) * side * side * 3);
  });
  return images;
}

// Writes a crop of an image of the set: [side, side, 3].
void ImageBatches::cut(const RgbImage& image, int64_t number, int64_t crop, uint8_t* out) const {
  const int64_t side = how_.side, spare_x = image.width - side, spare_y = image.height - side;
  int64_t x, y;
  if (crop_ == Crop::kCentre) {
    // Half to even, as the public code's centre crop rounds.
    x = std::llrint(static_cast<double>(spare_x) / 2);
    y = std::llrint(static_cast<double>(spare_y) / 2);
  } else {
    const base::RandomStream place(how_.seed, "crop_place", set_.source_id(number), crop);
    y = static_cast<int64_t>(place.below(0, spare_y + 1));
    x = static_cast<int64_t>(place.below(1, spare_x + 1));
  }
  for (int64_t row = 0; row < side; ++row)
    std::memcpy(out + row * side * 3, image.pixels.data() + ((y + row) * image.width + x) * 3, side * 3);
}

at::Tensor ImageBatches::batch(const std::vector<int64_t>& numbers, int64_t crop) const {
  return to_float_BCHW(batch_u8_BHWC(numbers, crop));
}

at::Tensor ImageBatches::labels_B(const std::vector<int64_t>& numbers) const {
  at::Tensor labels = at::empty({static_cast<int64_t>(numbers.size())}, at::kLong);
  auto* out = labels.mutable_data_ptr<int64_t>();
  for (size_t b = 0; b < numbers.size(); ++b) out[b] = set_.label(numbers[b]);
  return labels;
}

std::vector<CorruptImage> find_corrupt(const ImageSet& set, int64_t begin, int64_t end) {
  std::vector<CorruptImage> corrupt;
  std::mutex mutex;
  for_each_image(end - begin, default_threads(), [&](int64_t i) {
    const int64_t number = begin + i;
    try {
      decode_rgb(set.read(number), set.where(number));
    } catch (const base::UserError& error) {
      const std::lock_guard lock(mutex);
      corrupt.push_back({number, error.what()});
    }
  });
  std::sort(corrupt.begin(), corrupt.end(),
            [](const CorruptImage& a, const CorruptImage& b) { return a.number < b.number; });
  return corrupt;
}

}  // namespace varscale::data
