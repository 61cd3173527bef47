#include "data/image_set.hpp"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <sstream>
#include <string_view>

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "base/random.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;
using base::UserError;

constexpr const char* kKinds = "png, jpg, jpeg or webp";

bool is_image_name(const fs::path& path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return suffix == ".png" || suffix == ".jpg" || suffix == ".jpeg" || suffix == ".webp";
}

struct Listing {
  std::vector<std::string> folders, files;  // names, sorted, without hidden ones
};

Listing list_folder(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw UserError("{}: {}, expected a folder of images", folder.string(),
                    fs::exists(folder, error) ? "is not a folder" : "does not exist");
  }
  Listing listing;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with('.')) continue;
    (it->is_directory() ? listing.folders : listing.files).push_back(name);
  }
  if (error) throw UserError("{}: cannot be listed ({})", folder.string(), error.message());
  std::sort(listing.folders.begin(), listing.folders.end());
  std::sort(listing.files.begin(), listing.files.end());
  return listing;
}

ImageEntry make_entry(const fs::path& folder, std::string name, int64_t label) {
  std::error_code error;
  const auto bytes = fs::file_size(folder / name, error);
  if (error) throw UserError("{}: cannot be read ({})", (folder / name).string(), error.message());
  return {std::move(name), label, static_cast<int64_t>(bytes), 0};
}

void number(std::vector<ImageEntry>& entries) {
  for (size_t i = 0; i < entries.size(); ++i) entries[i].source_id = static_cast<int64_t>(i);
}

// The label of a word: a class number from 0 or a class name.
int64_t read_label(std::string_view word, const std::vector<std::string>& classes,
                   const std::string& where) {
  const auto found = std::find(classes.begin(), classes.end(), word);
  if (found != classes.end()) return found - classes.begin();
  int64_t label = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), label);
  if (error == std::errc() && end == word.data() + word.size()) {
    if (label >= 0 && label < static_cast<int64_t>(classes.size())) return label;
    throw UserError("{}: label {} is out of range, expected 0 to {}", where, label,
                    classes.size() - 1);
  }
  throw UserError("{}: \"{}\" is neither a class number nor a class of the training set{}", where,
                  word, base::did_you_mean(word, classes));
}

struct LabelLine {
  std::string where;
  std::vector<std::string> words;
};

std::vector<LabelLine> read_label_lines(const fs::path& path) {
  std::vector<LabelLine> lines;
  std::istringstream text(base::read_file(path));
  int64_t line_number = 0;
  for (std::string line; std::getline(text, line);) {
    ++line_number;
    std::istringstream words(line.substr(0, line.find('#')));
    LabelLine entry{fmt::format("{}:{}", path.string(), line_number), {}};
    for (std::string word; words >> word;) entry.words.push_back(word);
    if (entry.words.empty()) continue;
    if (entry.words.size() > 2) {
      throw UserError("{}: {} words, expected a label or \"name label\"", entry.where,
                      entry.words.size());
    }
    if (!lines.empty() && lines.front().words.size() != entry.words.size()) {
      throw UserError(
          "{}: every line must have the same form, a label or \"name label\", as the first",
          entry.where);
    }
    lines.push_back(std::move(entry));
  }
  return lines;
}

}  // namespace

ImageSet ImageSet::open(const fs::path& folder, const std::vector<std::string>* classes) {
  const Listing top = list_folder(folder);
  const auto loose = std::find_if(top.files.begin(), top.files.end(), is_image_name);
  if (top.folders.empty()) {
    throw UserError("{}: {}, expected one folder a class with image files in it", folder.string(),
                    loose != top.files.end() ? "holds image files but no class folders"
                                             : "holds no class folders");
  }
  if (loose != top.files.end()) {
    throw UserError(
        "{}: holds image files ({}) beside class folders ({}), expected class folders alone",
        folder.string(), *loose, top.folders.front());
  }
  ImageSet set;
  set.folder_ = folder;
  set.class_names_ = classes != nullptr ? *classes : top.folders;
  for (const std::string& name : top.folders) {
    const auto found = std::find(set.class_names_.begin(), set.class_names_.end(), name);
    if (found == set.class_names_.end()) {
      throw UserError("{}: is not a class of the training set, which has {} classes from {} to {}",
                      (folder / name).string(), set.class_names_.size(), set.class_names_.front(),
                      set.class_names_.back());
    }
    const Listing inside = list_folder(folder / name);
    if (!inside.folders.empty()) {
      throw UserError("{}: is a folder inside a class folder, expected image files ({})",
                      (folder / name / inside.folders.front()).string(), kKinds);
    }
    if (inside.files.empty()) {
      throw UserError("{}: is empty, expected image files ({})", (folder / name).string(), kKinds);
    }
    for (const std::string& file : inside.files) {
      if (!is_image_name(file)) {
        throw UserError("{}: is not an image file, expected {}", (folder / name / file).string(),
                        kKinds);
      }
      set.entries_.push_back(
          make_entry(folder, name + '/' + file, found - set.class_names_.begin()));
    }
  }
  number(set.entries_);
  return set;
}

ImageSet ImageSet::open_flat(const fs::path& folder, const fs::path& labels,
                             const std::vector<std::string>& classes) {
  const Listing top = list_folder(folder);
  if (!top.folders.empty()) {
    throw UserError(
        "{}: holds a folder ({}), expected image files alone since a label file is given",
        folder.string(), top.folders.front());
  }
  ImageSet set;
  set.folder_ = folder;
  set.class_names_ = classes;
  std::map<std::string, size_t, std::less<>> number_of;
  for (const std::string& file : top.files) {
    if (!is_image_name(file)) {
      std::error_code error;
      if (fs::equivalent(folder / file, labels, error)) continue;
      throw UserError("{}: is not an image file, expected {}", (folder / file).string(), kKinds);
    }
    number_of.emplace(file, set.entries_.size());
    set.entries_.push_back(make_entry(folder, file, -1));
  }
  if (set.entries_.empty()) {
    throw UserError("{}: is empty, expected image files ({})", folder.string(), kKinds);
  }
  const std::vector<LabelLine> lines = read_label_lines(labels);
  if (lines.size() != set.entries_.size()) {
    throw UserError("{}: {} labels for the {} images in {}, expected one line an image",
                    labels.string(), lines.size(), set.entries_.size(), folder.string());
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    const LabelLine& line = lines[i];
    size_t image = i;
    if (line.words.size() == 2) {
      const auto found = number_of.find(line.words[0]);
      if (found == number_of.end()) {
        throw UserError("{}: no image {} in {}", line.where, line.words[0], folder.string());
      }
      image = found->second;
    }
    if (set.entries_[image].label >= 0) {
      throw UserError("{}: a second label for {}", line.where, line.words[0]);
    }
    set.entries_[image].label = read_label(line.words.back(), classes, line.where);
  }
  number(set.entries_);
  return set;
}

ImageSet ImageSet::subset(const std::vector<int64_t>& numbers) const {
  ImageSet set;
  set.folder_ = folder_;
  set.class_names_ = class_names_;
  for (int64_t i : numbers) set.entries_.push_back(entry(i));
  return set;
}

std::string ImageSet::fingerprint() const {
  base::Sha256 hash;
  const auto add = [&](const std::string& text) { hash.update(text.data(), text.size() + 1); };
  for (const std::string& name : class_names_) add(name);
  for (const ImageEntry& e : entries_) {
    add(e.name);
    add(fmt::format("{} {}", e.bytes, e.label));
  }
  return hash.hex(16);
}

SplitSets split(const ImageSet& set, double fraction, uint64_t seed) {
  if (!(fraction > 0 && fraction < 1)) {
    throw UserError("--split {}: expected a fraction above 0 and below 1", fraction);
  }
  const int64_t validation = std::max<int64_t>(1, std::llround(fraction * set.size()));
  if (validation >= set.size()) {
    throw UserError("--split {}: leaves no training images of the {} in {}", fraction, set.size(),
                    set.folder().string());
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
