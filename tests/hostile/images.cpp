// JPEG, PNG and WebP files: their parts lie, with checksums right where the format has them.
#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>

#include "tests/hostile/generator.hpp"

namespace varscale::hostile {
namespace {

using namespace std::string_literals;

constexpr uint32_t kSides[] = {0, 1, 2, 53, 4000, 13'377, 65'535, 200'000, 0x7fffffff, 0x80000000, 0xffffffff};

// --- PNG: a signature, then chunks of length, type, contents and checksum
struct Chunk {
  std::string type, contents;
};

constexpr std::string_view kSignature = "\x89PNG\r\n\x1a\n";

std::vector<Chunk> chunks_of(const std::string& png) {
  std::vector<Chunk> chunks;
  for (size_t at = kSignature.size(); at + 12 <= png.size();) {
    const size_t length = number_at(png, at, 4, /*big_endian=*/true);
    chunks.push_back({png.substr(at + 4, 4), png.substr(at + 8, length)});
    at += 12 + length;
  }
  return chunks;
}

std::string big_endian(uint64_t value) {
  std::string bytes(4, '\0');
  put_number(bytes, 0, value, 4, true);
  return bytes;
}

std::string png_of(const std::vector<Chunk>& chunks) {
  std::string png(kSignature);
  for (const Chunk& chunk : chunks) {
    const std::string summed = chunk.type + chunk.contents;
    png += big_endian(chunk.contents.size()) + summed +
           big_endian(crc32(0, reinterpret_cast<const Bytef*>(summed.data()), static_cast<uInt>(summed.size())));
  }
  return png;
}

std::string deflated(const std::string& bytes) {
  uLongf size = compressBound(bytes.size());
  std::string out(size, '\0');
  compress2(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size(), 1);
  out.resize(size);
  return out;
}

std::string chunk_lie(const Original& original, Chance& chance) {
  std::vector<Chunk> chunks = chunks_of(original.bytes);
  const size_t at = chance.below(chunks.size()), other = chance.below(chunks.size());
  switch (chance.below(6)) {
    case 0: chunks.erase(chunks.begin() + static_cast<std::ptrdiff_t>(at)); break;
    case 1: chunks.insert(chunks.begin() + static_cast<std::ptrdiff_t>(at), chunks[other]); break;
    case 2: std::swap(chunks[at], chunks[other]); break;
    case 3: chunks[at].contents.resize(chance.below(2 * chunks[at].contents.size() + 8)); break;
    case 4: chunks[at].type[chance.below(4)] = chance.byte(); break;
    default:
      for (uint64_t i = 0, count = 1 + chance.below(4); i < count && !chunks[at].contents.empty(); ++i)
        chunks[at].contents[chance.below(chunks[at].contents.size())] = chance.byte();
      break;
  }
  return png_of(chunks);
}

std::string png_size_lie(const Original& original, Chance& chance) {
  std::vector<Chunk> chunks = chunks_of(original.bytes);
  std::string& header = chunks[0].contents;
  switch (chance.below(3)) {
    case 0: put_number(header, 4 * chance.below(2), chance.of(kSides), 4, true); break;
    case 1:
      for (const size_t at : {0, 4}) put_number(header, at, chance.of(kSides), 4, true);
      break;
    default: header[8 + chance.below(5)] = static_cast<char>(chance.below(20)); break;  // depth, colours, interlace
  }
  return png_of(chunks);
}

std::string png_bomb(const Original& original, Chance& chance) {
  static const std::string kZeros = deflated(std::string(100'000'000, '\0'));
  std::vector<Chunk> chunks = chunks_of(original.bytes);
  switch (chance.below(4)) {
    case 0:    // 5773 x 5773 black pixels in 440 KB, honestly said: they are read
    case 1: {  // so many more that the picture is above the limit
      const uint64_t side = chance.below(2) == 0 ? 5773 : 13'400;
      Chunk header = chunks[0];
      for (const size_t at : {0, 4}) put_number(header.contents, at, side, 4, true);
      header.contents.replace(8, 5, "\x08\x02\0\0\0"s);
      return png_of({header, {"IDAT", kZeros}, {"IEND", ""}});
    }
    case 2: {  // far more than the picture takes
      for (Chunk& chunk : chunks)
        if (chunk.type == "IDAT") chunk.contents = kZeros;
      return png_of(chunks);
    }
    default: {  // in a text or a profile beside it
      const std::string keys[] = {"zTXt", "iCCP", "iTXt"};
      const std::string type = chance.of(keys);
      const std::string front = type == "iTXt" ? "k\0\1\0\0\0"s : "k\0\0"s;
      chunks.insert(chunks.begin() + 1, {type, front + kZeros});
      return png_of(chunks);
    }
  }
}

// --- JPEG: segments of marker, length and contents, up to the scan
struct Segment {
  char marker;
  std::string contents;
};

struct Jpeg {
  std::vector<Segment> segments;
  std::string scans;  // from the first start of scan on
};

Jpeg parts_of(const std::string& jpeg) {
  Jpeg parts;
  size_t at = 2;
  while (jpeg.at(at + 1) != '\xda') {
    const size_t length = number_at(jpeg, at + 2, 2, true);
    parts.segments.push_back({jpeg[at + 1], jpeg.substr(at + 4, length - 2)});
    at += 2 + length;
  }
  parts.scans = jpeg.substr(at);
  return parts;
}

std::string jpeg_of(const Jpeg& parts) {
  std::string jpeg = "\xff\xd8";
  for (const Segment& segment : parts.segments)
    jpeg += "\xff"s + segment.marker + big_endian(segment.contents.size() + 2).substr(2) + segment.contents;
  return jpeg + parts.scans;
}

std::string segment_lie(const Original& original, Chance& chance) {
  Jpeg parts = parts_of(original.bytes);
  auto& segments = parts.segments;
  const size_t at = chance.below(segments.size()), other = chance.below(segments.size());
  switch (chance.below(6)) {
    case 0: segments.erase(segments.begin() + static_cast<std::ptrdiff_t>(at)); break;
    case 1: segments.insert(segments.begin() + static_cast<std::ptrdiff_t>(at), segments[other]); break;
    case 2: std::swap(segments[at], segments[other]); break;
    case 3: segments[at].contents.resize(chance.below(2 * segments[at].contents.size() + 8)); break;
    case 4: segments[at].marker = static_cast<char>(0xc0 + chance.below(0x40)); break;
    default:
      for (uint64_t i = 0, count = 1 + chance.below(4); i < count && !segments[at].contents.empty(); ++i)
        segments[at].contents[chance.below(segments[at].contents.size())] = chance.byte();
      break;
  }
  return jpeg_of(parts);
}

std::string frame_lie(const Original& original, Chance& chance) {
  Jpeg parts = parts_of(original.bytes);
  for (Segment& segment : parts.segments) {
    const auto code = static_cast<unsigned char>(segment.marker);
    if (code < 0xc0 || code > 0xc2) continue;
    switch (chance.below(4)) {
      case 0: put_number(segment.contents, 1 + 2 * chance.below(2), chance.of(kSides), 2, true); break;
      case 1:
        for (const size_t at : {1, 3}) put_number(segment.contents, at, chance.of(kSides), 2, true);
        break;
      case 2: segment.contents[0] = static_cast<char>(chance.below(17)); break;       // bits a sample
      default: segment.contents[5 + chance.below(4)] = static_cast<char>(chance.byte()); break;  // components, sampling
    }
  }
  return jpeg_of(parts);
}

// A picture whose scans come again and again, each of which is work for the whole of it.
std::string scan_bomb(const Original& original, Chance& chance) {
  Jpeg parts = parts_of(original.bytes);
  const std::string once = parts.scans.substr(0, parts.scans.size() - 2), end = "\xff\xd9";
  parts.scans.clear();
  for (uint64_t i = 0, count = 2 + chance.below(1000); i < count; ++i) parts.scans += once;
  parts.scans += end;
  if (chance.below(2) == 0) {
    for (Segment& segment : parts.segments)
      if (segment.marker == '\xc2' || segment.marker == '\xc0')
        for (const size_t at : {1, 3}) put_number(segment.contents, at, 3000, 2, true);
  }
  return jpeg_of(parts);
}

// --- WebP: RIFF chunks, little-endian
std::string webp_size_lie(const Original& original, Chance& chance) {
  std::string webp = original.bytes;
  const size_t at = chance.below(2) == 0 ? 4 : 16;
  switch (chance.below(3)) {
    case 0: put_number(webp, at, edge(chance, number_at(webp, at, 4)), 4); break;  // of the file, of a chunk
    case 1: put_number(webp, 20 + chance.below(14), chance.of(kSides), 1 + chance.below(4)); break;  // of the picture
    default: webp.replace(12, 4, chance.below(2) == 0 ? "VP8X" : "ALPH"); break;
  }
  return webp;
}

std::vector<Original> images(const std::vector<const char*>& names, bool has_sums) {
  std::vector<Original> originals;
  for (const char* name : names) originals.push_back({name, fixture("images/"s + name), has_sums});
  return originals;
}

}  // namespace

Format png_files() {
  Format format{".png", images({"rgb.png", "rgb16.png", "palette_clear.png", "grey_alpha.png", "bits.png"}, true), {}};
  format.kinds = common_kinds(format.originals);
  format.kinds.push_back({"chunks", true, chunk_lie});
  format.kinds.push_back({"sizes", true, png_size_lie});
  format.kinds.push_back({"bombs", true, png_bomb});
  return format;
}

Format jpg_files() {
  Format format{".jpg", images({"photo.jpg", "progressive.jpg", "cmyk.jpg", "turned.jpg"}, false), {}};
  format.kinds = common_kinds(format.originals);
  format.kinds.push_back({"segments", true, segment_lie});
  format.kinds.push_back({"sizes", true, frame_lie});
  format.kinds.push_back({"bombs", true, scan_bomb});
  return format;
}

Format webp_files() {
  Format format{".webp", images({"lossless.webp", "moving.webp", "lossy.webp", "alpha.webp"}, false), {}};
  format.kinds = common_kinds(format.originals);
  format.kinds.push_back({"sizes", true, webp_size_lie});
  return format;
}

}  // namespace varscale::hostile
