#include "data/image_file.hpp"

#include <vips/vips.h>

#include <algorithm>
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
// sentence therefore keeps only the first line, behind the name that we know.
[[noreturn]] void refuse(const std::string& where) {
  std::string message = vips_error_buffer();
  vips_error_clear();
  message = message.substr(0, message.find('\n'));
  throw base::UserError("{}: not a readable image ({}); expected a complete PNG, JPEG or WebP file", where,
                        message.empty() ? "unknown fault" : message);
}

using Loader = int (*)(void* bytes, size_t size, VipsImage** out, ...);

// By the bytes, as Pillow: a JPEG that is called .png is one all the same. Other formats that libvips knows are
// not tried.
Loader loader_of(std::string_view bytes) {
  using namespace std::string_view_literals;
  if (bytes.starts_with("\x89PNG\r\n\x1a\n"sv)) return &vips_pngload_buffer;
  if (bytes.starts_with("\xff\xd8\xff"sv)) return &vips_jpegload_buffer;
  if (bytes.starts_with("RIFF"sv) && bytes.substr(0, 12).ends_with("WEBP"sv)) return &vips_webpload_buffer;
  return nullptr;
}

VipsPointer open_image(std::string_view bytes, const std::string& where) {
  const Loader load = loader_of(bytes);
  if (load == nullptr)
    throw base::UserError("{}: not a readable image ({}); expected a complete PNG, JPEG or WebP file", where,
                          bytes.empty() ? "no bytes" : "of another format");
  VipsImage* image = nullptr;
  if (load(const_cast<char*>(bytes.data()), bytes.size(), &image, "access", VIPS_ACCESS_SEQUENTIAL, "fail_on",
           VIPS_FAIL_ON_ERROR, nullptr) != 0)
    refuse(where);
  VipsPointer opened(image);
  const int64_t pixels = static_cast<int64_t>(image->Xsize) * image->Ysize;
  if (pixels > kMostPixels)
    throw base::UserError("{}: has {} x {} pixels, expected at most {} in all", where, image->Xsize, image->Ysize,
                          kMostPixels);
  if (std::max(image->Xsize, image->Ysize) > kMostElongated * std::min(image->Xsize, image->Ysize))
    throw base::UserError("{}: has {} x {} pixels, expected a longer side of at most {} times the shorter one", where,
                          image->Xsize, image->Ysize, kMostElongated);
  return opened;
}

// a b / 255, rounded, for bytes.
int multiplied(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

// Pixels of 8 or 16 bits (then in the machine's order) with `bands` values each, to RGB.
template <class Value>
std::vector<uint8_t> to_rgb(const void* from, int64_t pixels, int bands) {
  const auto* in = static_cast<const Value*>(from);
  std::vector<uint8_t> out(static_cast<size_t>(pixels) * 3);
  // Pillow takes the upper byte, but cuts off 16-bit grey without alpha at 255.
  const bool cuts = sizeof(Value) == 2 && bands == 1;
  const auto byte = [&](Value value) {
    return static_cast<uint8_t>(cuts ? std::min<int>(value, 255) : value >> (8 * sizeof(Value) - 8));
  };
  const int step = bands < 3 ? 0 : 1;  // grey, with or without alpha
  for (int64_t i = 0; i < pixels; ++i, in += bands)
    for (int c = 0; c < 3; ++c) out[static_cast<size_t>(3 * i + c)] = byte(in[c * step]);
  return out;
}

// libvips has turned the values over by then, as Adobe writes them; so does Pillow, with or without Adobe's marker.
std::vector<uint8_t> cmyk_to_rgb(const void* from, int64_t pixels) {
  const auto* in = static_cast<const uint8_t*>(from);
  std::vector<uint8_t> out(static_cast<size_t>(pixels) * 3);
  for (int64_t i = 0; i < pixels; ++i, in += 4) {
    const int light = 255 - in[3];
    for (int c = 0; c < 3; ++c)
      out[static_cast<size_t>(3 * i + c)] = static_cast<uint8_t>(light - multiplied(in[c], light));
  }
  return out;
}

}  // namespace

RgbImage decode_rgb(std::string_view bytes, const std::string& where) {
  const VipsPointer image = open_image(bytes, where);
  size_t size = 0;
  const VipsBytes values(vips_image_write_to_memory(image.get(), &size));
  if (!values) refuse(where);
  const int64_t pixels = static_cast<int64_t>(image->Xsize) * image->Ysize;
  RgbImage rgb{image->Xsize, image->Ysize, {}};
  if (image->Type == VIPS_INTERPRETATION_CMYK && image->Bands == 4 && image->BandFmt == VIPS_FORMAT_UCHAR)
    rgb.pixels = cmyk_to_rgb(values.get(), pixels);
  else if (image->BandFmt == VIPS_FORMAT_UCHAR && image->Bands <= 4)
    rgb.pixels = to_rgb<uint8_t>(values.get(), pixels, image->Bands);
  else if (image->BandFmt == VIPS_FORMAT_USHORT && image->Bands <= 4)
    rgb.pixels = to_rgb<uint16_t>(values.get(), pixels, image->Bands);
  else
    throw base::UserError("{}: has {} channels of an unusual kind, expected RGB, grey or CMYK", where, image->Bands);
  return rgb;
}

RgbImage decode_rgb(const std::filesystem::path& path) { return decode_rgb(base::read_file(path), path.string()); }

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
