#include "tokenizer_training/image_feed.hpp"

#include <ATen/ATen.h>

#include "data/png.hpp"

namespace varscale::tokenizer_training {

namespace {

at::Tensor read(const data::ImageBatches& images, const tokenizer::ImageSource::Batch& batch) {
  const at::NoGradGuard no_grad;
  return data::to_float_BCHW(images.batch_u8_BHWC(batch.numbers, batch.crops));
}

}  // namespace

at::Tensor ImageFeed::load(const Batch& batch) {
  if (!coming_.valid()) return read(images_, batch);
  at::Tensor image_B3XX = coming_.get();
  const bool expected = coming_batch_.numbers == batch.numbers && coming_batch_.crops == batch.crops;
  return expected ? image_B3XX : read(images_, batch);
}

void ImageFeed::prepare(const Batch& batch) {
  coming_batch_ = batch;
  coming_ = std::async(std::launch::async, [this, batch] { return read(images_, batch); });
}

tokenizer::ImageSource ImageFeed::source() {
  return {.count = images_.size(),
          .fingerprint = images_.set().fingerprint(),
          .load = [this](const Batch& batch) { return load(batch); },
          .prepare = [this](const Batch& batch) { prepare(batch); }};
}

}  // namespace varscale::tokenizer_training
