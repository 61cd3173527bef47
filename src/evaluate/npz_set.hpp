// A set of images in one .npz file, as public evaluators pass them around: pixels, statistics of features, or both.
//
//   const NpzSet reference("VIRTUAL_imagenet256_labeled.npz");
//   if (reference.features(NpzStatistics::kPool)) reference.gaussian(NpzStatistics::kPool, network.dimension());
//   if (reference.size() > 0) Tensor images_u8_B3HW = reference.batch(0, 32);
//
// Arrays   `arr_0`: images, uint8 [N,H,W,3], row-major. `mu` [D] and `sigma` [D,D]: mean and covariance of the pool
//          features; `mu_s`, `sigma_s`: those of the spatial ones (sFID). float64 or float32, of either order. Others,
//          as the classes in `arr_1`, are passed over. Stored or deflated.
// Memory   The file is opened and its heads are read. Images come from it batch by batch, a covariance when it is asked
//          for; nothing is taken before the sizes have been checked.
// Threads  One at a time. Batches in rising order are one pass over a deflated file.
// Errors   UserError naming file and array: no such arrays, a mean without its covariance, another dtype, order or
//          shape, another number of features than the network's, a value that is not finite, a covariance that is
//          none; what zip_file.hpp and npy.hpp refuse. Checksums of statistics are always compared, that of the images
//          where batches go from the first to the last in order.
// Legend   N images, B of them, H, W pixels, D features.
// Source   openai/guided-diffusion evaluations/evaluator.py, mseitzer/pytorch-fid, LTH14/mar: the names of the arrays.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>

#include "archives/npy.hpp"
#include "archives/zip_file.hpp"
#include "evaluate/frechet.hpp"

namespace varscale::evaluate {

enum class NpzStatistics { kPool, kSpatial };  // mu, sigma; mu_s, sigma_s

class NpzSet {
 public:
  explicit NpzSet(const std::filesystem::path& path);

  const std::filesystem::path& path() const noexcept { return zip_.path(); }
  int64_t size() const noexcept { return images_ ? images_->head.shape[0] : 0; }  // 0: no images
  int64_t height() const noexcept { return images_ ? images_->head.shape[1] : 0; }
  int64_t width() const noexcept { return images_ ? images_->head.shape[2] : 0; }

  // Images [begin, begin + count), at most to the last: uint8 [B,3,H,W].
  Tensor batch(int64_t begin, int64_t count) const;

  // How many features the file has statistics of; nothing where it has none.
  std::optional<int64_t> features(NpzStatistics which) const;
  // The file must have these statistics, of so many features. The number of images behind them is not known. A
  // covariance may miss symmetry by 1e-5 of its largest element, and is made symmetric.
  Gaussian gaussian(NpzStatistics which, int64_t features) const;

 private:
  struct Array {
    const archives::ZipEntry* entry;
    archives::NpyHead head;
  };
  struct Statistics {
    Array mean, covariance;
  };
  std::optional<Array> find(const char* name) const;
  std::optional<Statistics> find(NpzStatistics which) const;
  void check_images(const Array& images) const;
  Tensor read_double(const Array& array, const char* name) const;

  archives::ZipFile zip_;
  std::optional<Array> images_;
  std::optional<Statistics> pool_, spatial_;
};

}  // namespace varscale::evaluate
