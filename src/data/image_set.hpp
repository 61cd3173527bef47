// Images with labels, from folders, tar archives or a list: listed once, in an order that depends on the source alone.
//
//   ImageSet train = ImageSet::open("images/train");                        // one folder a class
//   ImageSet val = ImageSet::open("images/val", &train.class_names());      // the same classes
//   ImageSet tars = ImageSet::open("shards/train-{000000..000099}.tar");
//   ImageSet list = ImageSet::open("train.txt");
//   ImageSet flat = ImageSet::open_flat("val", "val.txt", train.class_names());
//
// Folders  Classes are the sub-folders in byte order of their names; files of a class likewise. Image
//          files end in .png, .jpg, .jpeg or .webp in any case. Hidden files are passed over.
// Tars     One file, all *.tar of a folder by name, or numbered files in braces. A sample is a run of members
//          <key>.<extension> with one key, which ends at the first dot of the file's name, as in WebDataset: one
//          image, and its class number in <key>.cls, else as "label" in <key>.json, else in <key>.txt. Other
//          members are passed over.
// Lists    One line an image: its path, relative to the list's folder, and its label behind a tab (or the last
//          blank). A line that begins with '#' is a comment.
// Classes  Those of a list or of tars are 0 to the largest label, or, where a list has names, the names in byte order.
// Labels   open_flat reads one line an image: either a bare label, line i for the i-th file by name, or
//          "name label". A label is a class number from 0 or a class name. '#' starts a comment.
// Memory   32 bytes an image, its name, and 4 bytes an image of a subset. Nothing is decoded here.
// Errors   UserError naming the folder, the file, the archive's byte, or the list's line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace varscale::data {

class ImageListing;

struct ImageEntry {
  std::string name;   // relative to the folder, with '/'; of an archive "shard.tar: key.jpg"
  int64_t label;      // 0 to classes - 1
  int64_t bytes;      // of the file
  int64_t source_id;  // number in the whole listing
};

class ImageSet {
 public:
  // A tree with one folder a class, tar archives or a list. With `classes`, folders must be among them and labels
  // follow that list, so that a validation set may lack a class.
  static ImageSet open(const std::filesystem::path& source,
                       const std::vector<std::string>* classes = nullptr);
  // All images side by side in one folder, labels from a text file.
  static ImageSet open_flat(const std::filesystem::path& folder,
                            const std::filesystem::path& labels,
                            const std::vector<std::string>& classes);

  int64_t size() const noexcept;
  ImageEntry entry(int64_t i) const;
  int64_t label(int64_t i) const;
  int64_t source_id(int64_t i) const;
  std::string where(int64_t i) const;       // for sentences: the path, or the archive and the member
  std::string read(int64_t i) const;        // the image file's bytes; any thread
  const std::vector<std::string>& class_names() const noexcept { return class_names_; }
  const std::filesystem::path& source() const noexcept { return source_; }  // as it was given

  // The images of these numbers, in that order; source_ids stay those of the whole listing.
  ImageSet subset(const std::vector<int64_t>& numbers) const;
  // SHA-256 over class names and every image's name, size and label.
  std::string fingerprint() const;

 private:
  std::filesystem::path source_;
  std::shared_ptr<const ImageListing> listing_;
  std::optional<std::vector<uint32_t>> chosen_;  // numbers in the listing; without: all
  std::vector<std::string> class_names_;
};

struct SplitSets {
  ImageSet train, validation;
};
// Takes a random `fraction` of the images, at least one, for validation: those that
// Permutation(n, seed, "split") puts first. UserError unless both parts get images.
SplitSets split(const ImageSet& set, double fraction, uint64_t seed);

}  // namespace varscale::data
