// Zip archives with a lie: in their directory, or rebuilt around entries that lie.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/hostile/generator.hpp"

namespace varscale::hostile {

struct Entry {
  std::string name, bytes;
  bool deflate = false;
};

std::string zip_of(const std::vector<Entry>& entries);
std::vector<Entry> entries_of(const std::string& zip);

// Fields of the central directory and of its end, with the checksums of the entries left alone.
std::string lie_in_directory(const std::string& zip, Chance& chance);
// An entry that stands for the bytes of another.
std::string share_entries(const std::string& zip, Chance& chance);
// An entry that says to unpack to very much.
std::string claim_size(const std::string& zip, Chance& chance);

}  // namespace varscale::hostile
