// The decoder of image files: PNG, JPEG and WebP. What it accepts has the pixels that its size says.
#include <fmt/format.h>

#include <memory>

#include "base/error.hpp"
#include "base/file.hpp"
#include "data/image_file.hpp"
#include "data/vips_runtime.hpp"
#include "tests/fuzz/driver.hpp"

namespace varscale {
namespace {

std::string read(const std::string& input) {
  // Begun by the process that decodes: the library has threads.
  static const data::VipsRuntime vips("image_fuzz");
  const data::RgbImage image = data::decode_rgb(input, "input");
  VARSCALE_CHECK(image.width > 0 && image.height > 0 && image.width * image.height <= data::kMostPixels, "{} x {}",
                 image.width, image.height);
  VARSCALE_CHECK(static_cast<int64_t>(image.pixels.size()) == 3 * image.width * image.height, "pixels of {} x {}",
                 image.width, image.height);
  return fmt::format("{} {}", image.width > 53 ? "wide" : "narrow", input.substr(0, 2) == "RI" ? "webp" : "other");
}

std::vector<std::string> seeds() {
  const char* source = std::getenv("VARSCALE_SOURCE");
  if (source == nullptr) throw base::UserError("VARSCALE_SOURCE is not set");
  std::vector<std::string> files;
  for (const char* name : {"rgb.png", "palette_clear.png", "bits.png", "rgb16.png", "photo.jpg", "progressive.jpg",
                           "cmyk.jpg", "broken_exif.jpg", "lossy.webp", "lossless.webp", "alpha.webp", "moving.webp"})
    files.push_back(base::read_file(std::string(source) + "/tests/fixtures/images/" + name));
  return files;
}

}  // namespace
}  // namespace varscale

int main(int argc, char** argv) {
  return varscale::fuzz::run(argc, argv,
                             {.name = "image",
                              .dictionary = {"IHDR", "IDAT", "PLTE", "tRNS", "iCCP", "eXIf", "acTL", "IEND", "RIFF",
                                             "WEBPVP8 ", "VP8L", "VP8X", "ANMF", "ALPH", "Exif", "Adobe", "\xff\xd8", "\xff\xc0",
                                             "\xff\xc2", "\xff\xda",
                                             "\xff\xee", std::string("\x7f\xff\xff\xff", 4)},
                              .seeds = varscale::seeds(),
                              .read = varscale::read});
}
