#include "generate/edit.hpp"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/error.hpp"
#include "data/png.hpp"

namespace varscale::generate {

using base::UserError;

namespace {

constexpr int64_t kForcedPlaces = 3;  // maps of so many stay as a whole
constexpr int64_t kWhite = 128;
constexpr uint8_t kBoard[] = {216, 168};  // of what is not given

// uint8 [side, side, 3].
Tensor fitted(const data::RgbImage& image, int64_t side) {
  const int64_t shorter = std::min(image.width, image.height);
  const auto scaled = [&](int64_t length) {
    return std::max(side, static_cast<int64_t>(std::llround(static_cast<double>(length) * static_cast<double>(side) /
                                                            static_cast<double>(shorter))));
  };
  const data::RgbImage resized =
      shorter == side ? image : data::resize_lanczos(image, scaled(image.width), scaled(image.height));
  Tensor pixels_HW3 = at::empty({resized.height, resized.width, 3}, at::kByte);
  std::memcpy(pixels_HW3.mutable_data_ptr<uint8_t>(), resized.pixels.data(), resized.pixels.size());
  return pixels_HW3.narrow(0, (resized.height - side) / 2, side)
      .narrow(1, (resized.width - side) / 2, side)
      .contiguous();
}

}  // namespace

Box parse_box(const std::string& words) {
  std::array<int64_t, 4> numbers{};
  const char *at = words.data(), *const end = at + words.size();
  for (size_t i = 0; i < numbers.size(); ++i) {
    const auto [behind, error] = std::from_chars(at, end, numbers[i]);
    const bool last = i + 1 == numbers.size();
    if (error != std::errc() || (last ? behind != end : behind == end || *behind != ','))
      throw UserError("--box {}: expected four whole numbers, x0,y0,x1,y1", words);
    at = behind + 1;
  }
  return {numbers[0], numbers[1], numbers[2], numbers[3]};
}

Picture Picture::read(const std::filesystem::path& path, int64_t side) {
  const data::RgbImage image = data::decode_rgb(path);
  Picture picture;
  picture.path_ = path;
  picture.side_ = side, picture.width_ = image.width, picture.height_ = image.height;
  picture.pixels_u8_XX3_ = fitted(image, side);
  return picture;
}

Tensor Picture::x_13XX() const { return data::to_float_BCHW(pixels_u8_XX3_.unsqueeze(0)); }

Tensor Picture::marked_by(const Box& box) const {
  const std::string words = fmt::format("--box {},{},{},{}", box.x0, box.y0, box.x1, box.y1);
  if (box.x0 < 0 || box.y0 < 0 || box.x1 > width_ || box.y1 > height_ || box.x0 >= box.x1 || box.y0 >= box.y1)
    throw UserError("{}: expected x0 < x1 and y0 < y1 within the {} x {} pixels of {}", words, width_, height_,
                    path_.string());
  data::RgbImage mask{width_, height_, std::vector<uint8_t>(static_cast<size_t>(3 * width_ * height_))};
  for (int64_t y = box.y0; y < box.y1; ++y)
    std::fill_n(mask.pixels.begin() + 3 * (y * width_ + box.x0), 3 * (box.x1 - box.x0), uint8_t{255});
  return marked(mask, words);
}

Tensor Picture::marked_by(const std::filesystem::path& mask) const {
  const data::RgbImage image = data::decode_rgb(mask);
  if (image.width != width_ || image.height != height_)
    throw UserError("{}: has {} x {} pixels; expected {} x {}, the size of {}", mask.string(), image.width,
                    image.height, width_, height_, path_.string());
  return marked(image, mask.string());
}

Tensor Picture::marked(const data::RgbImage& mask, const std::string& where) const {
  const Tensor marked_XX = fitted(mask, side_).sum(2, /*keepdim=*/false, at::kLong) >= 3 * kWhite;
  if (!marked_XX.any().item<bool>()) {
    const bool whole = std::min(width_, height_) == side_ && width_ == height_;
    throw UserError("{}: marks no pixel{}; expected white where it marks", where,
                    whole ? "" : " of the central square of the image, which is what is used");
  }
  return marked_XX;
}

Tensor keep_outside(const scaling::ScaleList& scales, const Tensor& painted_XX) {
  const int64_t last = scales.last_side();
  VARSCALE_CHECK(painted_XX.dim() == 2 && painted_XX.size(0) == painted_XX.size(1) && painted_XX.size(0) % last == 0 &&
                     painted_XX.scalar_type() == at::kBool,
                 "a mask of {} values for maps up to {} x {}", painted_XX.numel(), last, last);
  const Tensor share_11HW = at::adaptive_avg_pool2d(painted_XX.to(at::kDouble).unsqueeze(0), {last, last});
  const Tensor keep_11HW = (share_11HW < 0.5).to(at::kDouble).view({1, 1, last, last});
  std::vector<Tensor> keep;
  for (const int64_t side : scales.sides()) {
    const Tensor keep_N = at::upsample_bilinear2d(keep_11HW, {side, side}, /*align_corners=*/false).flatten() > 0.5;
    keep.push_back(side * side <= kForcedPlaces ? at::ones_like(keep_N) : keep_N);
  }
  return at::cat(keep);
}

Tensor keep_first(const scaling::ScaleList& scales, int64_t maps) {
  VARSCALE_CHECK(maps >= 0 && maps <= scales.count(), "{} of {} maps", maps, scales.count());
  Tensor keep_L = at::zeros({scales.tokens()}, at::kBool);
  if (maps > 0) keep_L.slice(0, 0, scales.end(maps - 1)).fill_(true);
  return keep_L;
}

Tensor shown_as_given(const tokenizer::Vqvae& tokenizer, const Tensor& tokens_1L, const Tensor& keep_L) {
  const at::NoGradGuard no_grad;
  const scaling::ScaleList& scales = tokenizer.quantizer().config().scales;
  VARSCALE_CHECK(tokens_1L.dim() == 2 && tokens_1L.size(0) == 1 && tokens_1L.size(1) == scales.tokens() &&
                     keep_L.numel() == scales.tokens() && keep_L.any().item<bool>(),
                 "{} tokens, of which {} stay", tokens_1L.numel(), keep_L.sum().item<int64_t>());
  const auto of_map = [&](int64_t k) { return keep_L.slice(0, scales.begin(k), scales.end(k)); };
  int64_t last = scales.count() - 1;
  while (!of_map(last).any().item<bool>()) --last;
  const Tensor picture_1XX3 = data::to_u8_BHWC(tokenizer.decode(tokenizer.quantizer().cumulative(tokens_1L)[last]));

  const int64_t pixels = tokenizer.config().image_side, cells = scales.side(last);
  const Tensor pixel_X = at::arange(pixels, at::kLong);
  const Tensor cell_X = pixel_X.mul(cells).div(pixels, "floor");
  const Tensor keep_XX = of_map(last).view({cells, cells}).index_select(0, cell_X).index_select(1, cell_X);
  // Two squares a cell of the last map, in both directions.
  const Tensor square_X = pixel_X.mul(2 * scales.last_side()).div(pixels, "floor");
  const Tensor is_dark_XX = (square_X.unsqueeze(1) + square_X.unsqueeze(0)).remainder(2).to(at::kBool);
  const Tensor board_XX = at::where(is_dark_XX, at::full({}, kBoard[1], at::kByte), at::full({}, kBoard[0], at::kByte));
  return at::where(keep_XX.unsqueeze(2), picture_1XX3, board_XX.unsqueeze(2));
}

}  // namespace varscale::generate
