#include "data/tokenize.hpp"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <future>
#include <numeric>

#include "base/error.hpp"
#include "base/file.hpp"
#include "base/progress.hpp"

namespace varscale::data {
namespace {

using base::UserError;

void check_options(const TokenizeOptions& options) {
  if (options.crops < 1) throw UserError("--crops {}: expected at least 1", options.crops);
  if (options.batch < 1) throw UserError("--batch {}: expected at least 1", options.batch);
  if (options.validation_labels && !options.validation) {
    throw UserError("--val-labels {}: needs --val, the folder of those images",
                    options.validation_labels->string());
  }
  std::error_code error;
  if (options.validation &&
      std::filesystem::equivalent(options.train, *options.validation, error)) {
    throw UserError("--val {}: is the training folder; expected other images, or --split",
                    options.validation->string());
  }
}

SplitSets open_sets(const TokenizeOptions& options) {
  ImageSet train = ImageSet::open(options.train);
  if (!options.validation) return split(train, options.split, options.seed);
  ImageSet validation = options.validation_labels
                            ? ImageSet::open_flat(*options.validation, *options.validation_labels,
                                                  train.class_names())
                            : ImageSet::open(*options.validation, &train.class_names());
  return {std::move(train), std::move(validation)};
}

ImageSet without_corrupt(const ImageSet& set, std::vector<CorruptImage>& skipped) {
  const std::vector<CorruptImage> corrupt = find_corrupt(set);
  skipped.insert(skipped.end(), corrupt.begin(), corrupt.end());
  std::vector<int64_t> good;
  auto bad = corrupt.begin();
  for (int64_t i = 0; i < set.size(); ++i) {
    if (bad != corrupt.end() && bad->number == i) {
      ++bad;
    } else {
      good.push_back(i);
    }
  }
  if (good.empty()) throw UserError("{}: no image can be read", set.folder().string());
  return set.subset(good);
}

std::string combined_fingerprint(const SplitSets& sets) {
  return base::sha256_hex(sets.train.fingerprint() + sets.validation.fingerprint(), 16);
}

// Images [begin, begin + numbers.size()) of one set, one crop of each.
struct Portion {
  std::vector<int64_t> numbers;
  int64_t crop;
};

std::vector<Portion> portions(int64_t images, int64_t crops, int64_t batch) {
  std::vector<Portion> list;
  for (int64_t begin = 0; begin < images; begin += batch) {
    std::vector<int64_t> numbers(std::min(batch, images - begin));
    std::iota(numbers.begin(), numbers.end(), begin);
    for (int64_t crop = 0; crop < crops; ++crop) list.push_back({numbers, crop});
  }
  return list;
}

class Run {
 public:
  Run(const ImageEncoder& encoder, const records::TokenFileInfo& info,
      records::TokenFileWriter& writer, base::Progress& progress)
      : encoder_(encoder), info_(info), writer_(writer), progress_(progress) {}

  // Encodes the set into rows first_row, ...; the next portion is decoded meanwhile.
  void write(const ImageBatches& images, int64_t first_row, int64_t crops, int64_t batch) {
    const std::vector<Portion> list = portions(images.size(), crops, batch);
    const auto decode = [&](const Portion& part) { return images.batch(part.numbers, part.crop); };
    std::future<at::Tensor> next = std::async(std::launch::async, decode, list.front());
    for (size_t i = 0; i < list.size(); ++i) {
      const at::Tensor x_BCHW = next.get();
      if (i + 1 < list.size()) next = std::async(std::launch::async, decode, list[i + 1]);
      store(images.set(), list[i], encoder_.encode(x_BCHW), first_row, crops);
      progress_.advance(x_BCHW.size(0));
    }
  }

 private:
  void store(const ImageSet& set, const Portion& part, const at::Tensor& encoded, int64_t first_row,
             int64_t crops) {
    const at::Tensor tokens_BL = encoded.to(at::kCPU, at::kLong).contiguous();
    const int64_t length = info_.tokens_per_image();
    VARSCALE_CHECK(tokens_BL.dim() == 2 && tokens_BL.size(1) == length &&
                       tokens_BL.size(0) == static_cast<int64_t>(part.numbers.size()),
                   "the encoder gave {} numbers for {} images of {} tokens", tokens_BL.numel(),
                   part.numbers.size(), length);
    const int64_t* tokens = tokens_BL.const_data_ptr<int64_t>();
    std::vector<uint16_t> row(length);
    for (const int64_t number : part.numbers) {
      for (int64_t l = 0; l < length; ++l, ++tokens) {
        VARSCALE_CHECK(*tokens >= 0 && *tokens < info_.vocabulary, "token {} of {}", *tokens,
                       info_.vocabulary);
        row[l] = static_cast<uint16_t>(*tokens);
      }
      const ImageEntry& entry = set.entry(number);
      writer_.write_row(first_row + number * crops + part.crop, row.data(),
                        static_cast<int32_t>(entry.label), entry.source_id);
    }
  }

  const ImageEncoder& encoder_;
  const records::TokenFileInfo& info_;
  records::TokenFileWriter& writer_;
  base::Progress& progress_;
};

}  // namespace

TokenizeReport tokenize(const TokenizeOptions& options, const ImageEncoder& encoder) {
  check_options(options);
  SplitSets sets = open_sets(options);
  TokenizeReport report;
  if (options.skip_corrupt) {
    sets = {without_corrupt(sets.train, report.skipped),
            without_corrupt(sets.validation, report.skipped)};
  }
  // Several crops of an image that fills the crop exactly would be one image several times.
  const Preprocessing how{.side = encoder.image_side,
                          .keep_exact = !options.always_resize && options.crops == 1,
                          .seed = options.seed};
  records::TokenFileInfo& info = report.info;
  info.train_images = sets.train.size();
  info.validation_images = sets.validation.size();
  info.crops = options.crops;
  info.class_names = sets.train.class_names();
  info.classes = static_cast<int64_t>(info.class_names.size());
  info.vocabulary = encoder.quantizer.vocabulary;
  info.scales = encoder.scales;
  info.image_side = encoder.image_side;
  info.tokenizer_fingerprint = encoder.fingerprint;
  info.tokenizer_path = encoder.path;
  info.preprocessing = how.words();
  info.source_fingerprint = combined_fingerprint(sets);
  info.train_source = {.crop_seed = how.seed,
                       .keep_exact = how.keep_exact,
                       .fingerprint = sets.train.fingerprint()};

  const at::NoGradGuard no_grad;
  records::TokenFileWriter writer(options.out, info, encoder.quantizer);
  base::Progress progress("tokenize", info.rows(), "images");
  Run run(encoder, info, writer, progress);
  run.write(ImageBatches(sets.train, how, Crop::kRandom), 0, options.crops, options.batch);
  run.write(ImageBatches(sets.validation, how, Crop::kCentre), info.train_images * options.crops, 1,
            options.batch);
  writer.commit();
  progress.finish();
  return report;
}

}  // namespace varscale::data
