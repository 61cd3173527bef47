#include "evaluate/npz_set.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "archives/printable.hpp"
#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

using archives::NpyHead;
using base::UserError;

constexpr archives::ZipLimits kLimits = {.entries = 10'000};
constexpr int64_t kLargestSide = 4096;  // pixels
constexpr double kAsymmetry = 1e-5;     // of the largest element

struct Names {
  const char *mean, *covariance;
};
constexpr Names names_of(NpzStatistics which) {
  return which == NpzStatistics::kPool ? Names{"mu", "sigma"} : Names{"mu_s", "sigma_s"};
}

std::string shape_words(const NpyHead& head) { return fmt::format("[{}]", fmt::join(head.shape, ", ")); }

}  // namespace

NpzSet::NpzSet(const std::filesystem::path& path) : zip_(path, kLimits) {
  images_ = find("arr_0");
  if (images_) check_images(*images_);
  pool_ = find(NpzStatistics::kPool);
  spatial_ = find(NpzStatistics::kSpatial);
  if (images_ || pool_) return;
  std::vector<std::string> entries;
  for (const archives::ZipEntry& entry : zip_.entries())
    if (entries.size() < 8) entries.push_back(archives::printable(entry.name));
  throw UserError("{}: holds neither images (arr_0) nor statistics (mu and sigma); its entries: {}", path.string(),
                  entries.empty() ? "none" : fmt::format("{}", fmt::join(entries, ", ")));
}

std::optional<NpzSet::Array> NpzSet::find(const char* name) const {
  const archives::ZipEntry* entry = zip_.find(fmt::format("{}.npy", name));
  if (entry == nullptr) return std::nullopt;
  return Array{entry, archives::read_npy_head(zip_, *entry)};
}

void NpzSet::check_images(const Array& images) const {
  const NpyHead& head = images.head;
  if (head.dtype != "|u1")
    throw UserError("{}: arr_0 has values of type {}, expected uint8 images (|u1)", path().string(), head.dtype);
  if (head.shape.size() != 4 || head.shape[3] != 3)
    throw UserError("{}: arr_0 has the shape {}, expected images [N, height, width, 3]", path().string(),
                    shape_words(head));
  if (head.fortran_order)
    throw UserError("{}: arr_0 is stored column by column (Fortran order), expected image by image (C order)",
                    path().string());
  const auto [n, height, width] = std::tuple(head.shape[0], head.shape[1], head.shape[2]);
  if (n < 1 || std::min(height, width) < 1 || std::max(height, width) > kLargestSide)
    throw UserError("{}: arr_0 has {} images of {} x {} pixels, expected at least 1 image of 1 to {} pixels a side",
                    path().string(), n, width, height, kLargestSide);
}

std::optional<NpzSet::Statistics> NpzSet::find(NpzStatistics which) const {
  const Names names = names_of(which);
  std::optional<Array> mean = find(names.mean), covariance = find(names.covariance);
  if (!mean && !covariance) return std::nullopt;
  if (!mean || !covariance)
    throw UserError("{}: holds {} without {}, expected both or neither", path().string(),
                    mean ? names.mean : names.covariance, mean ? names.covariance : names.mean);
  for (const auto& [array, name] : {std::pair(&*mean, names.mean), std::pair(&*covariance, names.covariance)})
    if (array->head.dtype != "<f8" && array->head.dtype != "<f4")
      throw UserError("{}: {} has values of type {}, expected float64 or float32 (<f8, <f4)", path().string(), name,
                      array->head.dtype);
  if (mean->head.shape.size() != 1 || mean->head.shape[0] < 1)
    throw UserError("{}: {} has the shape {}, expected a mean [features]", path().string(), names.mean,
                    shape_words(mean->head));
  const int64_t features = mean->head.shape[0];
  if (covariance->head.shape != std::vector<int64_t>{features, features})
    throw UserError("{}: {} has the shape {}, expected [{}, {}] as {} has {} features", path().string(),
                    names.covariance, shape_words(covariance->head), features, features, names.mean, features);
  return Statistics{std::move(*mean), std::move(*covariance)};
}

Tensor NpzSet::batch(int64_t begin, int64_t count) const {
  VARSCALE_CHECK(begin >= 0 && begin < size() && count > 0, "images {} to {} of {}", begin, begin + count, size());
  const int64_t images = std::min(count, size() - begin), bytes = height() * width() * 3;
  const auto& [entry, head] = *images_;
  if (begin == 0) {  // from the entry's first byte on, so that its checksum is compared at the end
    std::string words(head.bytes, '\0');
    zip_.read(*entry, 0, words.data(), words.size());
  }
  Tensor pixels_BHW3 = at::empty({images, height(), width(), 3}, at::kByte);
  zip_.read(*entry, head.bytes + static_cast<uint64_t>(begin * bytes), pixels_BHW3.mutable_data_ptr<uint8_t>(),
            static_cast<uint64_t>(images * bytes));
  return pixels_BHW3.permute({0, 3, 1, 2}).contiguous();
}

std::optional<int64_t> NpzSet::features(NpzStatistics which) const {
  const auto& statistics = which == NpzStatistics::kPool ? pool_ : spatial_;
  if (!statistics) return std::nullopt;
  return statistics->mean.head.shape[0];
}

// In row-major order, float64.
Tensor NpzSet::read_double(const Array& array, const char* name) const {
  const NpyHead& head = array.head;
  std::string words(head.bytes, '\0');
  zip_.read(*array.entry, 0, words.data(), words.size());
  Tensor values = at::empty(head.shape, head.dtype == "<f8" ? at::kDouble : at::kFloat);
  zip_.read(*array.entry, head.bytes, values.mutable_data_ptr(), head.value_bytes());
  values = values.to(at::kDouble);
  if (!values.isfinite().all().item<bool>())
    throw UserError("{}: {} holds a value that is not a finite number", path().string(), name);
  return head.fortran_order && head.shape.size() == 2 ? values.t().contiguous() : values;
}

Gaussian NpzSet::gaussian(NpzStatistics which, int64_t features) const {
  const auto& statistics = which == NpzStatistics::kPool ? pool_ : spatial_;
  const Names names = names_of(which);
  if (!statistics)
    throw UserError("{}: holds no statistics {} and {}", path().string(), names.mean, names.covariance);
  if (const int64_t found = statistics->mean.head.shape[0]; found != features)
    throw UserError("{}: {} has {} features, the network has {}; expected statistics of the same network",
                    path().string(), names.mean, found, features);
  Gaussian gaussian{read_double(statistics->mean, names.mean), read_double(statistics->covariance, names.covariance)};
  Tensor& covariance_DD = gaussian.covariance_DD;
  const Tensor variance_D = covariance_DD.diagonal();
  if (const auto least = variance_D.min().item<double>(); least < 0)
    throw UserError("{}: {} has the variance {:g} at place {} of its diagonal, expected none below 0", path().string(),
                    names.covariance, least, variance_D.argmin().item<int64_t>());
  const auto largest = covariance_DD.abs().max().item<double>();
  const auto asymmetry = (covariance_DD - covariance_DD.t()).abs().max().item<double>();
  if (!(asymmetry <= kAsymmetry * largest))
    throw UserError("{}: {} differs from its transpose by up to {:g}, expected a symmetric covariance", path().string(),
                    names.covariance, asymmetry);
  if (asymmetry > 0) covariance_DD = (covariance_DD + covariance_DD.t()) / 2;
  return gaussian;
}

}  // namespace varscale::evaluate
