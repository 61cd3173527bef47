// The kinds of image sources, each listed by a function of its own; rules: image_set.hpp.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/image_listing.hpp"

namespace varscale::data {

struct ListedImages {
  ImageListing listing;
  std::vector<std::string> class_names;
};
// The classes that labels must be of; null: the source's own.
using KnownClasses = const std::vector<std::string>*;

inline constexpr const char* kImageKinds = "png, jpg, jpeg or webp";
bool is_image_name(const std::filesystem::path& path);

struct FolderNames {
  std::vector<std::string> folders, files;  // sorted, without hidden ones
};
// UserError: not a folder, or it cannot be listed.
FolderNames names_in(const std::filesystem::path& folder);

// The label of a word: a class number from 0 or a class name. UserError with `where` in front.
int64_t read_label(std::string_view word, const std::vector<std::string>& classes, const std::string& where);

// A source that brings its own classes by number has "0", "1", ... up to the largest label. UserError with `where`
// in front: a label of a million or more, which names would fill the memory.
void check_class_number(int64_t label, const std::string& where);
std::vector<std::string> numbered_classes(int64_t largest_label);

ListedImages list_class_folders(const std::filesystem::path& folder, KnownClasses classes);
ListedImages list_flat_folder(const std::filesystem::path& folder, const std::filesystem::path& labels,
                              const std::vector<std::string>& classes);
ListedImages list_archives(const std::vector<std::filesystem::path>& archives, KnownClasses classes);
ListedImages list_list_file(const std::filesystem::path& list, KnownClasses classes);

// "a-{008..011}.tar" as a-008.tar to a-011.tar; nullopt without braces. UserError: braces of another form.
std::optional<std::vector<std::filesystem::path>> expand_braces(const std::filesystem::path& pattern);

}  // namespace varscale::data
