// Images in, a token file out; by one process or the ranks of a launch, over as many launches as it takes.
//
//   ImageEncoder encoder = load_encoder("tok.safetensors");
//   auto world = comm::open_world();
//   TokenizeReport report = tokenize({.train = "images/train", .out = "tokens.h5"}, encoder, *world);
//
// Order    Train rows in the order of the listing, each image's crops together; then validation images. Rows do
//          not depend on `batch` (up to near ties of the encoder's arithmetic).
// Blocks   `batch` images with all their crops are a block: encoded together, whoever does it, so that the file has
//          the same bytes at any number of ranks and after any number of kills, at one number of threads a rank.
// Ranks    The blocks that are left are divided into equal runs. All ranks see the images and the folder of `out`.
//          One that fails alone throws; its launch is to be ended by comm::end_together.
// Stop     `stop` is asked after each block, of every rank; one that says so stops all of them. What is done stays in
//          OUT.part, and the same call goes on there.
// Errors   UserError for everything wrong with the images, the label file and the options; an image that another rank
//          sees otherwise, too. The output is complete or absent. OUT.part stays where an image turns out to be
//          unreadable after rows have been done: the same call goes on there once the image is what it was.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "comm/communicator.hpp"
#include "data/image_batches.hpp"
#include "data/image_encoder.hpp"
#include "records/token_file.hpp"

namespace varscale::data {

struct TokenizeOptions {
  std::filesystem::path train{};  // an image source, see image_set.hpp
  std::optional<std::filesystem::path> validation = {};  // another one; without it: a split of `train`
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
  bool stopped = false;  // before all rows were done
  int64_t rows_done = 0;
};

// Collective; every rank gets the report.
TokenizeReport tokenize(const TokenizeOptions& options, const ImageEncoder& encoder, comm::Communicator& world,
                        const std::function<bool()>& stop = {});
// In this process alone.
TokenizeReport tokenize(const TokenizeOptions& options, const ImageEncoder& encoder);

// What tokenize() would do, with the speed of one block of training images. Writes nothing; in this process alone.
struct TokenizePlan {
  records::TokenFileInfo info;
  std::vector<CorruptImage> skipped;
  int64_t file_bytes = 0;     // of the rows
  double rows_per_s = 0;      // of one rank
  double decoding_share = 0;  // of a block's time, were nothing done side by side
};
TokenizePlan plan_tokenize(const TokenizeOptions& options, const ImageEncoder& encoder);

}  // namespace varscale::data
