#include "data/synth.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"
#include "base/random.hpp"
#include "data/image_file.hpp"
#include "data/parallel_images.hpp"

namespace varscale::data {
namespace {

constexpr double kPi = std::numbers::pi;

enum class Outline { kEllipse, kRectangle };
enum class Turn { kFree, kCommon, kAxis };  // free; near one angle an image; along the axes
enum class Texture { kFlat, kRadial, kLinear, kStripes };

// Lengths in pixels of a 32-pixel image.
struct Recipe {
  const char* name;
  Outline outline;
  int leaves;
  double alpha;  // density of the half-axis r: r^-alpha on [r_low, r_high]
  double r_low, r_high;
  double aspect_low, aspect_high;  // other half-axis over r
  Turn turn;
  Texture texture;
  std::vector<uint32_t> palette;     // 0xRRGGBB
  std::vector<uint32_t> background;  // empty: from the palette
  double stripe_depth = .5;          // how much darker a stripe is
};

const std::array<Recipe, kSynthClasses>& recipes() {
  using enum Outline;
  using enum Turn;
  using enum Texture;
  // clang-format off
  static const std::array<Recipe, kSynthClasses> list = {{
      {"00_embers", kEllipse, 9, 2, 4, 13, 1, 1, kFree, kFlat,
       {0x7f0000, 0xd7301f, 0xfc8d59, 0xfdd49e}, {}},
      {"01_bubbles", kEllipse, 8, 2, 4, 12, 1, 1, kFree, kRadial,
       {0x08519c, 0x3182bd, 0x6baed6, 0xdeebf7}, {}},
      {"02_mosaic", kRectangle, 9, 2, 4, 14, .4, 1, kAxis, kFlat,
       {0xf7f7f7, 0xd40000, 0x0034a0, 0xffd500, 0x111111}, {}},
      {"03_grass", kEllipse, 14, 1.5, 9, 20, .18, .3, kCommon, kLinear,
       {0x1b5e20, 0x388e3c, 0x7cb342, 0xc0ca33}, {}},
      {"04_bricks", kRectangle, 12, 2.5, 5, 10, .45, .55, kCommon, kFlat,
       {0x6b3a24, 0xa65d3a, 0xc98b6b, 0xd9c7b8}, {}},
      {"05_zebra", kEllipse, 6, 2, 7, 16, .6, 1, kCommon, kStripes,
       {0xf4f4f4, 0xd9d9d9, 0xa8a8a8, 0x5a5a5a}, {}, .8},
      {"06_petals", kEllipse, 9, 2, 5, 11, .5, .9, kFree, kRadial,
       {0xff4fa3, 0xffd1e8, 0x8e44ad, 0x40c9c0}, {}},
      {"07_planks", kRectangle, 11, 1.5, 10, 20, .12, .2, kFree, kLinear,
       {0x3e2723, 0x795548, 0xd7ccc8, 0xffb300}, {}},
      {"08_night", kEllipse, 9, 3, 2.5, 7, 1, 1, kFree, kRadial,
       {0xffffff, 0xffe082, 0x80d8ff, 0xb388ff}, {0x05051e, 0x120a2e}},
      {"09_awnings", kRectangle, 7, 2, 6, 13, .7, 1, kCommon, kStripes,
       {0x00897b, 0x80cbc4, 0xff8a65, 0xfff3e0}, {}},
  }};
  // clang-format on
  return list;
}

struct Colour {
  std::array<double, 3> c;
};

Colour from_hex(uint32_t hex) {
  return {{((hex >> 16) & 255) / 255., ((hex >> 8) & 255) / 255., (hex & 255) / 255.}};
}

// The numbers of one image's stream, one after the other.
class Draws {
 public:
  explicit Draws(const SynthImage& image)
      : stream_(image.seed, image.split == SynthSplit::kTrain ? "synth_train" : "synth_val",
                static_cast<uint64_t>(image.index)) {}
  double uniform() { return stream_.uniform(next_++); }
  double between(double low, double high) { return low + (high - low) * uniform(); }

 private:
  base::RandomStream stream_;
  uint64_t next_ = 0;
};

// Inverse of the distribution function of r^-alpha on [low, high].
double power_law(double u, double alpha, double low, double high) {
  if (std::abs(alpha - 1) < 1e-9) return low * std::pow(high / low, u);
  const double e = 1 - alpha;
  return std::pow(std::pow(low, e) + u * (std::pow(high, e) - std::pow(low, e)), 1 / e);
}

class Canvas {
 public:
  explicit Canvas(const SynthImage& image)
      : recipe_(recipes()[image.index % kSynthClasses]),
        side_(image.side),
        unit_(static_cast<double>(image.side) / 32),
        draws_(image),
        pixels_(side_ * side_) {}

  std::vector<uint8_t> draw() {
    theta_ = draws_.between(0, kPi);
    const double gain = draws_.between(.8, 1.15);
    std::array<double, 3> tint;
    for (double& t : tint) t = 1 + .16 * (draws_.uniform() - .5);
    frequency_ = draws_.between(.06, .10) / unit_;
    phase_ = draws_.between(0, 2 * kPi);
    draw_weights();
    const auto& own = recipe_.background;
    const Colour ground = own.empty()
                              ? from_hex(pick())
                              : from_hex(own[static_cast<size_t>(draws_.uniform() * own.size())]);
    const double light_angle = draws_.between(0, 2 * kPi), light = .35 * draws_.uniform();
    std::fill(pixels_.begin(), pixels_.end(), ground);
    for (int leaf = 0; leaf < recipe_.leaves; ++leaf) draw_leaf();
    return finish(gain, tint, light_angle, light);
  }

 private:
  // How often each colour of the palette is used differs from image to image.
  void draw_weights() {
    double sum = 0;
    for (size_t i = 0; i < recipe_.palette.size(); ++i) {
      sum += std::pow(draws_.uniform(), 1.5) + .05;
      cumulative_.push_back(sum);
    }
  }

  uint32_t pick() {
    const double u = draws_.uniform() * cumulative_.back();
    const auto at = std::upper_bound(cumulative_.begin(), cumulative_.end() - 1, u);
    return recipe_.palette[at - cumulative_.begin()];
  }

  void draw_leaf() {
    const double side = static_cast<double>(side_);
    double r = power_law(draws_.uniform(), recipe_.alpha, recipe_.r_low, recipe_.r_high) * unit_;
    double b = std::max(.6 * unit_, r * draws_.between(recipe_.aspect_low, recipe_.aspect_high));
    const double cx = draws_.uniform() * side, cy = draws_.uniform() * side;
    const double turn = draws_.uniform();
    double angle = 0;
    if (recipe_.turn == Turn::kFree) angle = kPi * turn;
    if (recipe_.turn == Turn::kCommon) angle = theta_ + .25 * (turn - .5);
    if (recipe_.turn == Turn::kAxis && turn < .5) std::swap(r, b);
    Colour colour = from_hex(pick());
    for (double& c : colour.c) c *= 1 + .06 * (draws_.uniform() - .5);
    const double shade = draws_.between(.94, 1.06);
    for (double& c : colour.c) c *= shade;

    const double cosine = std::cos(angle), sine = std::sin(angle);
    const double reach = std::hypot(r, b) + 1;
    const int64_t x0 = std::max<int64_t>(0, static_cast<int64_t>(std::floor(cx - reach)));
    const int64_t x1 = std::min<int64_t>(side_, static_cast<int64_t>(std::ceil(cx + reach)));
    const int64_t y0 = std::max<int64_t>(0, static_cast<int64_t>(std::floor(cy - reach)));
    const int64_t y1 = std::min<int64_t>(side_, static_cast<int64_t>(std::ceil(cy + reach)));
    for (int64_t y = y0; y < y1; ++y) {
      for (int64_t x = x0; x < x1; ++x) {
        const double dx = static_cast<double>(x) + .5 - cx, dy = static_cast<double>(y) + .5 - cy;
        const double p = dx * cosine + dy * sine, q = dy * cosine - dx * sine;
        const double outside = recipe_.outline == Outline::kEllipse
                                   ? (std::hypot(p / r, q / b) - 1) * std::min(r, b)
                                   : std::max(std::abs(p) - r, std::abs(q) - b);
        const double cover = std::clamp(.5 - outside, 0., 1.);
        if (cover == 0) continue;
        const double factor = texture(p, q, r, x, y);
        Colour& under = pixels_[y * side_ + x];
        for (int c = 0; c < 3; ++c) under.c[c] += cover * (colour.c[c] * factor - under.c[c]);
      }
    }
  }

  double texture(double p, double q, double r, int64_t x, int64_t y) const {
    switch (recipe_.texture) {
      case Texture::kFlat:
        return 1;
      case Texture::kRadial:
        return 1.25 - .6 * std::clamp((p * p + q * q) / (r * r), 0., 1.);
      case Texture::kLinear:
        return 1 + .35 * std::clamp(p / r, -1., 1.);
      case Texture::kStripes: {
        const double middle = static_cast<double>(side_) / 2;
        const double along = (static_cast<double>(x) + .5 - middle) * std::cos(theta_) +
                             (static_cast<double>(y) + .5 - middle) * std::sin(theta_);
        const double wave = 2 * std::sin(2 * kPi * frequency_ * along + phase_);
        return 1 - recipe_.stripe_depth * (.5 + .5 * std::clamp(wave, -1., 1.));
      }
    }
    return 1;
  }

  // A slow change of light over the whole image, then exposure and tint.
  std::vector<uint8_t> finish(double gain, const std::array<double, 3>& tint, double light_angle,
                              double light) const {
    std::vector<uint8_t> bytes(side_ * side_ * 3);
    const double middle = static_cast<double>(side_) / 2;
    for (int64_t y = 0; y < side_; ++y) {
      for (int64_t x = 0; x < side_; ++x) {
        const double along = ((static_cast<double>(x) + .5 - middle) * std::cos(light_angle) +
                              (static_cast<double>(y) + .5 - middle) * std::sin(light_angle)) /
                             middle;
        const double factor = gain * (1 + light * along);
        for (int c = 0; c < 3; ++c) {
          const double value = pixels_[y * side_ + x].c[c] * factor * tint[c];
          bytes[(y * side_ + x) * 3 + c] =
              static_cast<uint8_t>(std::lround(255 * std::clamp(value, 0., 1.)));
        }
      }
    }
    return bytes;
  }

  const Recipe& recipe_;
  int64_t side_;
  double unit_;
  Draws draws_;
  std::vector<Colour> pixels_;
  std::vector<double> cumulative_;
  double theta_ = 0, frequency_ = 0, phase_ = 0;
};

}  // namespace

const std::vector<std::string>& synth_class_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Recipe& recipe : recipes()) list.emplace_back(recipe.name);
    return list;
  }();
  return names;
}

std::vector<uint8_t> draw_leaves(const SynthImage& image) {
  VARSCALE_CHECK(image.index >= 0 && image.side >= 1, "image {} of side {}", image.index,
                 image.side);
  return Canvas(image).draw();
}

void write_synth_tree(const std::filesystem::path& folder, const SynthTree& tree, int64_t threads) {
  if (tree.train < kSynthClasses || tree.validation < 0) {
    throw base::UserError(
        "--train {} and --val {}: expected at least {} training images, one a class, and no "
        "negative "
        "number",
        tree.train, tree.validation, kSynthClasses);
  }
  if (tree.side < 8 || tree.side > 1024) {
    throw base::UserError("--side {}: expected 8 to 1024 pixels", tree.side);
  }
  if (std::filesystem::exists(std::filesystem::symlink_status(folder))) {
    throw base::UserError("{}: exists already; give a new folder, or remove it first",
                          folder.string());
  }
  base::AtomicFolder output(folder);
  const auto class_folder = [&](SynthSplit split, int64_t label) {
    return output.temporary() / (split == SynthSplit::kTrain ? "train" : "val") /
           synth_class_names()[label];
  };
  for (int64_t label = 0; label < kSynthClasses; ++label) {
    std::filesystem::create_directories(class_folder(SynthSplit::kTrain, label));
    if (label < tree.validation) {
      std::filesystem::create_directories(class_folder(SynthSplit::kValidation, label));
    }
  }
  base::Progress progress("draw", tree.train + tree.validation, "images");
  for_each_image(tree.train + tree.validation, threads, [&](int64_t number) {
    const bool train = number < tree.train;
    const SynthImage image{tree.seed, train ? SynthSplit::kTrain : SynthSplit::kValidation,
                           train ? number : number - tree.train, tree.side};
    const auto path = class_folder(image.split, image.index % kSynthClasses) /
                      fmt::format("{:06d}.png", image.index / kSynthClasses + 1);
    write_png_file(path, draw_leaves(image).data(), tree.side, tree.side, Durability::kPlain);
    progress.advance(1);
  });
  output.commit();
  progress.finish();
}

}  // namespace varscale::data
