#include "data/online_batches.hpp"

#include <set>

#include "base/file.hpp"
#include "data/tokenize.hpp"
#include "support.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kAccepted = "(nothing was thrown)";

// Images of 16 x 12 pixels that differ from place to place, so that a token tells the crop: `images` of each of two
// classes.
void write_patterns(const fs::path& folder, int64_t images, int64_t salt = 0) {
  for (int64_t i = 0; i < 2 * images; ++i) {
    std::vector<uint8_t> pixels(16 * 12 * 3);
    for (size_t p = 0; p < pixels.size(); ++p) pixels[p] = static_cast<uint8_t>(37 * (i + salt) + 5 * p + p * p / 7);
    const fs::path path = folder / ("c" + std::to_string(i / images)) / (std::to_string(i % images) + ".png");
    fs::create_directories(path.parent_path());
    write_png_file(path, pixels.data(), 16, 12, Durability::kPlain);
  }
}

// The tokens of an image are its first pixels: exact, whatever is encoded with it.
ImageEncoder pixel_encoder(const std::string& fingerprint = "pixels") {
  ImageEncoder encoder;
  encoder.image_side = 8;
  encoder.scales = {1, 2};
  encoder.fingerprint = fingerprint;
  encoder.path = "pixels.safetensors";
  encoder.quantizer = small_quantizer(256);
  encoder.encode = [](const at::Tensor& x_BCHW) {
    EXPECT_LE(x_BCHW.size(0), 32);
    return x_BCHW.flatten(1).slice(1, 0, 5).add(1).mul(127.5).round().to(at::kLong);
  };
  return encoder;
}

tokenizer::Vqvae tiny_tokenizer() {
  tokenizer::Vqvae vqvae({.image_side = 8, .channels = 8, .channel_mult = {1, 2}, .blocks = 1, .groups = 4,
                          .code_width = 4, .vocabulary = 32, .scales = {1, 2, 4}, .phis = 2});
  vqvae.initialise(tokenizer::Init::kPublic, 5);
  return vqvae;
}

struct Made {
  TemporaryFolder folder;
  std::optional<records::TokenFile> file;
  explicit Made(int64_t crops, const ImageEncoder& encoder = pixel_encoder(), double split = 0.2, int64_t batch = 32) {
    write_patterns(folder / "train", 5);
    tokenize({.train = folder / "train", .split = split, .seed = 3, .out = folder / "t.h5", .crops = crops, .batch = batch},
             encoder);
    file.emplace(folder / "t.h5");
  }
  std::shared_ptr<const TrainImages> images(const ImageEncoder& encoder = pixel_encoder()) const {
    return std::make_shared<TrainImages>(*file, folder / "train", encoder);
  }
};

std::vector<int64_t> tokens_of(const Batch& batch, int64_t b) {
  const at::Tensor row_L = batch.tokens_BL[b].contiguous();
  return {row_L.const_data_ptr<int64_t>(), row_L.const_data_ptr<int64_t>() + row_L.numel()};
}

std::vector<int64_t> row_of(const records::TokenFile& file, int64_t image, int64_t crop) {
  const uint16_t* row = file.row(file.train_row(image, crop));
  return {row, row + file.info().tokens_per_image()};
}

// 8 training images in batches of 3, which cross epochs.
TEST(OnlineBatches, GiveInEpochEWhatTheFileHoldsAsCropE) {
  const Made made(3);
  ASSERT_EQ(made.file->info().train_images, 8);
  OnlineBatches online(*made.file, made.images(), 7, 3);
  CachedBatches cached(*made.file, 7, 3);
  for (int64_t step = 0; step < 8; ++step) {
    const Batch batch = online.load(step, 0, 3);
    EXPECT_EQ(batch.sample_ids, cached.load(step, 0, 3).sample_ids);
    EXPECT_TRUE(at::equal(batch.labels_B, cached.load(step, 0, 3).labels_B));
    for (int64_t b = 0; b < 3; ++b) {
      const TrainSample sample = online.sample(batch.sample_ids[b]);
      EXPECT_EQ(sample.image, cached.sample(batch.sample_ids[b]).image);
      EXPECT_EQ(sample.crop, sample.epoch);
      EXPECT_EQ(tokens_of(batch, b), row_of(*made.file, sample.image, sample.epoch)) << "step " << step << " row " << b;
    }
  }
}

TEST(OnlineBatches, TakeOtherCropsInEveryEpochBeyondThoseOfTheFile) {
  const Made made(1);
  OnlineBatches online(*made.file, made.images(), 7, 8);
  std::set<std::vector<int64_t>> seen;
  for (int64_t epoch = 0; epoch < 6; ++epoch) {
    const Batch batch = online.load(epoch, 0, 8);
    for (int64_t b = 0; b < 8; ++b) seen.insert(tokens_of(batch, b));
  }
  // 12 pixels become 9, so an image of 8 has 2 x 5 places; 6 draws for each of 8 images find about 4.7 of 10.
  EXPECT_GT(seen.size(), 8u * 3);
}

TEST(OnlineBatches, DoNotDependOnWhatWasPrepared) {
  const Made made(2);
  OnlineBatches plain(*made.file, made.images(), 7, 6), ahead(*made.file, made.images(), 7, 6);
  for (int64_t step = 0; step < 4; ++step) {
    if (step % 2 == 0) ahead.prepare(step, 0, 6);
    if (step == 2) ahead.prepare(step, 0, 3);  // and is not what comes
    EXPECT_TRUE(at::equal(ahead.load(step, 0, 6).tokens_BL, plain.load(step, 0, 6).tokens_BL));
    EXPECT_TRUE(at::equal(ahead.load(step, 2, 5).tokens_BL, plain.load(step, 0, 6).tokens_BL.slice(0, 2, 5)));
    EXPECT_EQ(ahead.load(step, 4, 4).tokens_BL.size(0), 0);
  }
  ahead.prepare(9, 0, 6);  // and is never asked for
}

// The way of an image is one for both, so a real encoder gives the same tokens for the same images side by side. With
// others beside them the products may be summed in another order, and a near tie between two codes may fall the other
// way: seldom.
TEST(OnlineBatches, EncodeAsTokenizeDoesWithEqualBatchesToTheTokenAndElseUpToNearTies) {
  const TemporaryFolder tokenizers;
  tiny_tokenizer().save(tokenizers / "tok.safetensors");
  const ImageEncoder encoder = load_encoder(tokenizers / "tok.safetensors");
  const Made made(2, encoder, /*split=*/0.2, /*batch=*/4);  // 8 images: two portions of 4, each crop on its own
  const auto images = made.images(encoder);
  int64_t tokens = 0, equal = 0;
  for (int64_t crop = 0; crop < 2; ++crop) {
    for (int64_t first = 0; first < 8; first += 4) {
      std::vector<TrainSample> samples;
      for (int64_t image = first; image < first + 4; ++image) samples.push_back({crop, image, crop});
      const Batch batch{images->encode(images->decode_u8_BHWC(samples)), {}, {}};
      for (int64_t b = 0; b < 4; ++b) EXPECT_EQ(tokens_of(batch, b), row_of(*made.file, first + b, crop));
      for (int64_t b = 0; b < 4; ++b) {
        const Batch alone{images->encode(images->decode_u8_BHWC({samples[b]})), {}, {}};
        const std::vector<int64_t> mine = tokens_of(alone, 0), theirs = row_of(*made.file, first + b, crop);
        tokens += static_cast<int64_t>(mine.size());
        for (size_t l = 0; l < mine.size(); ++l) equal += mine[l] == theirs[l];
      }
    }
  }
  EXPECT_EQ(tokens, 16 * 21);
  EXPECT_GE(equal, tokens - 2);
}

TEST(OnlineBatches, NameAnUnreadableImageWhenItsPartIsLoaded) {
  const Made made(1);
  OnlineBatches online(*made.file, made.images(), 7, 1);
  const int64_t image = online.sample(4).image;
  const int64_t source = made.file->source_id(made.file->train_row(image, 0));
  const fs::path path = made.folder / "train" / fmt::format("c{}/{}.png", source / 5, source % 5);
  truncate(path);
  for (int64_t step = 0; step < 8; ++step) {
    online.prepare(step, 0, 1);
    const std::string said = message_of<UserError>([&] { online.load(step, 0, 1); });
    if (step == 4)
      EXPECT_NE(said.find(path.string() + ": not a readable image"), std::string::npos) << said;
    else
      EXPECT_EQ(said, kAccepted) << step;
  }
}

std::string refusal(const records::TokenFile& file, const fs::path& folder, const ImageEncoder& encoder) {
  return message_of<UserError>([&] { TrainImages(file, folder, encoder); });
}

TEST(TrainImages, RefuseWhatDoesNotBelongToTheTokenFile) {
  const Made made(2);
  const fs::path train = made.folder / "train";
  EXPECT_EQ(refusal(*made.file, train, pixel_encoder()), kAccepted);

  const std::string tokenizer = refusal(*made.file, train, pixel_encoder("other"));
  EXPECT_NE(tokenizer.find("pixels.safetensors: is not the tokenizer that"), std::string::npos) << tokenizer;
  EXPECT_NE(tokenizer.find("its fingerprint is other, expected pixels"), std::string::npos) << tokenizer;

  EXPECT_NE(refusal(*made.file, made.folder / "nowhere", pixel_encoder()).find("nowhere: does not exist"),
            std::string::npos);
  const auto other_folder = [&](const std::function<void(const fs::path&)>& change) {
    const fs::path other = made.folder / "other";
    fs::remove_all(other);
    fs::copy(train, other, fs::copy_options::recursive);
    EXPECT_EQ(refusal(*made.file, other, pixel_encoder()), kAccepted);
    change(other);
    const std::string said = refusal(*made.file, other, pixel_encoder());
    EXPECT_NE(said.find(other.string() + ": does not hold the training images"), std::string::npos) << said;
    EXPECT_NE(said.find((made.folder / "t.h5").string()), std::string::npos) << said;
  };
  const auto first = [&](const fs::path& folder) {
    const int64_t source = made.file->source_id(0);
    return folder / fmt::format("c{}/{}.png", source / 5, source % 5);
  };
  other_folder([&](const fs::path& folder) { truncate(first(folder)); });
  other_folder([&](const fs::path& folder) { fs::remove(folder / "c1/4.png"), fs::remove(folder / "c1/3.png"); });
  other_folder([&](const fs::path& folder) { fs::rename(first(folder), first(folder).replace_extension(".PNG")); });
  other_folder([&](const fs::path& folder) { fs::rename(folder / "c1", folder / "d1"); });

  // A file that does not say where its crops come from, and one whose images went another way.
  const auto rewritten = [&](const std::function<void(records::TokenFileInfo&)>& change) {
    records::TokenFileInfo info = made.file->info();
    change(info);
    const fs::path path = made.folder / "rewritten.h5";
    records::TokenFileWriter writer(path, info, made.file->quantizer());
    for (int64_t r = 0; r < info.rows(); ++r)
      writer.write_row(r, made.file->row(r), made.file->label(r), made.file->source_id(r));
    writer.commit();
    return refusal(records::TokenFile(path), train, pixel_encoder());
  };
  EXPECT_EQ(rewritten([](auto&) {}), kAccepted);
  EXPECT_NE(rewritten([](auto& info) { info.train_source.reset(); }).find("needs a token file made by var_data tokenize anew"),
            std::string::npos);
  for (const auto& said : {rewritten([](auto& info) { info.preprocessing = "by another way"; }),
                           rewritten([](auto& info) { info.train_source->crop_seed = 4; }),
                           rewritten([](auto& info) { info.train_source->keep_exact = true; })})
    EXPECT_NE(said.find("rewritten.h5: its preprocessing is"), std::string::npos) << said;
}

// Images that were left out as unreadable, and those of a validation folder, stay out.
TEST(TrainImages, AreThoseOfTheTrainingRows) {
  const TemporaryFolder folder;
  write_patterns(folder / "train", 5);
  write_patterns(folder / "val", 2, 50);
  truncate(folder / "train/c0/3.png");
  tokenize({.train = folder / "train", .validation = folder / "val", .out = folder / "t.h5", .crops = 2, .skip_corrupt = true},
           pixel_encoder());
  const records::TokenFile file(folder / "t.h5");
  ASSERT_EQ(file.info().train_images, 9);
  OnlineBatches online(file, std::make_shared<TrainImages>(file, folder / "train", pixel_encoder()), 1, 9);
  const Batch batch = online.load(1, 0, 9);
  for (int64_t b = 0; b < 9; ++b)
    EXPECT_EQ(tokens_of(batch, b), row_of(file, online.sample(batch.sample_ids[b]).image, 1));
}

}  // namespace
}  // namespace varscale::data
