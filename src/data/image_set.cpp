#include "data/image_set.hpp"

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/random.hpp"
#include "data/image_source.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;
using base::UserError;

bool is_tar_name(const fs::path& path) { return path.extension() == ".tar"; }

// The archives that the user means: by braces, alone, or those of a folder; nullopt: none of these.
std::optional<std::vector<fs::path>> archives_of(const fs::path& source) {
  std::error_code error;
  if (fs::is_directory(source, error)) {
    const FolderNames names = names_in(source);
    std::vector<fs::path> archives;
    for (const std::string& name : names.files)
      if (is_tar_name(name)) archives.push_back(source / name);
    if (archives.empty()) return std::nullopt;
    if (!names.folders.empty())
      throw UserError("{}: holds archives ({}) beside folders ({}), expected one or the other", source.string(),
                      archives.front().filename().string(), names.folders.front());
    return archives;
  }
  if (!fs::exists(source, error)) {
    if (auto archives = expand_braces(source)) return archives;
    return std::nullopt;
  }
  const std::string name = source.filename().string();
  for (const char* ending : {".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"})
    if (name.ends_with(ending)) return std::vector<fs::path>{source};  // compressed ones are refused as they are read
  return std::nullopt;
}

ListedImages list(const fs::path& source, KnownClasses classes) {
  if (const auto archives = archives_of(source)) return list_archives(*archives, classes);
  std::error_code error;
  if (fs::is_regular_file(source, error)) return list_list_file(source, classes);
  if (!fs::exists(source, error))
    throw UserError("{}: does not exist, expected a folder of images, tar archives or a list of images",
                    source.string());
  return list_class_folders(source, classes);
}

}  // namespace

ImageSet ImageSet::open(const fs::path& source, const std::vector<std::string>* classes) {
  ListedImages images = list(source, classes);
  images.listing.reserve_exactly();
  ImageSet set;
  set.source_ = source;
  set.listing_ = std::make_shared<const ImageListing>(std::move(images.listing));
  set.class_names_ = std::move(images.class_names);
  return set;
}

ImageSet ImageSet::open_flat(const fs::path& folder, const fs::path& labels,
                             const std::vector<std::string>& classes) {
  ListedImages images = list_flat_folder(folder, labels, classes);
  ImageSet set;
  set.source_ = folder;
  set.listing_ = std::make_shared<const ImageListing>(std::move(images.listing));
  set.class_names_ = classes;
  return set;
}

int64_t ImageSet::size() const noexcept {
  if (chosen_) return static_cast<int64_t>(chosen_->size());
  return listing_ ? listing_->size() : 0;
}

int64_t ImageSet::source_id(int64_t i) const {
  VARSCALE_CHECK(i >= 0 && i < size(), "image {} of {}", i, size());
  return chosen_ ? static_cast<int64_t>((*chosen_)[static_cast<size_t>(i)]) : i;
}

ImageEntry ImageSet::entry(int64_t i) const {
  const int64_t source = source_id(i);
  const ImageListing::Image image = listing_->image(source);
  return {listing_->name(source), image.label, static_cast<int64_t>(image.bytes), source};
}

int64_t ImageSet::label(int64_t i) const { return listing_->image(source_id(i)).label; }
std::string ImageSet::where(int64_t i) const { return listing_->where(source_id(i)); }
std::string ImageSet::read(int64_t i) const { return listing_->read(source_id(i)); }

ImageSet ImageSet::subset(const std::vector<int64_t>& numbers) const {
  ImageSet set = *this;
  std::vector<uint32_t> chosen;
  chosen.reserve(numbers.size());
  for (const int64_t i : numbers) chosen.push_back(static_cast<uint32_t>(source_id(i)));
  set.chosen_ = std::move(chosen);
  return set;
}

std::string ImageSet::fingerprint() const {
  base::Sha256 hash;
  const auto add = [&](const std::string& text) { hash.update(text.data(), text.size() + 1); };
  for (const std::string& name : class_names_) add(name);
  for (int64_t i = 0; i < size(); ++i) {
    const ImageEntry e = entry(i);
    add(e.name);
    add(fmt::format("{} {}", e.bytes, e.label));
  }
  return hash.hex(16);
}

SplitSets split(const ImageSet& set, double fraction, uint64_t seed) {
  if (!(fraction > 0 && fraction < 1)) {
    throw UserError("--split {}: expected a fraction above 0 and below 1", fraction);
  }
  const int64_t validation = std::max<int64_t>(1, std::llround(fraction * static_cast<double>(set.size())));
  if (validation >= set.size()) {
    throw UserError("--split {}: leaves no training images of the {} in {}", fraction, set.size(),
                    set.source().string());
  }
  const base::Permutation order(set.size(), seed, "split");
  std::vector<bool> chosen(set.size());
  for (int64_t i = 0; i < validation; ++i) chosen[order(i)] = true;
  std::vector<int64_t> train_numbers, validation_numbers;
  for (int64_t i = 0; i < set.size(); ++i)
    (chosen[i] ? validation_numbers : train_numbers).push_back(i);
  return {set.subset(train_numbers), set.subset(validation_numbers)};
}

}  // namespace varscale::data
