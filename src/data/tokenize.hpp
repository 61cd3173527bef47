// A folder of images in, a token file out.
//
//   ImageEncoder encoder = load_encoder("tok.safetensors");
//   TokenizeReport report = tokenize({.train = "images/train", .out = "tokens.h5"}, encoder);
//
// Order    Train rows in the order of the listing, each image's crops together; then validation images.
//          Rows do not depend on `batch` or on threads (up to near ties of the encoder's arithmetic).
// Errors   UserError for everything wrong with the folders, the label file and the options. The output
//          is complete or absent.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <vector>

#include "data/image_batches.hpp"
#include "data/image_encoder.hpp"
#include "records/token_file.hpp"

namespace varscale::data {

struct TokenizeOptions {
  std::filesystem::path train{};
  std::optional<std::filesystem::path> validation = {};  // a folder; without it: a split of `train`
  std::optional<std::filesystem::path> validation_labels = {};  // then `validation` is flat
  double split = 0.02;                                          // validation's part of `train`
  uint64_t seed = 0;                                            // of the split and of random crops
  std::filesystem::path out{};
  int64_t crops = 1;           // random crops kept of each training image
  bool always_resize = false;  // also images that already have the right size
  bool skip_corrupt = false;   // leave unreadable images out; reads every image twice
  int64_t batch = 32;          // images encoded at a time
};

struct TokenizeReport {
  records::TokenFileInfo info;
  std::vector<CorruptImage> skipped;
};

TokenizeReport tokenize(const TokenizeOptions& options, const ImageEncoder& encoder);

}  // namespace varscale::data
