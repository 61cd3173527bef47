// Images of a set as network input: decoded, resized, cropped, in [-1, 1].
//
//   Preprocessing how{.side = 32};
//   ImageBatches images(ImageSet::open("images/train"), how, Crop::kRandom);
//   at::Tensor x_BCHW = images.batch({0, 17, 4});             // float32 [3,3,32,32]
//
// Resize   Short side to round(1.125 side), long side in proportion (cut to whole pixels), Lanczos as Pillow
//          computes it; then a crop of side x side, central or random. An image that already is
//          side x side is taken as it is, if `keep_exact`.
// Random   The place of a crop is a function of (seed, source_id, crop number).
// Memory   Resized images are kept as uint8 up to `cache_bytes`; beyond that they are decoded again. A cache takes
//          16 bytes an image besides; cache_bytes 0: there is none.
// Threads  default_threads() decode side by side. batch() may be called from one thread at a time.
// Errors   UserError with the name of an unreadable image (the first one of the batch).
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/image_file.hpp"
#include "data/image_set.hpp"

namespace varscale::data {

struct Preprocessing {
  int64_t side = 256;     // pixels
  double resize = 1.125;  // short side over `side`
  bool keep_exact = true;
  uint64_t seed = 0;             // of random crops
  int64_t resized_side() const;  // round half to even, as the public code
  std::string words() const;     // what a token file records
};

enum class Crop { kCentre, kRandom };

class ImageBatches {
 public:
  ImageBatches(ImageSet set, Preprocessing how, Crop crop,
               int64_t cache_bytes = int64_t{512} << 20);
  int64_t size() const noexcept { return set_.size(); }
  const ImageSet& set() const noexcept { return set_; }
  const Preprocessing& preprocessing() const noexcept { return how_; }

  // Images `numbers` (each below size()), their crop number `crop`: float32 [B,3,side,side].
  at::Tensor batch(const std::vector<int64_t>& numbers, int64_t crop = 0) const;
  at::Tensor batch_u8_BHWC(const std::vector<int64_t>& numbers, int64_t crop = 0) const;
  // The same with a crop number for each image.
  at::Tensor batch_u8_BHWC(const std::vector<int64_t>& numbers, const std::vector<int64_t>& crops) const;
  // Crops [first, first + count) of each image, which is decoded once: uint8 [N,B,side,side,3], N = count.
  at::Tensor crops_u8_NBHWC(const std::vector<int64_t>& numbers, int64_t first, int64_t count) const;
  at::Tensor labels_B(const std::vector<int64_t>& numbers) const;  // int64

 private:
  std::shared_ptr<const RgbImage> resized(int64_t number) const;
  void cut(const RgbImage& image, int64_t number, int64_t crop, uint8_t* out) const;
  ImageSet set_;
  Preprocessing how_;
  Crop crop_;
  int64_t cache_limit_;
  mutable std::atomic<int64_t> cached_bytes_{0};
  mutable std::vector<std::atomic<std::shared_ptr<const RgbImage>>> cache_;
};

// Decodes the images [begin, end) once: numbers of those that cannot be read, with the reasons.
struct CorruptImage {
  int64_t number;
  std::string reason;  // names the file
};
std::vector<CorruptImage> find_corrupt(const ImageSet& set, int64_t begin, int64_t end);

}  // namespace varscale::data
