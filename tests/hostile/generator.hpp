// Hostile files by seeded mutation: format, seed and number give the same bytes everywhere.
//
//   for (const Format& format : formats())
//     for (int64_t i = 0; i < 250; ++i) write(format.make(7, i).bytes);
//
// Kinds    Every format has bit flips, truncations, splices and overwritten numbers, after which checksums no longer
//          fit; and kinds of its own, in which containers and checksums are right again, so that the lie reaches the
//          reader behind them: directories, pickles, array heads, tar headers, chunks, segments, sizes, bombs.
// Code     What would run, were it unpickled or linked to, makes the file kMarker in the working directory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.hpp"

namespace varscale::hostile {

inline constexpr const char* kMarker = "hostile-marker";

// Random choices of one file.
class Chance {
 public:
  Chance(uint64_t seed, std::string_view format, uint64_t number) : stream_(seed, format, number) {}
  uint64_t below(uint64_t n) { return n == 0 ? 0 : stream_.below(next_++, n); }
  char byte() { return static_cast<char>(below(256)); }
  template <class List>
  const auto& of(const List& list) { return list[below(std::size(list))]; }

 private:
  base::RandomStream stream_;
  uint64_t next_ = 0;
};

struct Original {
  std::string name, bytes;
  bool has_sums = false;  // of all that is read: bytes that no longer fit them must not be taken
};

struct Kind {
  std::string name;
  bool mends = false;  // checksums fit again, so other contents may be read
  std::function<std::string(const Original&, Chance&)> make;
};

struct HostileFile {
  std::string bytes;
  const Original* original;
  const Kind* kind;
};

struct Format {
  std::string name;  // with its dot, as files are called
  std::vector<Original> originals;
  std::vector<Kind> kinds;
  HostileFile make(uint64_t seed, int64_t number) const;
};

// .pth, .npz, .tar, .jpg, .png, .webp. The originals come from tests/fixtures or are made here.
Format pth_files();
Format npz_files();
Format tar_files();
Format jpg_files();
Format png_files();
Format webp_files();

// A pickle that makes the marker as soon as Python unpickles it.
std::string running_pickle();

// The features of the .npz files.
inline constexpr int64_t kFeatures = 5;

// Shared by the files that make them.
std::vector<Kind> common_kinds(const std::vector<Original>& all);
std::string fixture(const std::string& name);
uint64_t edge(Chance& chance, uint64_t near);  // a number at which sizes and sums break
void put_number(std::string& text, size_t at, uint64_t value, size_t bytes, bool big_endian = false);
uint64_t number_at(const std::string& text, size_t at, size_t bytes, bool big_endian = false);

}  // namespace varscale::hostile
