#include "data/tokenize.hpp"

#include "support.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;

// Stands in for a tokenizer: token l of an image is its mean grey level plus l.
ImageEncoder grey_encoder(int64_t side) {
  ImageEncoder encoder;
  encoder.image_side = side;
  encoder.scales = {1, 2};
  encoder.fingerprint = "grey";
  encoder.path = "none";
  encoder.quantizer = small_quantizer(512);
  encoder.encode = [side](const at::Tensor& x_BCHW) {
    EXPECT_EQ(x_BCHW.sizes().slice(1), (at::IntArrayRef{3, side, side}));
    const at::Tensor grey_B = x_BCHW.mean({1, 2, 3}).add(1).mul(127.5).round().to(at::kLong);
    return grey_B.unsqueeze(1) + at::arange(5);
  };
  return encoder;
}

TEST(Tokenize, WritesEveryImageWithItsTokensLabelAndSource) {
  const TemporaryFolder folder;
  write_tree(folder / "train", 3, 4, 8);
  write_tree(folder / "val", 2, 2, 8);
  for (const int64_t batch : {1, 5, 64}) {
    const TokenizeReport report = tokenize({.train = folder / "train",
                                            .validation = folder / "val",
                                            .out = folder / "t.h5",
                                            .batch = batch},
                                           grey_encoder(8));
    EXPECT_EQ(report.info.train_images, 12);
    EXPECT_EQ(report.info.validation_images, 4);
    const records::TokenFile file(folder / "t.h5");
    file.verify();
    EXPECT_EQ(file.info().class_names, (std::vector<std::string>{"c0", "c1", "c2"}));
    EXPECT_EQ(file.info().tokenizer_fingerprint, "grey");
    for (int64_t i = 0; i < 12; ++i) {
      const int64_t row = file.train_row(i, 0);
      EXPECT_EQ(file.label(row), i / 4);
      EXPECT_EQ(file.source_id(row), i);
      for (int64_t l = 0; l < 5; ++l) EXPECT_EQ(file.row(row)[l], 20 * (i / 4) + i % 4 + l);
    }
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t row = file.validation_row(i);
      EXPECT_EQ(file.label(row), i / 2);
      EXPECT_EQ(file.row(row)[0], 20 * (i / 2) + i % 2);
    }
  }
}

TEST(Tokenize, KeepsTheCropsOfAnImageTogether) {
  const TemporaryFolder folder;
  write_tree(folder / "train", 2, 3, 16);
  const TokenizeOptions options{
      .train = folder / "train", .split = 0.34, .out = folder / "t.h5", .crops = 3, .batch = 2};
  const TokenizeReport report = tokenize(options, grey_encoder(8));
  EXPECT_EQ(report.info.train_images, 4);
  EXPECT_EQ(report.info.validation_images, 2);
  const records::TokenFile file(folder / "t.h5");
  std::vector<bool> seen(6, false);
  const auto expect_row =
      [&](int64_t row) {  // of one colour, so every crop has the image's grey level
        const int64_t source = file.source_id(row);
        EXPECT_EQ(file.row(row)[0], 20 * (source / 3) + source % 3);
        EXPECT_EQ(file.label(row), source / 3);
        seen[source] = true;
      };
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t crop = 0; crop < 3; ++crop) {
      EXPECT_EQ(file.source_id(file.train_row(i, crop)), file.source_id(file.train_row(i, 0)));
      expect_row(file.train_row(i, crop));
    }
  }
  for (int64_t i = 0; i < 2; ++i) expect_row(file.validation_row(i));
  EXPECT_EQ(seen, std::vector<bool>(6, true));
}

TEST(Tokenize, TakesLabelsOfAFlatFolder) {
  const TemporaryFolder folder;
  write_tree(folder / "train", 3, 1, 8);
  write_plain(folder / "val/x.png", 8, 8, 100);
  write_plain(folder / "val/y.png", 8, 8, 101);
  const auto labels = folder.write("labels.txt", "y.png 0\nx.png c2\n");
  tokenize({.train = folder / "train",
            .validation = folder / "val",
            .validation_labels = labels,
            .out = folder / "t.h5"},
           grey_encoder(8));
  const records::TokenFile file(folder / "t.h5");
  EXPECT_EQ(file.label(file.validation_row(0)), 2);
  EXPECT_EQ(file.label(file.validation_row(1)), 0);
  EXPECT_EQ(file.row(file.validation_row(1))[0], 101);
}

TEST(Tokenize, NamesAnUnreadableImageAndLeavesNothing) {
  const TemporaryFolder folder;
  write_tree(folder / "train", 2, 4, 8);
  truncate(folder / "train/c1/2.png");
  const TokenizeOptions options{.train = folder / "train", .split = 0.2, .out = folder / "t.h5"};
  EXPECT_NE(
      message_of<UserError>([&] { tokenize(options, grey_encoder(8)); }).find("train/c1/2.png"),
      std::string::npos);
  EXPECT_EQ(folder.entries(), 1);  // the images alone
}

TEST(Tokenize, SkipsAndCountsUnreadableImagesWhenAsked) {
  const TemporaryFolder folder;
  write_tree(folder / "train", 2, 4, 8);
  write_tree(folder / "val", 2, 1, 8);
  truncate(folder / "train/c1/2.png");
  const TokenizeReport report = tokenize({.train = folder / "train",
                                          .validation = folder / "val",
                                          .out = folder / "t.h5",
                                          .skip_corrupt = true},
                                         grey_encoder(8));
  ASSERT_EQ(report.skipped.size(), 1u);
  EXPECT_NE(report.skipped[0].reason.find("train/c1/2.png"), std::string::npos);
  EXPECT_EQ(report.info.train_images, 7);
  const records::TokenFile file(folder / "t.h5");
  EXPECT_EQ(file.source_id(file.train_row(6, 0)), 7);  // numbers of the whole listing
  truncate(folder / "val/c0/0.png");
  truncate(folder / "val/c1/0.png");
  EXPECT_NE(message_of<UserError>([&] {
              tokenize({.train = folder / "train",
                        .validation = folder / "val",
                        .out = folder / "u.h5",
                        .skip_corrupt = true},
                       grey_encoder(8));
            }).find("no image can be read"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "u.h5"));
}

TEST(Tokenize, RefusesOptionsThatMakeNoSense) {
  const TemporaryFolder folder;
  write_tree(folder / "train", 2, 4, 8);
  const TokenizeOptions good{.train = folder / "train", .out = folder / "t.h5"};
  const auto refused = [&](const std::function<void(TokenizeOptions&)>& spoil) {
    TokenizeOptions options = good;
    spoil(options);
    return message_of<UserError>([&] { tokenize(options, grey_encoder(8)); });
  };
  EXPECT_NE(refused([](auto& o) { o.crops = 0; }).find("--crops 0"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.batch = 0; }).find("--batch 0"), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.split = 1.5; }).find("--split 1.5"), std::string::npos);
  EXPECT_NE(refused([&](auto& o) { o.validation = o.train; }).find("is the training folder"),
            std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.validation_labels = "labels.txt"; }).find("needs --val"),
            std::string::npos);
  EXPECT_NE(refused([&](auto& o) { o.out = folder / "no/such/t.h5"; }).find("no/such"),
            std::string::npos);
  EXPECT_EQ(folder.entries(), 1);
}

}  // namespace
}  // namespace varscale::data
