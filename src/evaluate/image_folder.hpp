// The images of a folder as they are: not resized, not cropped, all of one size.
//
//   const ImageFolder samples = ImageFolder::open("samples");
//   Tensor images_u8_B3HW = samples.batch(0, 32);
//   samples.fingerprint();                              // which images these are
//
// A folder holds image files side by side, or one folder a class with image files in it. Files come in the order of
// their names (classes first). Hidden files and files that are no images are passed over in a flat folder.
// Errors   UserError with the path: no images, images beside class folders, an unreadable image, one of another size.
// Legend   B images, H, W pixels.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace varscale::evaluate {

using at::Tensor;

class ImageFolder {
 public:
  // Lists the files and decodes the first for its size. Needs a data::VipsRuntime.
  static ImageFolder open(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const noexcept { return folder_; }
  int64_t size() const noexcept { return static_cast<int64_t>(paths_.size()); }
  int64_t width() const noexcept { return width_; }
  int64_t height() const noexcept { return height_; }
  // SHA-256 over every file's name below the folder and its size; UserError where one is gone.
  std::string fingerprint() const;

  // Images [begin, begin + count), at most to the last: uint8 [B,3,H,W].
  Tensor batch(int64_t begin, int64_t count) const;

 private:
  std::filesystem::path folder_;
  std::vector<std::filesystem::path> paths_;
  int64_t width_ = 0, height_ = 0;
};

}  // namespace varscale::evaluate
