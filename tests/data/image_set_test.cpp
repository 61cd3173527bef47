#include "data/image_set.hpp"

#include <set>

#include "data/image_batches.hpp"
#include "support.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;

TEST(ImageSet, ListsClassesAndFilesByName) {
  const TemporaryFolder folder;
  for (const char* name :
       {"zoo/a.PNG", "zoo/10.png", "zoo/2.png", "ant/x.jpeg", ".hidden/y.png", "ant/.z.png"}) {
    fs::create_directories((folder / name).parent_path());
    folder.write(name, "1234");
  }
  folder.write("README.md", "about these images");
  const ImageSet set = ImageSet::open(folder.path());
  EXPECT_EQ(set.class_names(), (std::vector<std::string>{"ant", "zoo"}));
  std::vector<std::string> names;
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < set.size(); ++i) {
    names.push_back(set.entry(i).name);
    labels.push_back(set.entry(i).label);
    EXPECT_EQ(set.entry(i).source_id, i);
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"ant/x.jpeg", "zoo/10.png", "zoo/2.png", "zoo/a.PNG"}));
  EXPECT_EQ(labels, (std::vector<int64_t>{0, 1, 1, 1}));
}

TEST(ImageSet, FingerprintFollowsNamesAndSizesNotThePlace) {
  const TemporaryFolder one, two;
  for (const TemporaryFolder* folder : {&one, &two}) {
    fs::create_directories(*folder / "a");
    folder->write("a/1.png", "12");
  }
  const std::string first = ImageSet::open(one.path()).fingerprint();
  EXPECT_EQ(first, ImageSet::open(two.path()).fingerprint());
  two.write("a/1.png", "123");
  EXPECT_NE(first, ImageSet::open(two.path()).fingerprint());
  fs::rename(one / "a/1.png", one / "a/2.png");
  EXPECT_NE(first, ImageSet::open(one.path()).fingerprint());
}

TEST(ImageSet, ValidationMayLackAClassButNotAddOne) {
  const TemporaryFolder folder;
  write_tree(folder / "val", 2, 1, 8);
  const std::vector<std::string> three = {"b", "c0", "c1"}, one = {"c0"};
  EXPECT_EQ(ImageSet::open(folder / "val", &three).entry(0).label, 1);
  EXPECT_NE(message_of<UserError>([&] {
              ImageSet::open(folder / "val", &one);
            }).find("val/c1: is not a class"),
            std::string::npos);
}

struct BadTree {
  const char* what;
  std::vector<const char*> files;  // "x/" is an empty folder
  const char* message;
};

TEST(ImageSet, RefusesFoldersThatAreNotOneFolderAClass) {
  const BadTree cases[] = {
      {"nothing", {}, "holds no class folders"},
      {"files only", {"1.png", "2.png"}, "holds image files but no class folders"},
      {"files beside folders",
       {"a/1.png", "2.png"},
       "holds image files (2.png) beside class folders (a)"},
      {"an empty class", {"a/1.png", "b/"}, "/b: is empty, expected image files"},
      {"another kind of file", {"a/1.png", "a/2.gif"}, "a/2.gif: is not an image file"},
      {"a tree too deep", {"a/b/1.png"}, "a/b: is a folder inside a class folder"},
  };
  for (const BadTree& bad : cases) {
    const TemporaryFolder folder;
    for (const std::string name : bad.files) {
      fs::create_directories((folder / name).parent_path());
      if (!name.ends_with('/')) folder.write(name, "1234");
    }
    const std::string message = message_of<UserError>([&] { ImageSet::open(folder.path()); });
    EXPECT_NE(message.find(bad.message), std::string::npos) << bad.what << ": " << message;
    EXPECT_NE(message.find(folder.path().string()), std::string::npos)
        << bad.what << ": " << message;
  }
  EXPECT_NE(message_of<UserError>([] { ImageSet::open("/nowhere"); }).find("does not exist"),
            std::string::npos);
}

TEST(FlatImageSet, TakesLabelsByLineOrByName) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "val");
  for (const char* name : {"val/a.png", "val/b.png", "val/c.png"}) folder.write(name, "1");
  const std::vector<std::string> classes = {"cat", "dog", "eel"};
  const auto labels_by = [&](const char* text) {
    const ImageSet set =
        ImageSet::open_flat(folder / "val", folder.write("labels.txt", text), classes);
    return std::vector<int64_t>{set.entry(0).label, set.entry(1).label, set.entry(2).label};
  };
  EXPECT_EQ(labels_by("2\n0\n1\n"), (std::vector<int64_t>{2, 0, 1}));
  EXPECT_EQ(labels_by("# images of 2024\nc.png 2\n\na.png eel\nb.png dog # sure\n"),
            (std::vector<int64_t>{2, 1, 2}));
}

TEST(FlatImageSet, RefusesLabelsWithFileAndLine) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "val");
  for (const char* name : {"val/a.png", "val/b.png"}) folder.write(name, "1");
  const std::vector<std::string> classes = {"cat", "dog"};
  const std::pair<const char*, const char*> cases[] = {
      {"0\n2\n", "labels.txt:2: label 2 is out of range, expected 0 to 1"},
      {"0\n-1\n", "labels.txt:2: label -1 is out of range"},
      {"0\ndig\n",
       "labels.txt:2: \"dig\" is neither a class number nor a class of the training set; did you "
       "mean dog?"},
      {"a.png 0\nz.png 1\n", "labels.txt:2: no image z.png in"},
      {"a.png 0\n\na.png 1\n", "labels.txt:3: a second label for a.png"},
      {"a.png 0\n1\n", "labels.txt:2: every line must have the same form"},
      {"a.png 0 1\nb.png 0\n", "labels.txt:1: 3 words"},
      {"0\n", "labels.txt: 1 labels for the 2 images"},
      {"", "labels.txt: 0 labels for the 2 images"},
  };
  for (const auto& [text, expected] : cases) {
    const fs::path labels = folder.write("labels.txt", text);
    const std::string message =
        message_of<UserError>([&] { ImageSet::open_flat(folder / "val", labels, classes); });
    EXPECT_NE(message.find(expected), std::string::npos) << text << ": " << message;
  }
  EXPECT_THROW(ImageSet::open_flat(folder / "val", folder / "absent.txt", classes), UserError);
  EXPECT_NE(message_of<UserError>([&] {
              ImageSet::open_flat(folder.path(), folder / "labels.txt", classes);
            }).find("holds a folder (val)"),
            std::string::npos);
}

TEST(Split, DividesTheListingByTheSeedAlone) {
  const TemporaryFolder folder;
  write_tree(folder / "all", 4, 10, 8);
  const ImageSet all = ImageSet::open(folder / "all");
  const auto ids = [](const ImageSet& set) {
    std::set<int64_t> list;
    for (int64_t i = 0; i < set.size(); ++i) list.insert(set.entry(i).source_id);
    return list;
  };
  const SplitSets a = split(all, 0.25, 5), again = split(all, 0.25, 5), other = split(all, 0.25, 6);
  EXPECT_EQ(a.validation.size(), 10);
  EXPECT_EQ(a.train.size(), 30);
  std::set<int64_t> both = ids(a.train);
  both.merge(ids(a.validation));
  EXPECT_EQ(both.size(), 40u);  // disjoint and complete
  EXPECT_EQ(ids(a.validation), ids(again.validation));
  EXPECT_NE(ids(a.validation), ids(other.validation));
  EXPECT_EQ(split(all, 0.001, 5).validation.size(), 1);
  for (const double bad : {0.0, 1.0, -0.5, 0.999})
    EXPECT_THROW(split(all, bad, 5), UserError) << bad;
}

// A set with the fixture image (53 x 40) as its only one.
ImageSet one_image(const TemporaryFolder& folder) {
  fs::create_directories(folder / "set/c");
  fs::copy_file(image_fixture("rgb.png"), folder / "set/c/rgb.png",
                fs::copy_options::skip_existing);
  return ImageSet::open(folder / "set");
}

TEST(ImageBatches, CentreCropIsTheMiddleOfPillowsResize) {
  const TemporaryFolder folder;
  // Side 24: short side 40 to 27, long side 53 * 27 / 40 = 35.775, cut to 35; spare 3 and 11, halves 1.5 and 5.5, to even.
  const ImageBatches images(one_image(folder), {.side = 24}, Crop::kCentre);
  const at::Tensor expected = to_tensor(resize_lanczos(to_image(pillow("rgb.png.rgb")), 35, 27))
                                  .narrow(0, 2, 24)
                                  .narrow(1, 6, 24);
  EXPECT_TRUE(at::equal(images.batch_u8_BHWC({0})[0], expected));
  const at::Tensor x_CHW = images.batch({0})[0];
  const float byte = expected[3][5][1].item<float>();
  EXPECT_FLOAT_EQ(x_CHW[1][3][5].item<float>(), byte / 255.f * 2 - 1);
}

TEST(ImageBatches, RandomCropsDependOnSeedImageAndNumberAlone) {
  const TemporaryFolder folder;
  const ImageSet set = one_image(folder);
  const ImageBatches kept(set, {.side = 24, .seed = 3}, Crop::kRandom);
  const ImageBatches fresh(set, {.side = 24, .seed = 3}, Crop::kRandom, /*cache_bytes=*/0);
  const ImageBatches other(set, {.side = 24, .seed = 4}, Crop::kRandom);
  int differing = 0, other_seed = 0;
  for (int64_t crop = 0; crop < 8; ++crop) {
    const at::Tensor image = kept.batch_u8_BHWC({0}, crop);
    EXPECT_TRUE(at::equal(image, kept.batch_u8_BHWC({0}, crop)));
    EXPECT_TRUE(at::equal(image, fresh.batch_u8_BHWC({0}, crop)));
    differing += !at::equal(image, kept.batch_u8_BHWC({0}, 0));
    other_seed += !at::equal(image, other.batch_u8_BHWC({0}, crop));
  }
  EXPECT_GE(differing, 5);  // 48 places: eight draws give two alike only now and then
  EXPECT_GE(other_seed, 5);
}

TEST(ImageBatches, AnImageOfTheRightSizeIsTakenAsItIs) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "set/c");
  const at::Tensor image = pillow("rgb.png.rgb").narrow(0, 3, 32).narrow(1, 4, 32).contiguous();
  write_png_file(folder / "set/c/1.png", image.const_data_ptr<uint8_t>(), 32, 32,
                 Durability::kPlain);
  const ImageSet set = ImageSet::open(folder / "set");
  EXPECT_TRUE(
      at::equal(ImageBatches(set, {.side = 32}, Crop::kRandom).batch_u8_BHWC({0})[0], image));
  const ImageBatches resized(set, {.side = 32, .keep_exact = false}, Crop::kCentre);
  EXPECT_FALSE(at::equal(resized.batch_u8_BHWC({0})[0], image));
}

TEST(ImageBatches, NameTheFirstUnreadableImageOfABatch) {
  const TemporaryFolder folder;
  write_tree(folder / "set", 1, 6, 32);
  for (const char* name : {"set/c0/4.png", "set/c0/2.png"}) truncate(folder / name);
  const ImageSet set = ImageSet::open(folder / "set");
  const ImageBatches images(set, {.side = 32}, Crop::kCentre);
  EXPECT_NE(message_of<UserError>([&] {
              images.batch({0, 1, 2, 3, 4, 5});
            }).find("c0/2.png"),
            std::string::npos);
  const auto corrupt = find_corrupt(set, 0, set.size());
  ASSERT_EQ(corrupt.size(), 2u);
  EXPECT_EQ(corrupt[0].number, 2);
  EXPECT_EQ(corrupt[1].number, 4);
}

}  // namespace
}  // namespace varscale::data
