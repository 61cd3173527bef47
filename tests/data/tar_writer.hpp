// Tar archives for tests, member by member, as several programs write them.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include <fmt/format.h>

namespace varscale::data {

class TarText {
 public:
  enum class Kind { kUstar, kGnu, kPax };
  explicit TarText(Kind kind = Kind::kUstar) : kind_(kind) {}

  // Names above 100 bytes as the kind writes them: split at a '/', in a member before, or in a pax header.
  TarText& add(const std::string& name, const std::string& contents) {
    std::string prefix, rest = name;
    if (name.size() > 100) {
      if (kind_ == Kind::kGnu) raw("././@LongLink", name + '\0', 'L');
      if (kind_ == Kind::kPax) {
        // The record counts its own digits.
        size_t length = name.size() + 10;
        while (fmt::format("{} path={}\n", length, name).size() != length) ++length;
        raw("PaxHeaders/x", fmt::format("{} path={}\n", length, name), 'x');
      }
      if (kind_ == Kind::kUstar) {
        const size_t slash = name.find('/', name.size() - 101);
        prefix = name.substr(0, slash);
        rest = name.substr(slash + 1);
      } else {
        rest = name.substr(0, 100);
      }
    }
    return raw(rest, contents, '0', prefix);
  }
  TarText& raw(const std::string& name, const std::string& contents, char type, const std::string& prefix = {}) {
    std::string block(512, '\0');
    const auto put = [&](size_t at, const std::string& text) { block.replace(at, text.size(), text); };
    put(0, name);
    put(100, "0000644");
    put(108, "0000000");
    put(116, "0000000");
    put(124, fmt::format("{:011o}", contents.size()));
    put(136, "00000000000");
    put(148, "        ");
    block[156] = type;
    put(257, kind_ == Kind::kGnu ? std::string("ustar  ") : std::string("ustar\0" "00", 8));
    put(345, prefix);
    unsigned sum = 0;
    for (const char c : block) sum += static_cast<unsigned char>(c);
    put(148, fmt::format("{:06o}", sum) + '\0');
    text_ += block + contents + std::string((512 - contents.size() % 512) % 512, '\0');
    return *this;
  }
  std::string text() const { return text_ + std::string(1024, '\0'); }
  const std::string& without_end() const { return text_; }

 private:
  Kind kind_;
  std::string text_;
};

}  // namespace varscale::data
