#include "losses/diff_augment.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::losses {

using base::UserError;

namespace {

// Place of each draw in an image's stream.
enum Draw : uint64_t {
  kBrightness,
  kSaturation,
  kContrast,
  kShiftRows,
  kShiftColumns,
  kCutRow,
  kCutColumn,
  kApplyColor,
  kApplyTranslation,
  kApplyCutout,
};

using Streams = std::vector<base::RandomStream>;

Streams streams_of(const SampleKeys& keys) {
  Streams streams;
  for (const int64_t sample : keys.samples) {
    streams.emplace_back(keys.seed, keys.purpose, static_cast<uint64_t>(keys.step), static_cast<uint64_t>(sample));
  }
  return streams;
}

// One number an image, as [B, 1, 1, 1] beside x.
template <class Function>
Tensor numbers(const Streams& streams, const Tensor& x_B3XX, const Function& number) {
  std::vector<double> values;
  for (const base::RandomStream& stream : streams) values.push_back(number(stream));
  return at::tensor(values, at::kDouble).view({-1, 1, 1, 1}).to(x_B3XX.options());
}

Tensor recolored(const Streams& streams, const Tensor& x_B3XX, double probability) {
  auto uniform = [&](Draw draw, double factor, double offset) {
    return numbers(streams, x_B3XX, [&](const base::RandomStream& stream) {
      return factor * stream.uniform(draw) + offset;
    });
  };
  Tensor y = x_B3XX + uniform(kBrightness, 1, -0.5);
  const Tensor grey_B1XX = y.mean(1, /*keepdim=*/true);
  y = (y - grey_B1XX) * uniform(kSaturation, 2, 0) + grey_B1XX;
  const Tensor mean_B111 = y.mean({1, 2, 3}, /*keepdim=*/true);
  y = (y - mean_B111) * uniform(kContrast, 1, 0.5) + mean_B111;
  if (probability == 1) return y;
  const Tensor apply_B111 = numbers(streams, x_B3XX, [&](const base::RandomStream& stream) {
    return stream.uniform(kApplyColor) < probability ? 1 : 0;
  });
  return at::where(apply_B111.gt(0), y, x_B3XX);
}

// y[r, c] = x[r + dr, c + dc], 0 outside. Image by image: exact, and its gradient is another shift.
Tensor shifted(const Streams& streams, const Tensor& x_B3XX, int64_t most, double probability) {
  std::vector<Tensor> images = x_B3XX.unbind(0);
  for (size_t i = 0; i < images.size(); ++i) {
    if (streams[i].uniform(kApplyTranslation) >= probability) continue;
    auto shift = [&](Draw draw) {
      return static_cast<int64_t>(streams[i].below(draw, static_cast<uint64_t>(2 * most + 1))) - most;
    };
    const int64_t rows = shift(kShiftRows), columns = shift(kShiftColumns);
    images[i] = at::constant_pad_nd(images[i], {-columns, columns, -rows, rows});
  }
  return at::stack(images);
}

// 1, and 0 in the square that is cut out of each image: [B, 1, X, X].
Tensor cutout_mask(const Streams& streams, const Tensor& x_B3XX, int64_t size, double probability) {
  auto inside = [&](Draw draw, int64_t side) {  // [B, 1, 1, side]
    const Tensor first_B111 = numbers(streams, x_B3XX, [&](const base::RandomStream& stream) {
      if (stream.uniform(kApplyCutout) >= probability) return static_cast<double>(-size);  // outside the image
      const auto centre = stream.below(draw, static_cast<uint64_t>(side + 1 - size % 2));
      return static_cast<double>(static_cast<int64_t>(centre) - size / 2);
    });
    const Tensor place_X = at::arange(side, x_B3XX.options());
    return place_X.ge(first_B111).logical_and(place_X.lt(first_B111 + size));
  };
  const Tensor rows_B1X1 = inside(kCutRow, x_B3XX.size(2)).transpose(2, 3);
  const Tensor columns_B11X = inside(kCutColumn, x_B3XX.size(3));
  return rows_B1X1.logical_and(columns_B11X).logical_not().to(x_B3XX.scalar_type());
}

}  // namespace

void DiffAugmentConfig::check() const {
  if (!(translation >= 0 && translation <= 1)) throw UserError("translation is {}, expected 0 to 1", translation);
  if (!(cutout >= 0 && cutout <= 1)) throw UserError("cutout is {}, expected 0 to 1", cutout);
  if (!(probability > 0 && probability <= 1)) {
    throw UserError("probability is {}, expected above 0 and at most 1", probability);
  }
}

Tensor diff_augment(const DiffAugmentConfig& config, const Tensor& image_B3XX, const SampleKeys& keys) {
  config.check();
  VARSCALE_CHECK(image_B3XX.dim() == 4 && image_B3XX.size(2) == image_B3XX.size(3),
                 "image [{}], expected [B, 3, X, X]", fmt::join(image_B3XX.sizes(), ", "));
  VARSCALE_CHECK(static_cast<int64_t>(keys.samples.size()) == image_B3XX.size(0), "{} keys for {} images",
                 keys.samples.size(), image_B3XX.size(0));
  const Streams streams = streams_of(keys);
  auto pixels = [&](double share) { return static_cast<int64_t>(share * static_cast<double>(image_B3XX.size(2))); };
  Tensor x_B3XX = image_B3XX.contiguous();
  if (config.color) x_B3XX = recolored(streams, x_B3XX, config.probability);
  if (pixels(config.translation) > 0)
    x_B3XX = shifted(streams, x_B3XX, pixels(config.translation), config.probability);
  if (pixels(config.cutout) > 0)
    x_B3XX = x_B3XX * cutout_mask(streams, x_B3XX, pixels(config.cutout), config.probability);
  return x_B3XX;
}

}  // namespace varscale::losses
