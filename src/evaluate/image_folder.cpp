#include "evaluate/image_folder.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <system_error>

#include "base/error.hpp"
#include "base/file.hpp"
#include "data/image_file.hpp"
#include "data/image_set.hpp"
#include "data/image_source.hpp"
#include "data/parallel_images.hpp"

namespace varscale::evaluate {
namespace {

namespace fs = std::filesystem;
using base::UserError;

// The image files directly in a folder, by name; none where it holds class folders.
std::vector<fs::path> flat_images(const fs::path& folder) {
  const data::FolderNames names = data::names_in(folder);
  std::vector<fs::path> images;
  for (const std::string& file : names.files)
    if (data::is_image_name(file)) images.push_back(folder / file);
  if (!images.empty() && !names.folders.empty())
    throw UserError("{}: holds image files ({}) beside folders, expected image files alone or class folders alone",
                    folder.string(), images.front().filename().string());
  if (images.empty() && names.folders.empty())
    throw UserError("{}: holds no images (png, jpg, jpeg or webp)", folder.string());
  return images;
}

}  // namespace

ImageFolder ImageFolder::open(const fs::path& folder) {
  ImageFolder images;
  images.folder_ = folder;
  images.paths_ = flat_images(folder);
  if (images.paths_.empty()) {
    const data::ImageSet set = data::ImageSet::open(folder);
    for (int64_t i = 0; i < set.size(); ++i) images.paths_.emplace_back(set.where(i));
  }
  const data::RgbImage first = data::decode_rgb(images.paths_.front());
  images.width_ = first.width, images.height_ = first.height;
  return images;
}

std::string ImageFolder::fingerprint() const {
  base::Sha256 hash;
  for (const fs::path& path : paths_) {
    std::error_code error;
    const uintmax_t bytes = fs::file_size(path, error);
    if (error) throw UserError("{}: cannot be read: {}", path.string(), error.message());
    const std::string line = fmt::format("{} {}", path.lexically_relative(folder_).generic_string(), bytes);
    hash.update(line.data(), line.size() + 1);
  }
  return hash.hex();
}

Tensor ImageFolder::batch(int64_t begin, int64_t count) const {
  const int64_t images = std::min(count, size() - begin), bytes = height_ * width_ * 3;
  Tensor pixels_BHW3 = at::empty({images, height_, width_, 3}, at::kByte);
  auto* out = pixels_BHW3.mutable_data_ptr<uint8_t>();
  data::for_each_image(images, data::default_threads(), [&](int64_t i) {
    const fs::path& path = paths_[begin + i];
    const data::RgbImage image = data::decode_rgb(path);
    if (image.width != width_ || image.height != height_)
      throw UserError("{}: has {} x {} pixels, but {} has {} x {}; all images must have one size", path.string(),
                      image.width, image.height, paths_.front().string(), width_, height_);
    std::memcpy(out + i * bytes, image.pixels.data(), bytes);
  });
  return pixels_BHW3.permute({0, 3, 1, 2}).contiguous();
}

}  // namespace varscale::evaluate
