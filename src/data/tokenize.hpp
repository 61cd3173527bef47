// A folder of images in, a token file out.
//
//   ImageEncoder encoder = ...;                       // what the tokenizer is, and its encode()
//   TokenizeReport report = tokenize({.train = "images/train", .out = "tokens.h5"}, encoder);
//
// Order    Train rows in the order of the listing, each image's crops together; then validation images.
//          Rows do not depend on `batch` or on threads (up to near ties of the encoder's arithmetic).
// Errors   UserError for everything wrong with the folders, the label file and the options. The output
//          is complete or absent.
// Legend   B batch, C = 3 channels, H = W = image side, L tokens an image.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "data/image_batches.hpp"
#include "records/token_file.hpp"

namespace varscale::data {

// A tokenizer as this folder sees it.
struct ImageEncoder {
  int64_t image_side = 0;
  std::vector<int64_t> scales;          // sides of the token maps
  std::string fingerprint, path;        // of the weights; where they came from
  records::QuantizerWeights quantizer;  // also fixes the vocabulary
  // float32 [B,3,H,W] in [-1,1] to int64 [B,L], coarse to fine. Called from one thread, without grad.
  std::function<at::Tensor(const at::Tensor& x_BCHW)> encode;
};

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
