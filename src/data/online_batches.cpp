#include "data/online_batches.hpp"

#include <ATen/ATen.h>
#include <vips/vips.h>

#include "base/error.hpp"
#include "data/png.hpp"
#include "nn/async.hpp"

namespace varscale::data {

namespace {

using base::UserError;

constexpr int64_t kEncodedAtATime = 32;  // as var_data tokenize

std::string short_form(const std::string& fingerprint) { return fingerprint.substr(0, 16); }

// The preprocessing that the file's rows have been through.
Preprocessing preprocessing_of(const records::TokenFile& file) {
  const records::TokenFileInfo& info = file.info();
  if (!info.train_source)
    throw UserError(
        "{}: was made by an older var_data and does not say how its images were cropped; data.tokens online needs a "
        "token file made by var_data tokenize anew",
        file.path().string());
  const Preprocessing how{.side = info.image_side,
                          .keep_exact = info.train_source->keep_exact,
                          .seed = info.train_source->crop_seed};
  if (how.words() != info.preprocessing)
    throw UserError("{}: its preprocessing is \"{}\"; data.tokens online does \"{}\"", file.path().string(),
                    info.preprocessing, how.words());
  return how;
}

// The images of the training rows, in their order.
ImageSet images_of(const records::TokenFile& file, const std::filesystem::path& source) {
  const ImageSet listing = ImageSet::open(source);
  std::vector<int64_t> numbers;
  bool fits = true;
  for (int64_t i = 0; fits && i < file.info().train_images; ++i) {
    numbers.push_back(file.source_id(file.train_row(i, 0)));
    fits = numbers.back() >= 0 && numbers.back() < listing.size();
  }
  ImageSet images = fits ? listing.subset(numbers) : listing;
  if (!fits || images.fingerprint() != file.info().train_source->fingerprint)
    throw UserError(
        "{}: does not hold the training images that {} was made from, or has changed since; expected the same "
        "classes, file names and file sizes",
        source.string(), file.path().string());
  return images;
}

}  // namespace

TrainImages::TrainImages(const records::TokenFile& file, const std::filesystem::path& source, ImageEncoder encoder)
    : encoder_(std::move(encoder)) {
  const Preprocessing how = preprocessing_of(file);
  const records::TokenFileInfo& info = file.info();
  if (encoder_.fingerprint != info.tokenizer_fingerprint)
    throw UserError("{}: is not the tokenizer that {} was made with: its fingerprint is {}, expected {} ({})",
                    encoder_.path, file.path().string(), short_form(encoder_.fingerprint),
                    short_form(info.tokenizer_fingerprint), info.tokenizer_path);
  if (encoder_.precision != info.precision)
    throw UserError("{}: was encoded in {}, but training would encode in {}", file.path().string(), info.precision,
                    encoder_.precision);
  VARSCALE_CHECK(encoder_.image_side == info.image_side && encoder_.scales == info.scales,
                 "a tokenizer of the file's fingerprint and of another size");
  images_.emplace(images_of(file, source), how, Crop::kRandom);
}

at::Tensor TrainImages::decode_u8_BHWC(const std::vector<TrainSample>& samples) const {
  std::vector<int64_t> numbers, crops;
  for (const TrainSample& sample : samples) {
    numbers.push_back(sample.image);
    crops.push_back(sample.crop);
  }
  return images_->batch_u8_BHWC(numbers, crops);
}

at::Tensor TrainImages::encode(const at::Tensor& images_u8_BHWC) const {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> tokens;
  for (const at::Tensor& some_u8_BHWC : images_u8_BHWC.split(kEncodedAtATime))
    tokens.push_back(encoder_.encode(to_float_BCHW(nn::to_device(some_u8_BHWC, encoder_.device))));
  return at::cat(tokens);
}

OnlineBatches::OnlineBatches(const records::TokenFile& file, std::shared_ptr<const TrainImages> images,
                             uint64_t data_seed, int64_t batch)
    : TrainBatches(file, data_seed, batch), images_(std::move(images)) {}

void OnlineBatches::prepare(int64_t step, int64_t begin, int64_t end) {
  ahead_.reset();  // waits, if nobody has asked for it
  std::vector<int64_t> ids = sample_ids(step, begin, end);
  auto decode = [images = images_, wanted = samples(ids)] {
    struct ThreadEnd {
      ~ThreadEnd() { vips_thread_shutdown(); }
    } end;
    return images->decode_u8_BHWC(wanted);
  };
  ahead_ = Ahead{std::move(ids), std::async(std::launch::async, std::move(decode))};
}

Batch OnlineBatches::load(int64_t step, int64_t begin, int64_t end) {
  std::vector<int64_t> ids = sample_ids(step, begin, end);
  if (!ahead_ || ahead_->sample_ids != ids) prepare(step, begin, end);
  Ahead here = *std::exchange(ahead_, std::nullopt);
  const at::Tensor images_u8_BHWC = here.images_u8_BHWC.get();
  Batch batch{images_->encode(images_u8_BHWC), at::empty({end - begin}, at::kLong), std::move(ids)};
  auto* labels = batch.labels_B.mutable_data_ptr<int64_t>();
  for (const TrainSample& at : samples(batch.sample_ids)) *labels++ = file().label(file().train_row(at.image, 0));
  return batch;
}

}  // namespace varscale::data
