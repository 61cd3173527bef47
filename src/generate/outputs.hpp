// What many images are kept in: an .npz archive as evaluators read it, or a folder of PNG files.
//
//   write_npz("samples.npz", {.side = 256, .labels = labels, .read = read}, /*seed=*/0);
//
// Memory   One image; of an archive's labels all.
// Errors   UserError: the path cannot be written. Both are complete or absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace varscale::generate {

// Any number of images, by their number.
struct ImageSupply {
  int64_t side = 0;             // pixels
  std::vector<int64_t> labels;  // one an image
  std::function<void(int64_t image, uint8_t* out)> read;  // [side, side, 3], RGB
  // Where tokens are wanted: how many an image has, and what reads them, map after map.
  int64_t tokens = 0;
  std::function<void(int64_t image, uint16_t* out_L)> read_tokens = {};
};

// arr_0 uint8 [N, side, side, 3], arr_1 int64 [N], the labels, and with tokens arr_2 uint16 [N, L]. Row r holds image order(r) of
// base::Permutation(N, seed, "npz_order"): scores that are means over parts of the file, as the Inception score is,
// would otherwise see few classes a part. Stored, not deflated; ZIP64 where it takes more than 4 GiB.
void write_npz(const std::filesystem::path& path, const ImageSupply& images, uint64_t seed);

// FOLDER/<names[i]>.png; UserError where the folder is there already. Needs a data::VipsRuntime.
void write_image_folder(const std::filesystem::path& folder, const ImageSupply& images,
                        const std::vector<std::string>& names);

}  // namespace varscale::generate
