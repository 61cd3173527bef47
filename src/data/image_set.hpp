// A folder of images with labels: listed once, in an order that depends on the names alone.
//
//   ImageSet train = ImageSet::open("images/train");                        // one folder a class
//   ImageSet val = ImageSet::open("images/val", &train.class_names());      // the same classes
//   ImageSet flat = ImageSet::open_flat("val", "val.txt", train.class_names());
//
// Listing  Classes are the sub-folders in byte order of their names; files of a class likewise. Image
//          files end in .png, .jpg, .jpeg or .webp in any case. Hidden files are passed over.
// Labels   open_flat reads one line an image: either a bare label, line i for the i-th file by name, or
//          "name label". A label is a class number from 0 or a class name. '#' starts a comment.
// Errors   UserError naming the folder, the file, or the label file's line. Nothing is decoded here.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace varscale::data {

struct ImageEntry {
  std::string name;   // relative to the folder, with '/'
  int64_t label;      // 0 to classes - 1
  int64_t bytes;      // of the file
  int64_t source_id;  // number in the whole listing
};

class ImageSet {
 public:
  // A tree with one folder a class. With `classes`, its folders must be among them and labels follow
  // that list, so that a validation set may lack a class.
  static ImageSet open(const std::filesystem::path& folder,
                       const std::vector<std::string>* classes = nullptr);
  // All images side by side in one folder, labels from a text file.
  static ImageSet open_flat(const std::filesystem::path& folder,
                            const std::filesystem::path& labels,
                            const std::vector<std::string>& classes);

  int64_t size() const noexcept { return static_cast<int64_t>(entries_.size()); }
  const ImageEntry& entry(int64_t i) const { return entries_.at(i); }
  std::filesystem::path path(int64_t i) const { return folder_ / entries_.at(i).name; }
  const std::vector<std::string>& class_names() const noexcept { return class_names_; }
  const std::filesystem::path& folder() const noexcept { return folder_; }

  // The images of these numbers, in that order; source_ids stay those of the whole listing.
  ImageSet subset(const std::vector<int64_t>& numbers) const;
  // SHA-256 over class names and every image's name, size and label.
  std::string fingerprint() const;

 private:
  std::filesystem::path folder_;
  std::vector<ImageEntry> entries_;
  std::vector<std::string> class_names_;
};

struct SplitSets {
  ImageSet train, validation;
};
// Takes a random `fraction` of the images, at least one, for validation: those that
// Permutation(n, seed, "split") puts first. UserError unless both parts get images.
SplitSets split(const ImageSet& set, double fraction, uint64_t seed);

}  // namespace varscale::data
