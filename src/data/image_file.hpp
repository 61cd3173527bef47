// One image file: decoded to RGB, resized as Pillow does, cropped; and PNG files written.
//
//   RgbImage image = decode_rgb("cat.jpg");
//   RgbImage small = resize_lanczos(image, 36, 48);
//
// Decoding PNG, JPEG and WebP; 8 bits a channel, grey spread to three channels, alpha dropped, CMYK
//          converted, colour profiles and EXIF orientation ignored: what Pillow's convert("RGB") gives.
// Errors   UserError with the path: unreadable, truncated, corrupt, or not an image.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace varscale::data {

struct RgbImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

RgbImage decode_rgb(const std::filesystem::path& path);  // needs a VipsRuntime

// Separable Lanczos (a = 3), widened when shrinking, 8-bit between the passes, coefficients in 22-bit
// fixed point: equal to Pillow's resize(..., LANCZOS) bit for bit.
RgbImage resize_lanczos(const RgbImage& image, int64_t width, int64_t height);

enum class Durability { kPlain, kAtomic };  // kAtomic: aside, fsync, rename

// pixels [height, width, 3]. Needs a VipsRuntime.
void write_png_file(const std::filesystem::path& path, const uint8_t* pixels, int64_t width,
                    int64_t height, Durability durability);

}  // namespace varscale::data
