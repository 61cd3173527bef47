#include "data/image_file.hpp"

#include <vips/vips.h>

#include <cerrno>
#include <fstream>
#include <memory>

#include "base/error.hpp"
#include "base/file.hpp"

namespace varscale::data {
namespace {

struct Unref {
  void operator()(void* object) const { g_object_unref(object); }
};
using VipsPointer = std::unique_ptr<VipsImage, Unref>;

struct GFree {
  void operator()(void* bytes) const { g_free(bytes); }
};
using VipsBytes = std::unique_ptr<void, GFree>;

// libvips keeps its messages in one buffer for all threads, so another thread's may be among them; the
// sentence therefore keeps only the first line, behind the path that we know.
[[noreturn]] void refuse(const std::filesystem::path& path) {
  std::string message = vips_error_buffer();
  vips_error_clear();
  message = message.substr(0, message.find('\n'));
  throw base::UserError("{}: not a readable image ({}); expected a complete PNG, JPEG or WebP file",
                        path.string(), message.empty() ? "unknown fault" : message);
}

}  // namespace

RgbImage decode_rgb(const std::filesystem::path& path) {
  VipsPointer image(vips_image_new_from_file(path.c_str(), "access", VIPS_ACCESS_SEQUENTIAL,
                                             "fail_on", VIPS_FAIL_ON_ERROR, nullptr));
  if (!image) refuse(path);
  VipsImage* next = nullptr;
  if (image->Type != VIPS_INTERPRETATION_sRGB || image->BandFmt != VIPS_FORMAT_UCHAR) {
    if (vips_colourspace(image.get(), &next, VIPS_INTERPRETATION_sRGB, nullptr) != 0) refuse(path);
    image.reset(next);
  }
  if (image->Bands > 3) {
    if (vips_extract_band(image.get(), &next, 0, "n", 3, nullptr) != 0) refuse(path);
    image.reset(next);
  }
  if (image->Bands != 3 || image->BandFmt != VIPS_FORMAT_UCHAR) {
    throw base::UserError("{}: has {} colour channels after decoding, expected 3", path.string(),
                          image->Bands);
  }
  size_t bytes = 0;
  const VipsBytes pixels(vips_image_write_to_memory(image.get(), &bytes));
  if (!pixels) refuse(path);
  const auto* begin = static_cast<const uint8_t*>(pixels.get());
  return {image->Xsize, image->Ysize, std::vector<uint8_t>(begin, begin + bytes)};
}

void write_png_file(const std::filesystem::path& path, const uint8_t* pixels, int64_t width,
                    int64_t height, Durability durability) {
  const VipsPointer image(
      vips_image_new_from_memory(pixels, width * height * 3, static_cast<int>(width),
                                 static_cast<int>(height), 3, VIPS_FORMAT_UCHAR));
  VARSCALE_CHECK(image != nullptr, "{}", vips_error_buffer());
  image->Type = VIPS_INTERPRETATION_sRGB;
  void* raw = nullptr;
  size_t bytes = 0;
  const int rc = vips_pngsave_buffer(image.get(), &raw, &bytes, "compression", 6, nullptr);
  const VipsBytes png(raw);
  VARSCALE_CHECK(rc == 0, "{}", vips_error_buffer());
  const std::string_view text(static_cast<const char*>(raw), bytes);
  if (durability == Durability::kAtomic) {
    base::write_file_atomic(path, text);
    return;
  }
  std::ofstream file(path, std::ios::binary);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  if (!file) throw base::SystemError("writing " + path.string(), errno);
}

}  // namespace varscale::data
