// Where images lie and what they are: a few numbers an image and the names in one piece. Private to data.
//
//   ImageListing listing;
//   const uint32_t folder = listing.add_container("images/train", ImageListing::Kind::kFolder);
//   listing.add({.container = folder, .name = "cat/1.png", .label = 0, .bytes = 1234});
//
// Memory   32 bytes an image, and its name.
// Errors   UserError: more images than a token file holds, or one of 4 GiB.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace varscale::data {

// A name from inside an archive as it may stand in a sentence: control characters as '?', of more than 200 bytes the
// first ones.
std::string printable(std::string_view text);

class ImageListing {
 public:
  // A folder's images are files below it; an archive's are pieces of it.
  enum class Kind { kFolder, kArchive };
  struct Image {
    uint32_t container = 0;
    std::string_view name = {};  // below the folder, or in the archive
    int64_t label = 0;
    uint64_t bytes = 0, offset = 0;  // offset: in the archive
  };

  uint32_t add_container(std::filesystem::path path, Kind kind);
  void add(const Image& image);
  void set_label(int64_t i, int64_t label) { records_.at(static_cast<size_t>(i)).label = static_cast<int32_t>(label); }
  void reserve_exactly();  // gives back what growing has taken too much of

  int64_t size() const noexcept { return static_cast<int64_t>(records_.size()); }
  Image image(int64_t i) const;
  // "photos/cat/1.png"; of an archive "shard.tar: cat.png", the name printable().
  std::string where(int64_t i) const;
  // As where(), without the folder that all lie in: what fingerprints take.
  std::string name(int64_t i) const;
  // All bytes of the file. UserError if it cannot be read, or the archive has become shorter.
  std::string read(int64_t i) const;

 private:
  struct Record {
    uint64_t name_at, offset;
    uint32_t bytes, container;
    int32_t label;
  };
  struct Container {
    std::filesystem::path path;
    Kind kind;
  };
  std::vector<Container> containers_;
  std::vector<Record> records_;
  std::string names_;  // each ends with a zero byte
};

}  // namespace varscale::data
