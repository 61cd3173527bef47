#include "data/synth.hpp"

#include <map>

#include "base/file.hpp"
#include "data/image_set.hpp"
#include "support.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;

at::Tensor drawn(const SynthImage& image) {
  return to_tensor({image.side, image.side, draw_leaves(image)});
}

TEST(DrawLeaves, IsAFunctionOfSeedSplitAndIndex) {
  const at::Tensor image = drawn({.seed = 1, .index = 17});
  EXPECT_TRUE(at::equal(image, drawn({.seed = 1, .index = 17})));
  EXPECT_FALSE(at::equal(image, drawn({.seed = 2, .index = 17})));
  EXPECT_FALSE(at::equal(image, drawn({.seed = 1, .index = 27})));
  EXPECT_FALSE(at::equal(image, drawn({.seed = 1, .split = SynthSplit::kValidation, .index = 17})));
}

TEST(DrawLeaves, LengthsScaleWithTheSide) {
  for (int64_t index = 0; index < kSynthClasses; ++index) {
    const at::Tensor small = drawn({.index = index, .side = 32}).to(at::kFloat);
    const at::Tensor large = drawn({.index = index, .side = 128}).to(at::kFloat);
    const at::Tensor pooled = large.reshape({32, 4, 32, 4, 3}).mean({1, 3});
    // Edges are one pixel soft at either size, so the two agree but for the pixels along them.
    EXPECT_LT((small - pooled).abs().mean().item<float>(), 4.f) << synth_class_names()[index];
  }
}

TEST(DrawLeaves, ClassesDifferByMoreThanTheirImages) {
  // Nearest class mean over 8 x 8 colour histograms of red and blue: held-out images find their class.
  const auto histogram = [](const SynthImage& image) {
    const at::Tensor pixels = drawn(image).reshape({-1, 3}).to(at::kLong);
    const at::Tensor bins =
        at::floor_divide(pixels.select(1, 0), 32) * 8 + at::floor_divide(pixels.select(1, 2), 32);
    return at::bincount(bins, {}, 64).to(at::kFloat).sqrt();
  };
  std::vector<at::Tensor> means;
  for (int64_t label = 0; label < kSynthClasses; ++label) {
    at::Tensor sum = at::zeros({64});
    for (int64_t k = 0; k < 40; ++k) sum += histogram({.index = 10 * k + label});
    means.push_back(sum / 40);
  }
  const at::Tensor means_C64 = at::stack(means);
  int64_t right = 0;
  for (int64_t i = 0; i < 200; ++i) {
    const at::Tensor h = histogram({.split = SynthSplit::kValidation, .index = i});
    right += (means_C64 - h).norm(2, {1}).argmin().item<int64_t>() == i % 10;
  }
  EXPECT_GE(right, 160);  // chance is 20 of 200
}

TEST(DrawLeaves, HasEdgesAtEverySizeAsNaturalImagesHave) {
  // Power of grey levels falls about as 1 / f^2 in natural images, as 1 / f^3 with large leaves;
  // noise would give 0, a smooth picture without edges 4 and more.
  at::Tensor power = at::zeros({64, 33});
  for (int64_t i = 0; i < 100; ++i) {
    const at::Tensor grey = drawn({.index = i, .side = 64}).to(at::kFloat).mean(2);
    power += at::fft_rfft2(grey - grey.mean()).abs().square();
  }
  const auto band = [&](int64_t low,
                        int64_t high) {  // mean power at frequencies [low, high) of the image
    double sum = 0, count = 0;
    for (int64_t y = 0; y < 64; ++y) {
      for (int64_t x = 0; x < 33; ++x) {
        const double f =
            std::hypot(static_cast<double>(y < 32 ? y : y - 64), static_cast<double>(x));
        if (f >= low && f < high) sum += power[y][x].item<float>(), count += 1;
      }
    }
    return sum / count;
  };
  const double slope = std::log2(band(2, 4) / band(16, 32)) / 3;  // octaves between the bands
  EXPECT_GT(slope, 1.5);
  EXPECT_LT(slope, 3.5);
}

std::map<std::string, std::string> contents(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file())
      files[fs::relative(entry.path(), folder)] = base::read_file(entry.path());
  }
  return files;
}

TEST(WriteSynthTree, IsAnOrdinaryTreeOfOneFolderAClass) {
  const TemporaryFolder folder;
  write_synth_tree(folder / "images", {.train = 25, .validation = 10, .side = 16, .seed = 4}, 2);
  const ImageSet train = ImageSet::open(folder / "images/train");
  EXPECT_EQ(train.class_names(), synth_class_names());
  EXPECT_EQ(train.size(), 25);
  EXPECT_EQ(ImageSet::open(folder / "images/val", &train.class_names()).size(), 10);
  const at::Tensor image =
      to_tensor(decode_rgb(folder / "images/train" / synth_class_names()[3] / "000002.png"));
  EXPECT_TRUE(at::equal(image, drawn({.seed = 4, .index = 13, .side = 16})));
}

TEST(WriteSynthTree, DoesNotDependOnTheThreads) {
  const TemporaryFolder folder;
  write_synth_tree(folder / "one", {.train = 30, .validation = 10}, 1);
  write_synth_tree(folder / "three", {.train = 30, .validation = 10}, 3);
  EXPECT_EQ(contents(folder / "one"), contents(folder / "three"));
}

TEST(WriteSynthTree, RefusesWhatCannotBeAndLeavesNothing) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "there");
  EXPECT_NE(message_of<UserError>([&] {
              write_synth_tree(folder / "there", {}, 1);
            }).find("exists already"),
            std::string::npos);
  EXPECT_THROW(write_synth_tree(folder / "a", {.train = 9}, 1), UserError);
  EXPECT_THROW(write_synth_tree(folder / "a", {.validation = -1}, 1), UserError);
  EXPECT_THROW(write_synth_tree(folder / "a", {.side = 7}, 1), UserError);
  EXPECT_THROW(write_synth_tree(folder / "no/such/place", {}, 1), UserError);
  EXPECT_EQ(folder.entries(), 1);
}

}  // namespace
}  // namespace varscale::data
