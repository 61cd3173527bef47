#include <algorithm>
#include <cctype>
#include <charconv>
#include <map>
#include <sstream>

#include "base/config.hpp"
#include "base/error.hpp"
#include "base/file.hpp"
#include "data/image_source.hpp"

namespace varscale::data {

namespace fs = std::filesystem;
using base::UserError;

bool is_image_name(const fs::path& path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return suffix == ".png" || suffix == ".jpg" || suffix == ".jpeg" || suffix == ".webp";
}

FolderNames names_in(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    throw UserError("{}: {}, expected a folder of images", folder.string(),
                    fs::exists(folder, error) ? "is not a folder" : "does not exist");
  }
  FolderNames names;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    std::string name = it->path().filename().string();
    if (name.starts_with('.')) continue;
    (it->is_directory() ? names.folders : names.files).push_back(std::move(name));
  }
  if (error) throw UserError("{}: cannot be listed ({})", folder.string(), error.message());
  std::sort(names.folders.begin(), names.folders.end());
  std::sort(names.files.begin(), names.files.end());
  return names;
}

int64_t read_label(std::string_view word, const std::vector<std::string>& classes, const std::string& where) {
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

namespace {

uint64_t size_of(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error) throw UserError("{}: cannot be read ({})", path.string(), error.message());
  return bytes;
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

ListedImages list_class_folders(const fs::path& folder, KnownClasses classes) {
  const FolderNames top = names_in(folder);
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
  ListedImages images;
  images.class_names = classes != nullptr ? *classes : top.folders;
  const std::vector<std::string>& known = images.class_names;
  const uint32_t container = images.listing.add_container(folder, ImageListing::Kind::kFolder);
  for (const std::string& name : top.folders) {
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end()) {
      throw UserError("{}: is not a class of the training set, which has {} classes from {} to {}",
                      (folder / name).string(), known.size(), known.front(), known.back());
    }
    const FolderNames inside = names_in(folder / name);
    if (!inside.folders.empty()) {
      throw UserError("{}: is a folder inside a class folder, expected image files ({})",
                      (folder / name / inside.folders.front()).string(), kImageKinds);
    }
    if (inside.files.empty()) {
      throw UserError("{}: is empty, expected image files ({})", (folder / name).string(), kImageKinds);
    }
    for (const std::string& file : inside.files) {
      if (!is_image_name(file)) {
        throw UserError("{}: is not an image file, expected {}", (folder / name / file).string(),
                        kImageKinds);
      }
      images.listing.add({.container = container,
                          .name = name + '/' + file,
                          .label = found - known.begin(),
                          .bytes = size_of(folder / name / file)});
    }
  }
  return images;
}

ListedImages list_flat_folder(const fs::path& folder, const fs::path& labels,
                              const std::vector<std::string>& classes) {
  const FolderNames top = names_in(folder);
  if (!top.folders.empty()) {
    throw UserError(
        "{}: holds a folder ({}), expected image files alone since a label file is given",
        folder.string(), top.folders.front());
  }
  ListedImages images;
  images.class_names = classes;
  ImageListing& listing = images.listing;
  const uint32_t container = listing.add_container(folder, ImageListing::Kind::kFolder);
  std::map<std::string, int64_t, std::less<>> number_of;
  for (const std::string& file : top.files) {
    if (!is_image_name(file)) {
      std::error_code error;
      if (fs::equivalent(folder / file, labels, error)) continue;
      throw UserError("{}: is not an image file, expected {}", (folder / file).string(), kImageKinds);
    }
    number_of.emplace(file, listing.size());
    listing.add({.container = container, .name = file, .label = -1, .bytes = size_of(folder / file)});
  }
  if (listing.size() == 0) {
    throw UserError("{}: is empty, expected image files ({})", folder.string(), kImageKinds);
  }
  const std::vector<LabelLine> lines = read_label_lines(labels);
  if (static_cast<int64_t>(lines.size()) != listing.size()) {
    throw UserError("{}: {} labels for the {} images in {}, expected one line an image",
                    labels.string(), lines.size(), listing.size(), folder.string());
  }
  for (size_t i = 0; i < lines.size(); ++i) {
    const LabelLine& line = lines[i];
    auto image = static_cast<int64_t>(i);
    if (line.words.size() == 2) {
      const auto found = number_of.find(line.words[0]);
      if (found == number_of.end()) {
        throw UserError("{}: no image {} in {}", line.where, line.words[0], folder.string());
      }
      image = found->second;
    }
    if (listing.image(image).label >= 0) {
      throw UserError("{}: a second label for {}", line.where, line.words[0]);
    }
    listing.set_label(image, read_label(line.words.back(), classes, line.where));
  }
  return images;
}

}  // namespace varscale::data
