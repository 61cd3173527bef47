#include "data/tokenize.hpp"

#include <atomic>

#include "base/file.hpp"
#include "comm/thread_group.hpp"
#include "support.hpp"
#include "tar_writer.hpp"

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

TEST(Tokenize, KeepsWhatIsDoneWhereALaterImageCannotBeRead) {
  const TemporaryFolder folder;
  write_tree(folder / "train", 1, 8, 8);
  write_tree(folder / "val", 1, 1, 8);
  TokenizeOptions options{
      .train = folder / "train", .validation = folder / "val", .out = folder / "calm.h5", .batch = 2};
  tokenize(options, grey_encoder(8));
  options.out = folder / "t.h5";
  // In the last block of training images, damaged without a change of its size.
  const fs::path victim = folder / "train/c0/7.png";
  const std::string good = base::read_file(victim);
  const auto write = [&](const std::string& bytes) { std::ofstream(victim, std::ios::binary) << bytes; };
  write(good.substr(0, 30) + std::string(good.size() - 30, '\0'));
  const std::string part = (folder / "t.h5.part").string();
  const std::string said = message_of<UserError>([&] { tokenize(options, grey_encoder(8)); });
  EXPECT_TRUE(said.starts_with(victim.string() + ": not a readable image")) << said;
  EXPECT_TRUE(said.ends_with("; the 6 rows done are kept in " + part + ", and the same command goes on there")) << said;
  EXPECT_FALSE(fs::exists(options.out));
  write(good);
  int encoded = 0;
  ImageEncoder encoder = grey_encoder(8);
  encoder.encode = [&encoded, inner = encoder.encode](const at::Tensor& x_BCHW) {
    ++encoded;
    return inner(x_BCHW);
  };
  tokenize(options, encoder);
  EXPECT_EQ(encoded, 2);  // the last block of training images and that of validation
  EXPECT_EQ(base::read_file(options.out), base::read_file(folder / "calm.h5"));
  EXPECT_FALSE(fs::exists(part));
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
  EXPECT_NE(refused([&](auto& o) { o.validation = o.train; }).find("is the training source"),
            std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.validation_labels = "labels.txt"; }).find("needs --val"),
            std::string::npos);
  EXPECT_NE(refused([&](auto& o) { o.out = folder / "no/such/t.h5"; }).find("no/such"),
            std::string::npos);
  EXPECT_EQ(folder.entries(), 1);
}

// 23 training and 7 validation images of 16 pixels, 3 crops: six blocks of 5 training images and two of validation.
struct SmallJob {
  SmallJob() {
    write_tree(folder / "train", 1, 23, 16);
    write_tree(folder / "val", 1, 7, 16);
  }
  TokenizeOptions options(const char* out) const {
    return {.train = folder / "train", .validation = folder / "val", .out = folder / out, .crops = 3, .batch = 5};
  }
  std::string bytes(const char* out) const { return base::read_file(folder / out); }
  bool is_clean() const { return !fs::exists(folder / "t.h5.part"); }
  TemporaryFolder folder;
};

TEST(Tokenize, GivesTheSameBytesAtAnyNumberOfRanks) {
  const SmallJob job;
  tokenize(job.options("alone.h5"), grey_encoder(8));
  for (const int ranks : {2, 3, 11}) {  // eleven: more than blocks
    comm::run_ranks(ranks, [&](comm::Communicator& world) {
      const TokenizeReport report = tokenize(job.options("t.h5"), grey_encoder(8), world);
      EXPECT_FALSE(report.stopped);
      EXPECT_EQ(report.rows_done, 23 * 3 + 7);
    });
    EXPECT_EQ(job.bytes("t.h5"), job.bytes("alone.h5")) << ranks;
    EXPECT_TRUE(job.is_clean());
    fs::remove(job.folder / "t.h5");
  }
}

TEST(Tokenize, GoesOnWhereItStoppedWithAnotherNumberOfRanks) {
  const SmallJob job;
  tokenize(job.options("alone.h5"), grey_encoder(8));
  std::atomic<int> encoded{0};
  const auto counting = [&] {
    ImageEncoder encoder = grey_encoder(8);
    encoder.encode = [&encoded, inner = encoder.encode](const at::Tensor& x_BCHW) {
      ++encoded;
      return inner(x_BCHW);
    };
    return encoder;
  };
  // Alone, stopped behind three blocks of three crops.
  int asked = 0;
  const auto alone = comm::make_self();
  TokenizeReport report = tokenize(job.options("t.h5"), counting(), *alone, [&] { return ++asked > 3; });
  EXPECT_TRUE(report.stopped);
  EXPECT_EQ(report.rows_done, 3 * 5 * 3);
  EXPECT_EQ(encoded, 9);
  EXPECT_FALSE(fs::exists(job.folder / "t.h5"));
  EXPECT_FALSE(job.is_clean());
  // Three ranks, of which the last is told to stop at once: so are all, after at most the block they are in.
  comm::run_ranks(3, [&](comm::Communicator& world) {
    const TokenizeReport part = tokenize(job.options("t.h5"), counting(), world, [&] { return world.rank() == 2; });
    EXPECT_TRUE(part.stopped);
  });
  // Two ranks finish it; what was done is not done again.
  comm::run_ranks(2, [&](comm::Communicator& world) {
    EXPECT_FALSE(tokenize(job.options("t.h5"), counting(), world).stopped);
  });
  EXPECT_EQ(encoded, 5 * 3 + 2);
  EXPECT_EQ(job.bytes("t.h5"), job.bytes("alone.h5"));
  EXPECT_TRUE(job.is_clean());
}

TEST(Tokenize, RefusesToGoOnWithOtherOptionsOrImages) {
  const SmallJob job;
  const auto alone = comm::make_self();
  int asked = 0;
  tokenize(job.options("t.h5"), grey_encoder(8), *alone, [&] { return ++asked > 2; });
  const auto refused = [&](const std::function<void(TokenizeOptions&)>& change) {
    TokenizeOptions options = job.options("t.h5");
    change(options);
    return message_of<UserError>([&] { tokenize(options, grey_encoder(8)); });
  };
  const std::string part = (job.folder / "t.h5.part").string();
  EXPECT_NE(refused([](auto& o) { o.crops = 2; }).find(
                part + ": holds work that was begun with \"crops 3\", now \"crops 2\""), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.batch = 4; }).find("\"batch 5\", now \"batch 4\""), std::string::npos);
  EXPECT_NE(refused([](auto& o) { o.seed = 1; }).find("random (seed 0)"), std::string::npos);
  ImageEncoder other = grey_encoder(8);
  other.precision = "bf16";
  EXPECT_NE(message_of<UserError>([&] { tokenize(job.options("t.h5"), other); }).find("now \"precision bf16\""),
            std::string::npos);
  write_plain(job.folder / "train/c0/22.png", 16, 20, 3);
  EXPECT_NE(refused([](auto&) {}).find("\"source_fingerprint "), std::string::npos);
  EXPECT_FALSE(job.is_clean());  // it is still there for who has the right ones
}

TEST(Tokenize, SharesTheSearchForUnreadableImagesAmongTheRanks) {
  const SmallJob job;
  for (const char* name : {"train/c0/3.png", "train/c0/20.png", "val/c0/1.png"}) truncate(job.folder / name);
  TokenizeOptions options = job.options("alone.h5");
  options.skip_corrupt = true;
  tokenize(options, grey_encoder(8));
  options.out = job.folder / "t.h5";
  comm::run_ranks(3, [&](comm::Communicator& world) {
    const TokenizeReport report = tokenize(options, grey_encoder(8), world);
    ASSERT_EQ(report.skipped.size(), 3u);
    EXPECT_NE(report.skipped[0].reason.find("train/c0/20.png"), std::string::npos);  // "20" comes before "3"
    EXPECT_NE(report.skipped[2].reason.find("val/c0/1.png"), std::string::npos);
    EXPECT_EQ(report.info.train_images, 21);
  });
  EXPECT_EQ(job.bytes("t.h5"), job.bytes("alone.h5"));
}

TEST(Tokenize, TakesTarsAndLists) {
  const TemporaryFolder folder;
  TarText tar;
  std::string list;
  for (int64_t i = 0; i < 6; ++i) {
    const fs::path path = write_plain(folder / fmt::format("v/{}.png", i), 8, 8, static_cast<uint8_t>(10 * i));
    tar.add(fmt::format("{}.png", i), base::read_file(path)).add(fmt::format("{}.cls", i), std::to_string(i % 3));
    list += fmt::format("v/{}.png {}\n", i, i % 2);
  }
  folder.write("t.tar", tar.text());
  folder.write("v.txt", list);
  tokenize({.train = folder / "t.tar", .validation = folder / "v.txt", .out = folder / "t.h5"}, grey_encoder(8));
  const records::TokenFile file(folder / "t.h5");
  file.verify();
  EXPECT_EQ(file.info().class_names, (std::vector<std::string>{"0", "1", "2"}));
  for (int64_t i = 0; i < 6; ++i) {
    EXPECT_EQ(file.row(file.train_row(i, 0))[0], 10 * i);
    EXPECT_EQ(file.label(file.train_row(i, 0)), i % 3);
    EXPECT_EQ(file.row(file.validation_row(i))[0], 10 * i);
    EXPECT_EQ(file.label(file.validation_row(i)), i % 2);
  }
}

TEST(Tokenize, PlansWithoutWriting) {
  const SmallJob job;
  const int before = job.folder.entries();
  const TokenizePlan plan = plan_tokenize(job.options("t.h5"), grey_encoder(8));
  EXPECT_EQ(plan.info.rows(), 76);
  EXPECT_EQ(plan.file_bytes, 76 * (2 * 5 + 4 + 1 + 8));
  EXPECT_GT(plan.rows_per_s, 0);
  EXPECT_GT(plan.decoding_share, 0);
  EXPECT_LT(plan.decoding_share, 1);
  EXPECT_EQ(job.folder.entries(), before);
}

}  // namespace
}  // namespace varscale::data
