#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/error.hpp"
#include "data/image_source.hpp"
#include "data/tar_reader.hpp"

namespace varscale::data {

namespace fs = std::filesystem;
using base::UserError;

namespace {

constexpr uint64_t kLargestLabelFile = 1 << 20;  // bytes; of captions and bounding boxes beside a label

std::string_view trimmed(std::string_view text) {
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\0'; };
  while (!text.empty() && blank(text.front())) text.remove_prefix(1);
  while (!text.empty() && blank(text.back())) text.remove_suffix(1);
  return text;
}

int64_t read_number(std::string_view text, const std::string& where) {
  const std::string_view word = trimmed(text);
  int64_t label = -1;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), label);
  if (error != std::errc() || end != word.data() + word.size() || label < 0)
    throw UserError("{}: holds \"{}\", expected a class number from 0", where, printable(word.substr(0, 40)));
  return label;
}

int64_t read_json_label(const std::string& text, const std::string& where) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto found = json.is_object() ? json.find("label") : json.end();
  if (!json.is_object() || found == json.end() || !found->is_number_integer() || found->get<int64_t>() < 0)
    throw UserError("{}: has no \"label\" that is a class number from 0", where);
  return found->get<int64_t>();
}

// What may hold a label, the best first.
constexpr std::array<std::string_view, 3> kLabelKinds = {"cls", "json", "txt"};

// Members of one key, one behind the other.
struct Sample {
  std::string key;
  std::optional<TarMember> image;
  std::array<std::optional<TarMember>, kLabelKinds.size()> labels;
  std::array<std::string, kLabelKinds.size()> texts;  // of the labels
};

class ArchiveLister {
 public:
  ArchiveLister(const fs::path& path, ImageListing& listing, KnownClasses classes)
      : path_(path),
        listing_(listing),
        classes_(classes),
        tar_(path),
        container_(listing.add_container(path, ImageListing::Kind::kArchive)) {}

  // The largest label, -1 if there was no image.
  int64_t list() {
    Sample sample;
    while (auto member = tar_.next()) {
      const size_t name_at = member->name.rfind('/') + 1;  // npos + 1 is 0
      if (member->name[name_at] == '.') continue;           // hidden
      const size_t dot = member->name.find('.', name_at);
      if (dot == std::string::npos) continue;
      const std::string key = member->name.substr(0, dot);
      if (key != sample.key) {
        finish(sample);
        sample = {.key = key, .image = {}, .labels = {}, .texts = {}};
      }
      take(sample, std::move(*member), dot + 1);
    }
    finish(sample);
    return largest_;
  }

 private:
  std::string where(const TarMember& member) const {
    return fmt::format("{}: {}", path_.string(), printable(member.name));
  }

  void take(Sample& sample, TarMember member, size_t extension_at) {
    std::string extension = member.name.substr(extension_at);
    std::transform(extension.begin(), extension.end(), extension.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (is_image_name("x." + extension) && extension.find('.') == std::string::npos) {
      if (sample.image)
        throw UserError("{}: a second image of the sample {} (the first: {})", where(member), printable(sample.key),
                        printable(sample.image->name));
      sample.image = std::move(member);
      return;
    }
    const auto kind = std::find(kLabelKinds.begin(), kLabelKinds.end(), extension);
    if (kind == kLabelKinds.end()) return;
    const auto number = static_cast<size_t>(kind - kLabelKinds.begin());
    if (sample.labels[number])
      throw UserError("{}: a second .{} of the sample {}", where(member), *kind, printable(sample.key));
    sample.texts[number] = tar_.contents(member, kLargestLabelFile);
    sample.labels[number] = std::move(member);
  }

  void finish(const Sample& sample) {
    if (!sample.image) return;
    const TarMember& image = *sample.image;
    for (size_t kind = 0; kind < kLabelKinds.size(); ++kind) {
      if (!sample.labels[kind]) continue;
      const std::string at = where(*sample.labels[kind]);
      const int64_t label = kLabelKinds[kind] == "json" ? read_json_label(sample.texts[kind], at)
                                                        : read_number(sample.texts[kind], at);
      if (classes_ != nullptr && label >= static_cast<int64_t>(classes_->size()))
        throw UserError("{}: label {} is out of range, expected 0 to {}", at, label, classes_->size() - 1);
      if (label > largest_) {
        if (classes_ == nullptr) check_class_number(label, at);
        largest_ = label;
      }
      listing_.add({.container = container_,
                    .name = image.name,
                    .label = label,
                    .bytes = image.bytes,
                    .offset = image.offset});
      return;
    }
    throw UserError("{}: has no label; expected {}.cls with its class number beside it, or .json or .txt", where(image),
                    printable(sample.key));
  }

  const fs::path& path_;
  ImageListing& listing_;
  KnownClasses classes_;
  TarReader tar_;
  uint32_t container_;
  int64_t largest_ = -1;
};

}  // namespace

void check_class_number(int64_t label, const std::string& where) {
  constexpr int64_t kMost = 1'000'000;
  if (label >= kMost) throw UserError("{}: label {}, expected less than {} classes", where, label, kMost);
}

std::vector<std::string> numbered_classes(int64_t largest_label) {
  std::vector<std::string> names;
  for (int64_t label = 0; label <= largest_label; ++label) names.push_back(std::to_string(label));
  return names;
}

ListedImages list_archives(const std::vector<fs::path>& archives, KnownClasses classes) {
  ListedImages images;
  int64_t largest = -1;
  for (const fs::path& path : archives)
    largest = std::max(largest, ArchiveLister(path, images.listing, classes).list());
  if (images.listing.size() == 0)
    throw UserError("{}: holds no image, expected members <key>.jpg (or {}) with their <key>.cls",
                    archives.front().string(), kImageKinds);
  images.class_names = classes != nullptr ? *classes : numbered_classes(largest);
  return images;
}

std::optional<std::vector<fs::path>> expand_braces(const fs::path& pattern) {
  const std::string text = pattern.string();
  const size_t open = text.find('{');
  if (open == std::string::npos) return std::nullopt;
  const size_t close = text.find('}', open), dots = text.find("..", open);
  const auto refuse = [&]() -> UserError {
    return UserError("{}: braces of another form; expected numbers with equal digits, as in train-{{000..099}}.tar",
                     text);
  };
  if (close == std::string::npos || dots == std::string::npos || dots > close ||
      text.find('{', open + 1) != std::string::npos)
    throw refuse();
  const std::string_view first = std::string_view(text).substr(open + 1, dots - open - 1);
  const std::string_view last = std::string_view(text).substr(dots + 2, close - dots - 2);
  constexpr size_t kMostDigits = 9;
  int64_t begin = 0, end = 0;
  const auto read = [](std::string_view digits, int64_t& number) {
    const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    return error == std::errc() && rest == digits.data() + digits.size() && number >= 0;
  };
  const bool padded = first.size() > 1 && first.front() == '0';
  if (first.size() > kMostDigits || last.size() > kMostDigits || !read(first, begin) || !read(last, end) ||
      begin > end || (padded && first.size() != last.size()) || end - begin >= 1'000'000)
    throw refuse();
  std::vector<fs::path> paths;
  for (int64_t number = begin; number <= end; ++number) {
    paths.emplace_back(text.substr(0, open) + fmt::format("{:0{}}", number, padded ? first.size() : 1) +
                       text.substr(close + 1));
  }
  return paths;
}

}  // namespace varscale::data
