// .npz files: the archive lies, the head of an array, or its values.
#include <fmt/format.h>

#include <cstring>
#include <limits>

#include "archives/npy.hpp"
#include "tests/hostile/zips.hpp"

namespace varscale::hostile {
namespace {

using archives::NpyHead;

template <class Value>
std::string array(const NpyHead& head, const std::vector<Value>& values) {
  std::string bytes = archives::write_npy_head(head);
  return bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(Value));
}

template <class Value>
std::vector<Entry> statistics(const char* dtype, bool fortran, const std::string& suffix) {
  std::vector<Value> mean, covariance;
  for (int64_t i = 0; i < kFeatures; ++i) {
    mean.push_back(static_cast<Value>(0.25 * static_cast<double>(i) - 1));
    for (int64_t j = 0; j < kFeatures; ++j)
      covariance.push_back(i == j ? Value{2} : Value{1} / static_cast<Value>(2 + i + j));
  }
  return {{"mu" + suffix + ".npy", array(NpyHead{dtype, {kFeatures}}, mean)},
          {"sigma" + suffix + ".npy", array(NpyHead{dtype, {kFeatures, kFeatures}, fortran}, covariance)}};
}

Entry images(int64_t count, int64_t side) {
  std::vector<uint8_t> pixels(static_cast<size_t>(count * side * side * 3));
  for (size_t i = 0; i < pixels.size(); ++i) pixels[i] = static_cast<uint8_t>(i * 7 + i / 64);
  return {"arr_0.npy", array(NpyHead{"|u1", {count, side, side, 3}}, pixels)};
}

std::string npz_of(std::vector<Entry> entries, bool deflate) {
  for (Entry& entry : entries) entry.deflate = deflate;
  return zip_of(entries);
}

std::vector<Entry> operator+(std::vector<Entry> a, const std::vector<Entry>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Puts `word` in the place of what stands between two texts.
void replace_between(std::string& bytes, const char* from, const char* to, const std::string& word) {
  const size_t begin = bytes.find(from);
  if (begin == std::string::npos) return;
  const size_t end = bytes.find(to, begin + std::strlen(from));
  if (end != std::string::npos) bytes.replace(begin + std::strlen(from), end - begin - std::strlen(from), word);
}

std::string head_lie(std::string bytes, Chance& chance) {
  const std::string types[] = {"'<f8'",  "'<f4'",  "'|u1'",  "'>f8'", "'<f2'", "'<i8'",         "'|b1'",
                               "'<c16'", "'<f16'", "'|V8'",  "'<U9'", "'<f0'", "'<f999999999'", "''",
                               "None",   "'|O'",   "'f8'",   "['<f8']", "[('a', '<f4'), ('b', '<f4')]"};
  std::string nested = "1";
  for (int i = 0; i < 500; ++i) nested = "(" + nested + ",)";
  const std::string shapes[] = {
      "(5,)", "(5, 5)", "(25,)", "()", "(0,)", "(0, 0)", "(-1,)", "(4, 4)", "(5, 5, 1)", "(2048,)", "(2048, 2048)",
      "(3, 8, 8, 3)", "(3, 8, 8, 4)", "(1, 24, 8, 3)", "(-3, -8, 8, 3)", "(9223372036854775807,)",
      "(18446744073709551616,)",
      "(4294967296, 4294967296)", "(3, 8, 8, 3", "5", "(5.0,)", "(1e9,)", "(5L,)", "[5]", "(0, 9223372036854775807, 2)",
      nested, "(" + std::string(3000, '1') + ",)"};
  const std::string orders[] = {"True", "False", "0", "None", "'C'", "true", ""};
  switch (chance.below(6)) {
    case 0: replace_between(bytes, "'descr': ", ", 'fortran_order'", chance.of(types)); break;
    case 1:
    case 2: replace_between(bytes, "'shape': ", ", }", chance.of(shapes)); break;
    case 3: replace_between(bytes, "'fortran_order': ", ",", chance.of(orders)); break;
    case 4: put_number(bytes, 8, edge(chance, 118), 2); break;  // the words' length
    default:
      bytes[chance.below(128)] = chance.byte();
      if (chance.below(3) == 0) bytes[6] = static_cast<char>(chance.below(5));
      break;
  }
  return bytes;
}

// Values that statistics cannot have, and asymmetry.
std::string value_lie(std::string bytes, Chance& chance) {
  const size_t head = 128;
  if (bytes.size() <= head + 8) return bytes;
  const double doubles[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -3e300,
                            1e308, 1e-310, 77};
  uint64_t bits = 0;
  const double value = chance.of(doubles);
  std::memcpy(&bits, &value, sizeof bits);
  put_number(bytes, head + 8 * chance.below((bytes.size() - head) / 8), bits, 8);
  return bytes;
}

// What numpy.load(..., allow_pickle=True) would run.
std::string objects(const std::string&, Chance& chance) {
  std::string words = fmt::format("{{'descr': '|O', 'fortran_order': False, 'shape': ({},), }}", chance.below(3));
  words += std::string(128 - 10 - 1 - words.size(), ' ') + "\n";
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(words.size());
  bytes += '\0';
  return bytes + words + running_pickle();
}

std::string bomb(const Original& original, Chance& chance) {
  static const std::string kFlat = [] {  // 96 MB of black images, honestly said: they are read
    const std::string head = archives::write_npy_head(NpyHead{"|u1", {500, 256, 256, 3}});
    return zip_of({{"arr_0.npy", head + std::string(500 * 256 * 256 * 3, '\0'), true}});
  }();
  static const std::string kWide = [] {  // a covariance of 2 GB would fit what its mean says
    const std::string head = archives::write_npy_head(NpyHead{"<f8", {16384}});
    const std::string square = archives::write_npy_head(NpyHead{"<f8", {16384, 16384}});
    return zip_of({{"mu.npy", head + std::string(16384 * 8, '\0'), true},
                   {"sigma.npy", square + std::string(50'000'000, '\0'), true}});
  }();
  switch (chance.below(12)) {
    case 0: return kFlat;
    case 1: return kWide;
    default: return claim_size(original.bytes, chance);
  }
}

template <class Change>
auto on_array(Change change) {
  return [change](const Original& original, Chance& chance) {
    std::vector<Entry> entries = entries_of(original.bytes);
    Entry& entry = entries[chance.below(entries.size())];
    entry.bytes = change(entry.bytes, chance);
    return zip_of(entries);
  };
}

}  // namespace

Format npz_files() {
  const std::vector<Entry> both = statistics<double>("<f8", false, "") + statistics<float>("<f4", true, "_s");
  Format format{".npz",
                {{"statistics", npz_of(both, false), true},
                 {"statistics, deflated", npz_of(both, true), true},
                 {"images", npz_of({images(3, 8)}, false), true},
                 {"images, deflated", npz_of({images(5, 16)}, true), true},
                 {"images and statistics", npz_of(std::vector<Entry>{images(4, 8)} + both, false), true}},
                {}};
  format.kinds = common_kinds(format.originals);
  format.kinds.push_back({"directory lies", false, [](const Original& original, Chance& chance) {
                            return lie_in_directory(original.bytes, chance);
                          }});
  format.kinds.push_back({"shared entries", true, [](const Original& original, Chance& chance) {
                            return share_entries(original.bytes, chance);
                          }});
  format.kinds.push_back({"bombs", true, bomb});
  format.kinds.push_back({"array heads", true, on_array(head_lie)});
  format.kinds.push_back({"array values", true, on_array(value_lie)});
  format.kinds.push_back({"pickled objects", true, on_array(objects)});
  return format;
}

}  // namespace varscale::hostile
