// Training batches that are decoded, cropped and encoded when they are needed: fresh crops in every epoch.
//
//   auto images = std::make_shared<TrainImages>(file, "images/train", load_encoder("tok.safetensors"));
//   OnlineBatches train(file, images, /*data_seed=*/0, /*batch=*/256);
//   Batch part = train.load(step, begin, end);
//   train.prepare(step, end, 2 * end);    // is decoded by other threads while the caller computes
//
// Order    That of batch.hpp: the token file says which image is which, and has the labels.
// Crops    In epoch e an image takes its crop number e, whose place is a function of (seed of the file,
//          source_id, e). Crop numbers below those that the file holds are its rows, token for token, up to
//          near ties of the encoder's arithmetic, which another batch composition may round the other way.
// Memory   As ImageBatches; a prepared part waits as uint8. Images are encoded 32 at a time.
// Threads  One at a time. Decoding has its own.
// Errors   UserError: what does not belong to the token file, when it is opened; an unreadable image, by its
//          path, in the load() of its part.
#pragma once

#include <future>
#include <memory>
#include <optional>

#include "data/batch.hpp"
#include "data/image_batches.hpp"
#include "data/image_encoder.hpp"

namespace varscale::data {

// The training images that a token file was made from, with its tokenizer. Image i is that of train_row(i, .).
class TrainImages {
 public:
  // Lists `source` (image_set.hpp) and compares everything with what the file says of its source; decodes nothing.
  TrainImages(const records::TokenFile& file, const std::filesystem::path& source, ImageEncoder encoder);
  at::Tensor decode_u8_BHWC(const std::vector<TrainSample>& samples) const;  // needs a VipsRuntime
  // int64 [B,L] on the encoder's device. No gradient.
  at::Tensor encode(const at::Tensor& images_u8_BHWC) const;

 private:
  ImageEncoder encoder_;
  std::optional<ImageBatches> images_;
};

class OnlineBatches final : public TrainBatches {
 public:
  // `images` of this very file.
  OnlineBatches(const records::TokenFile& file, std::shared_ptr<const TrainImages> images, uint64_t data_seed,
                int64_t batch);
  Batch load(int64_t step, int64_t begin, int64_t end) override;
  void prepare(int64_t step, int64_t begin, int64_t end) override;

 private:
  int64_t crop_of(int64_t epoch, int64_t /*image*/) const override { return epoch; }

  std::shared_ptr<const TrainImages> images_;
  struct Ahead {
    std::vector<int64_t> sample_ids;
    std::future<at::Tensor> images_u8_BHWC;
  };
  std::optional<Ahead> ahead_;
};

}  // namespace varscale::data
