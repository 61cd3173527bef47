#include <algorithm>
#include <charconv>
#include <fstream>
#include <map>
#include <set>

#include "base/error.hpp"
#include "data/image_source.hpp"

namespace varscale::data {

namespace fs = std::filesystem;
using base::UserError;

namespace {

struct Line {
  std::string_view path, label;
};

// A path may have blanks; a tab, or else the last blank, is what ends it.
std::optional<Line> read_line(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  const size_t tab = text.rfind('\t');
  const size_t end = tab != std::string_view::npos ? tab : text.rfind(' ');
  if (end == std::string_view::npos || end == 0) return std::nullopt;
  Line line{text.substr(0, end), text.substr(end + 1)};
  while (!line.path.empty() && blank(line.path.back())) line.path.remove_suffix(1);
  while (!line.label.empty() && blank(line.label.front())) line.label.remove_prefix(1);
  if (line.path.empty() || line.label.empty()) return std::nullopt;
  return line;
}

std::optional<int64_t> class_number(std::string_view word) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  if (error != std::errc() || end != word.data() + word.size() || number < 0) return std::nullopt;
  return number;
}

// Labels of a list that brings its own classes: words as they come, numbered at the end.
class OwnClasses {
 public:
  int64_t number_of(std::string_view word, const std::string& where) {
    if (const auto number = class_number(word)) {
      check_class_number(*number, where);
      largest_ = std::max(largest_, *number);
    } else {
      numbers_alone_ = false;
    }
    const auto [found, is_new] = numbers_.emplace(std::string(word), static_cast<int64_t>(numbers_.size()));
    return found->second;
  }

  // Gives the images the numbers of their classes; returns the names.
  std::vector<std::string> settle(ImageListing& listing) const {
    std::vector<std::string> names;
    if (numbers_alone_)
      names = numbered_classes(largest_);
    else
      for (const auto& [word, number] : numbers_) names.push_back(word);
    std::vector<int64_t> label_of(numbers_.size());
    int64_t place = 0;
    for (const auto& [word, number] : numbers_)
      label_of[static_cast<size_t>(number)] = numbers_alone_ ? *class_number(word) : place++;
    for (int64_t i = 0; i < listing.size(); ++i)
      listing.set_label(i, label_of[static_cast<size_t>(listing.image(i).label)]);
    return names;
  }

 private:
  std::map<std::string, int64_t> numbers_;  // of words, in the order of their coming
  bool numbers_alone_ = true;
  int64_t largest_ = 0;
};

}  // namespace

ListedImages list_list_file(const fs::path& list, KnownClasses classes) {
  std::ifstream file(list, std::ios::binary);
  if (!file) throw UserError("{}: cannot be read", list.string());
  ListedImages images;
  const fs::path folder = list.has_parent_path() ? list.parent_path() : fs::path(".");
  const uint32_t container = images.listing.add_container(folder, ImageListing::Kind::kFolder);
  OwnClasses own;
  int64_t line_number = 0;
  for (std::string text; std::getline(file, text);) {
    const std::string where = fmt::format("{}:{}", list.string(), ++line_number);
    if (text.find_first_not_of(" \t\r") == std::string::npos || text.front() == '#') continue;
    if (text.find('\0') != std::string::npos)
      throw UserError("{}: holds a zero byte; expected a text file with \"path label\" on each line", where);
    const auto line = read_line(text);
    if (!line) throw UserError("{}: \"{}\", expected \"path label\"", where, text.substr(0, 80));
    if (!is_image_name(line->path))
      throw UserError("{}: {} is not an image file, expected {}", where, line->path, kImageKinds);
    std::error_code error;
    const fs::path path = folder / line->path;
    const auto bytes = fs::file_size(path, error);
    if (error) throw UserError("{}: {} cannot be read ({})", where, path.string(), error.message());
    const int64_t label =
        classes != nullptr ? read_label(line->label, *classes, where) : own.number_of(line->label, where);
    images.listing.add({.container = container, .name = line->path, .label = label, .bytes = bytes});
  }
  if (file.bad()) throw UserError("{}: cannot be read in full", list.string());
  if (images.listing.size() == 0)
    throw UserError("{}: names no image, expected \"path label\" on each line", list.string());
  images.class_names = classes != nullptr ? *classes : own.settle(images.listing);
  return images;
}

}  // namespace varscale::data
