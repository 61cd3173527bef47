// One image file: decoded to RGB, resized as Pillow does, cropped; and PNG files written.
//
//   RgbImage image = decode_rgb("cat.jpg");
//   RgbImage small = resize_lanczos(image, 36, 48);
//
// Decoding PNG, JPEG and WebP, told apart by their bytes; 8 bits a channel (of 16 the upper ones; 16-bit grey is cut
//          off at 255), grey spread to three channels, alpha dropped, CMYK converted by R = (255 - C) (255 - K) / 255,
//          colour profiles and EXIF orientation ignored, of an animation the first picture: what Pillow's
//          convert("RGB") gives, to the bit for PNG and WebP, within a level for JPEG, whose libraries round otherwise.
// Errors   UserError with `where`: unreadable, truncated, corrupt, not an image, or beyond kMostPixels or
//          kMostElongated.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace varscale::data {

struct RgbImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

// As Pillow; a larger header is refused before memory is taken for its pixels.
inline constexpr int64_t kMostPixels = 178'956'970;
// The longer side over the shorter one. Resized by its short side, a line of pixels would fill the memory.
inline constexpr int64_t kMostElongated = 200;

// bytes: of the file; where: what sentences call it. Needs a VipsRuntime.
RgbImage decode_rgb(std::string_view bytes, const std::string& where);
RgbImage decode_rgb(const std::filesystem::path& path);

// Separable Lanczos (a = 3), widened when shrinking, 8-bit between the passes, coefficients in 22-bit
// fixed point: equal to Pillow's resize(..., LANCZOS) bit for bit.
RgbImage resize_lanczos(const RgbImage& image, int64_t width, int64_t height);

enum class Durability { kPlain, kAtomic };  // kAtomic: aside, fsync, rename

// pixels [height, width, 3]. Needs a VipsRuntime.
void write_png_file(const std::filesystem::path& path, const uint8_t* pixels, int64_t width,
                    int64_t height, Durability durability);

}  // namespace varscale::data
