#include "tests/hostile/generator.hpp"

#include <algorithm>
#include <cstdlib>

#include "base/file.hpp"

namespace varscale::hostile {

std::string fixture(const std::string& name) {
  const char* fixtures = std::getenv("VARSCALE_FIXTURES");
  return base::read_file(std::string(fixtures == nullptr ? "VARSCALE_FIXTURES is not set" : fixtures) + "/" + name);
}

HostileFile Format::make(uint64_t seed, int64_t number) const {
  const auto i = static_cast<size_t>(number);
  const Kind& kind = kinds[i % kinds.size()];
  const Original& original = originals[i / kinds.size() % originals.size()];
  Chance chance(seed, "hostile " + name, static_cast<uint64_t>(number));
  return {kind.make(original, chance), &original, &kind};
}

uint64_t edge(Chance& chance, uint64_t near) {
  constexpr uint64_t kEdges[] = {0,          1,          0x7f,        0x80,        0xff,
                                 0x7fff,     0xffff,     0x7fffffff,  0x80000000,  0xfffffffe,
                                 0xffffffff, 0x100000000, INT64_MAX,  1ull << 63,  UINT64_MAX};
  switch (chance.below(4)) {
    case 0: return near + chance.below(3) - 1;
    case 1: return near * 2;
    default: return chance.of(kEdges);
  }
}

void put_number(std::string& text, size_t at, uint64_t value, size_t bytes, bool big_endian) {
  for (size_t i = 0; i < bytes && at + i < text.size(); ++i)
    text[at + (big_endian ? bytes - 1 - i : i)] = static_cast<char>(value >> (8 * i));
}

uint64_t number_at(const std::string& text, size_t at, size_t bytes, bool big_endian) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i)
    value |= uint64_t{static_cast<unsigned char>(text.at(at + (big_endian ? bytes - 1 - i : i)))} << (8 * i);
  return value;
}

namespace {

// Half of all places lie near the beginning or the end, where headers and directories are.
size_t place(const std::string& text, Chance& chance) {
  const size_t near = std::min<size_t>(text.size(), 200);
  switch (chance.below(4)) {
    case 0: return chance.below(near);
    case 1: return text.size() - 1 - chance.below(near);
    default: return chance.below(text.size());
  }
}

}  // namespace

std::vector<Kind> common_kinds(const std::vector<Original>& all) {
  std::vector<std::string> pieces;
  for (const Original& original : all) pieces.push_back(original.bytes);
  const auto flip = [](const Original& original, Chance& chance) {
    std::string text = original.bytes;
    for (uint64_t i = 0, count = 1 + chance.below(8); i < count; ++i) {
      char& byte = text[place(text, chance)];
      byte = static_cast<char>(byte ^ (1 << chance.below(8)));
    }
    return text;
  };
  const auto cut = [](const Original& original, Chance& chance) {
    return original.bytes.substr(0, place(original.bytes, chance));
  };
  const auto splice = [pieces](const Original& original, Chance& chance) {
    std::string text = original.bytes;
    for (uint64_t i = 0, count = 1 + chance.below(3); i < count; ++i) {
      const std::string& other = chance.of(pieces);
      const size_t at = place(text, chance), length = chance.below(300);
      text.replace(at, chance.below(300), other.substr(place(other, chance), length));
      if (text.empty()) return text;
    }
    return text;
  };
  const auto numbers = [](const Original& original, Chance& chance) {
    std::string text = original.bytes;
    for (uint64_t i = 0, count = 1 + chance.below(3); i < count; ++i) {
      const size_t bytes = size_t{1} << chance.below(4), at = place(text, chance);
      if (at + bytes <= text.size()) put_number(text, at, edge(chance, text.size()), bytes, chance.below(2) == 0);
    }
    return text;
  };
  return {{"bit flips", false, flip},
          {"truncated", false, cut},
          {"spliced", false, splice},
          {"numbers overwritten", false, numbers}};
}

}  // namespace varscale::hostile
