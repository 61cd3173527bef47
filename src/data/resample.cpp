#include <cmath>
#include <numbers>

#include "base/error.hpp"
#include "data/image_file.hpp"

namespace varscale::data {
namespace {

constexpr double kLobes = 3;
constexpr int kFixedBits = 22;  // 32 bits less 8 of the pixel and 2 for the kernel's overshoot

double sinc(double x) {
  return x == 0 ? 1 : std::sin(std::numbers::pi * x) / (std::numbers::pi * x);
}
double lanczos(double x) { return std::abs(x) < kLobes ? sinc(x) * sinc(x / kLobes) : 0; }

// Which input pixels make output pixel i, and with what weight.
struct Taps {
  int64_t first;
  std::vector<int32_t> weights;
};

std::vector<Taps> make_taps(int64_t in, int64_t out) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double widen = std::max(scale, 1.0), support = kLobes * widen;
  std::vector<Taps> taps(out);
  std::vector<double> weights;
  for (int64_t i = 0; i < out; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(centre - support + 0.5));
    const int64_t last = std::min<int64_t>(in, static_cast<int64_t>(centre + support + 0.5));
    weights.clear();
    double sum = 0;
    for (int64_t x = first; x < last; ++x) {
      weights.push_back(lanczos((static_cast<double>(x) - centre + 0.5) * (1.0 / widen)));
      sum += weights.back();
    }
    taps[i].first = first;
    for (double w : weights) {
      taps[i].weights.push_back(static_cast<int32_t>(std::round(w / sum * (1 << kFixedBits))));
    }
  }
  return taps;
}

// Resamples along one axis: `lines` independent lines, neighbours on a line `step` bytes apart.
void resample_axis(const uint8_t* in, uint8_t* out, const std::vector<Taps>& taps, int64_t lines,
                   int64_t in_line, int64_t out_line, int64_t step) {
  for (int64_t line = 0; line < lines; ++line) {
    for (size_t i = 0; i < taps.size(); ++i) {
      const uint8_t* from = in + line * in_line + taps[i].first * step;
      int32_t sum[3] = {1 << (kFixedBits - 1), 1 << (kFixedBits - 1), 1 << (kFixedBits - 1)};
      for (const int32_t weight : taps[i].weights) {
        for (int c = 0; c < 3; ++c) sum[c] += from[c] * weight;
        from += step;
      }
      uint8_t* to = out + line * out_line + static_cast<int64_t>(i) * step;
      for (int c = 0; c < 3; ++c) {
        to[c] = static_cast<uint8_t>(std::clamp(sum[c] >> kFixedBits, 0, 255));
      }
    }
  }
}

}  // namespace

RgbImage resize_lanczos(const RgbImage& image, int64_t width, int64_t height) {
  VARSCALE_CHECK(image.width > 0 && image.height > 0 && width > 0 && height > 0, "{}x{} to {}x{}",
                 image.width, image.height, width, height);
  RgbImage result = image;
  if (width != image.width) {
    RgbImage wide{width, image.height, std::vector<uint8_t>(width * image.height * 3)};
    resample_axis(result.pixels.data(), wide.pixels.data(), make_taps(image.width, width),
                  image.height, image.width * 3, width * 3, 3);
    result = std::move(wide);
  }
  if (height != image.height) {
    RgbImage high{width, height, std::vector<uint8_t>(width * height * 3)};
    // One column at a time: lines start 3 bytes apart, neighbours lie a row apart.
    resample_axis(result.pixels.data(), high.pixels.data(), make_taps(image.height, height), width,
                  3, 3, width * 3);
    result = std::move(high);
  }
  return result;
}

}  // namespace varscale::data
