// Images of a folder as a tokenizer's training takes them; the next batch is decoded meanwhile.
//
//   ImageFeed feed(data::ImageBatches(set, how, data::Crop::kRandom));
//   TokenizerTrainer trainer(config, feed.source(), world);
//
// Threads  One caller.
// Errors   UserError from load(): an image that cannot be read.
#pragma once

#include <ATen/core/Tensor.h>

#include <future>

#include "data/image_batches.hpp"
#include "tokenizer/image_source.hpp"

namespace varscale::tokenizer_training {

class ImageFeed {
 public:
  explicit ImageFeed(const data::ImageBatches& images) : images_(images) {}
  tokenizer::ImageSource source();  // must not outlive this, nor this the images

 private:
  using Batch = tokenizer::ImageSource::Batch;
  at::Tensor load(const Batch& batch);
  void prepare(const Batch& batch);

  const data::ImageBatches& images_;
  Batch coming_batch_;
  std::future<at::Tensor> coming_;  // not valid: nothing is prepared
};

}  // namespace varscale::tokenizer_training
