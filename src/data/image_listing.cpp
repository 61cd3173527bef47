#include "data/image_listing.hpp"

#include <algorithm>
#include <limits>

#include "base/error.hpp"
#include "base/file.hpp"
#include "data/tar_reader.hpp"

namespace varscale::data {

using base::UserError;

std::string printable(std::string_view text) {
  constexpr size_t kMost = 200;
  std::string line(text.substr(0, kMost));
  std::replace_if(line.begin(), line.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return text.size() > kMost ? line + "..." : line;
}

uint32_t ImageListing::add_container(std::filesystem::path path, Kind kind) {
  containers_.push_back({std::move(path), kind});
  return static_cast<uint32_t>(containers_.size() - 1);
}

void ImageListing::add(const Image& image) {
  constexpr uint64_t kMost = std::numeric_limits<uint32_t>::max();
  const std::filesystem::path& container = containers_.at(image.container).path;
  if (image.bytes > kMost)
    throw UserError("{}: {} has {} bytes, expected less than 4 GiB", container.string(), printable(image.name),
                    image.bytes);
  if (records_.size() >= kMost) throw UserError("{}: more than {} images", container.string(), kMost);
  VARSCALE_CHECK(image.label >= -1 && image.label <= std::numeric_limits<int32_t>::max(), "label {}", image.label);
  records_.push_back({names_.size(), image.offset, static_cast<uint32_t>(image.bytes), image.container,
                      static_cast<int32_t>(image.label)});
  names_.append(image.name.substr(0, image.name.find('\0'))).push_back('\0');
}

void ImageListing::reserve_exactly() {
  records_.shrink_to_fit();
  names_.shrink_to_fit();
}

ImageListing::Image ImageListing::image(int64_t i) const {
  const Record& record = records_.at(static_cast<size_t>(i));
  return {record.container, std::string_view(names_.c_str() + record.name_at), record.label, record.bytes,
          record.offset};
}

std::string ImageListing::where(int64_t i) const {
  const Image it = image(i);
  const Container& in = containers_[it.container];
  return in.kind == Kind::kFolder ? (in.path / it.name).string()
                                  : fmt::format("{}: {}", in.path.string(), printable(it.name));
}

std::string ImageListing::name(int64_t i) const {
  const Image it = image(i);
  const Container& in = containers_[it.container];
  return in.kind == Kind::kFolder ? std::string(it.name)
                                  : fmt::format("{}: {}", in.path.filename().string(), it.name);
}

std::string ImageListing::read(int64_t i) const {
  const Image it = image(i);
  const Container& in = containers_[it.container];
  if (in.kind == Kind::kFolder) return base::read_file(in.path / it.name);
  std::string bytes = RandomFile(in.path).read(it.offset, it.bytes);
  if (bytes.size() < it.bytes)
    throw UserError("{}: {} has {} bytes from byte {} on, but the file now ends before; it has changed",
                    in.path.string(), printable(it.name), it.bytes, it.offset);
  return bytes;
}

}  // namespace varscale::data
