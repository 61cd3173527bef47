// Images from folders, tar archives and lists: the same pixels and crops, and every fault in one sentence.
#include "base/file.hpp"
#include "data/image_batches.hpp"
#include "data/tar_reader.hpp"
#include "support.hpp"
#include "tar_writer.hpp"

namespace varscale::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kNothing = "(nothing was thrown)";

std::string refusal(const fs::path& source, const std::vector<std::string>* classes = nullptr) {
  return message_of<UserError>([&] { ImageSet::open(source, classes); });
}

std::string fixture(const std::string& name) { return base::read_file(image_fixture(name)); }

// rgb.png, photo.jpg, lossless.webp and grey.png with the labels 0 1 1 2, as three sources in the same order.
struct SameImages {
  SameImages() {
    const std::vector<std::tuple<const char*, const char*, int>> images = {
        {"a", "rgb.png", 0}, {"b", "photo.jpg", 1}, {"c", "lossless.webp", 1}, {"d", "grey.png", 2}};
    std::string list = "# four images\n\n";
    TarText first, second;
    for (const auto& [key, name, label] : images) {
      const std::string suffix = fs::path(name).extension().string();
      const fs::path path = folder / fmt::format("set/{}/{}{}", label, key, suffix);
      fs::create_directories(path.parent_path());
      fs::copy_file(image_fixture(name), path);
      list += fmt::format("set/{}/{}{}{}{}\n", label, key, suffix, *key == 'b' ? "\t" : " ", label);
      TarText& tar = *key < 'c' ? first : second;
      tar.add(key + suffix, fixture(name)).add(key + std::string(".cls"), fmt::format("{}\n", label));
    }
    folder.write("list.txt", list);
    fs::create_directories(folder / "shards");
    folder.write("shards/x-08.tar", first.text());
    folder.write("shards/x-09.tar", second.text());
  }
  TemporaryFolder folder;
};

TEST(ImageSources, GiveTheSameBytesLabelsAndCrops) {
  const SameImages made;
  const ImageSet tree = ImageSet::open(made.folder / "set");
  const ImageBatches expected(tree, {.side = 24, .seed = 9}, Crop::kRandom);
  for (const char* source : {"list.txt", "shards", "shards/x-{08..09}.tar"}) {
    const ImageSet set = ImageSet::open(made.folder / source);
    ASSERT_EQ(set.size(), 4) << source;
    EXPECT_EQ(set.class_names(), (std::vector<std::string>{"0", "1", "2"}));
    const ImageBatches images(set, {.side = 24, .seed = 9}, Crop::kRandom, /*cache_bytes=*/0);
    for (int64_t i = 0; i < 4; ++i) {
      EXPECT_EQ(set.read(i), tree.read(i)) << source;
      EXPECT_EQ(set.label(i), tree.label(i));
      EXPECT_EQ(set.entry(i).bytes, tree.entry(i).bytes);
      EXPECT_EQ(set.source_id(i), i);
    }
    for (int64_t crop = 0; crop < 3; ++crop)
      EXPECT_TRUE(at::equal(images.batch_u8_BHWC({3, 0, 2, 1}, crop), expected.batch_u8_BHWC({3, 0, 2, 1}, crop)));
    // One image alone, and several crops at once, are cut at the same places.
    const at::Tensor crops_u8_NBHWC = images.crops_u8_NBHWC({2, 1}, 1, 2);
    for (int64_t n = 0; n < 2; ++n)
      EXPECT_TRUE(at::equal(crops_u8_NBHWC[n], expected.batch_u8_BHWC({2, 1}, 1 + n)));
    // The crop follows the number in the listing, not that in a part of it.
    const ImageBatches part(set.subset({2, 3}), {.side = 24, .seed = 9}, Crop::kRandom);
    EXPECT_TRUE(at::equal(part.batch_u8_BHWC({1}, 2), expected.batch_u8_BHWC({3}, 2)));
  }
  EXPECT_EQ(ImageSet::open(made.folder / "shards/x-09.tar").entry(0).name, "x-09.tar: c.webp");
  EXPECT_EQ(ImageSet::open(made.folder / "shards").fingerprint(),
            ImageSet::open(made.folder / "shards/x-{08..09}.tar").fingerprint());
}

TEST(ImageSources, NameACorruptImageOfAnySource) {
  const SameImages made;
  const std::string png = fixture("rgb.png");
  made.folder.write("cut.tar", TarText().add("k/one.png", png.substr(0, 900)).add("k/one.cls", "0").text());
  truncate(made.folder / "set/1/b.jpg");
  for (const auto& [source, number, name] : std::vector<std::tuple<const char*, int64_t, std::string>>{
           {"cut.tar", 0, "cut.tar: k/one.png: not a readable image"},
           {"list.txt", 1, "set/1/b.jpg: not a readable image"}}) {
    const ImageSet set = ImageSet::open(made.folder / source);
    const auto corrupt = find_corrupt(set, 0, set.size());
    ASSERT_EQ(corrupt.size(), 1u) << source;
    EXPECT_EQ(corrupt[0].number, number);
    EXPECT_NE(corrupt[0].reason.find(name), std::string::npos) << corrupt[0].reason;
  }
}

TEST(Tars, ReadLongNamesOfEveryKind) {
  const std::string folder_name = std::string(60, 'f') + "/" + std::string(70, 'g');
  const std::string long_name = folder_name + "/n00000001_17";
  const std::string very_long = std::string(300, 'h') + "/x";
  for (const auto kind : {TarText::Kind::kUstar, TarText::Kind::kGnu, TarText::Kind::kPax}) {
    const TemporaryFolder folder;
    TarText tar(kind);
    tar.add(long_name + ".JPEG", fixture("photo.jpg")).add(long_name + ".cls", "4");
    if (kind != TarText::Kind::kUstar) tar.add(very_long + ".png", fixture("rgb.png")).add(very_long + ".cls", "2");
    tar.add("short.png", fixture("grey.png")).add("short.cls", "0");
    const ImageSet set = ImageSet::open(folder.write("x.tar", tar.text()));
    ASSERT_EQ(set.size(), kind == TarText::Kind::kUstar ? 2 : 3);
    EXPECT_EQ(set.entry(0).name, "x.tar: " + long_name + ".JPEG");
    EXPECT_EQ(set.label(0), 4);
    EXPECT_EQ(set.read(0), fixture("photo.jpg"));
    EXPECT_EQ(set.entry(set.size() - 1).name, "x.tar: short.png");
    EXPECT_EQ(set.read(set.size() - 1), fixture("grey.png"));
    if (kind != TarText::Kind::kUstar) {
      EXPECT_EQ(set.entry(1).name, "x.tar: " + very_long + ".png");
    }
  }
}

TEST(Tars, ReadWhatPythonsTarfileWrites) {
  const TemporaryFolder folder;
  const char* script = R"(
import io, sys, tarfile
for form, name in ((tarfile.USTAR_FORMAT, "u"), (tarfile.GNU_FORMAT, "g"), (tarfile.PAX_FORMAT, "p")):
    with tarfile.open(f"{sys.argv[1]}/{name}.tar", "w", format=form) as tar:
        folder = tarfile.TarInfo("images"); folder.type = tarfile.DIRTYPE; tar.addfile(folder)
        for i in range(3):
            for suffix, data in (("png", open(sys.argv[2], "rb").read()), ("cls", str(i).encode())):
                member = tarfile.TarInfo(f"images/{'x' * 90}{i}/k\u00e4se.{suffix}"); member.size = len(data)
                member.mtime = 1.5 if name == "p" else 1
                tar.addfile(member, io.BytesIO(data))
)";
  folder.write("make.py", script);
  const std::string command = fmt::format("python3 '{}' '{}' '{}'", (folder / "make.py").string(),
                                          folder.path().string(),
                                          image_fixture("rgb.png").string());
  ASSERT_EQ(std::system(command.c_str()), 0);
  for (const char* name : {"u.tar", "g.tar", "p.tar"}) {
    const ImageSet set = ImageSet::open(folder / name);
    ASSERT_EQ(set.size(), 3) << name;
    for (int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(set.entry(i).name, fmt::format("{}: images/{}{}/käse.png", name, std::string(90, 'x'), i));
      EXPECT_EQ(set.label(i), i);
      EXPECT_EQ(set.read(i), fixture("rgb.png"));
    }
  }
}

TEST(Tars, TakeLabelsFromClsJsonOrTxtAndPassOverTheRest) {
  const TemporaryFolder folder;
  const std::string png = fixture("rgb.png");
  TarText tar;
  tar.raw("d/", "", '5').add("d/README", "about").add("d/.hidden.png", "x").add("meta.json", "{}");
  tar.add("d/a.png", png).add("d/a.cls", " 3\n").add("d/a.json", R"({"label": 7})").add("d/a.seg.png", png);
  tar.add("d/b.txt", "2").add("d/b.png", png).add("d/b.width", "53");
  tar.add("d/c.json", R"({"label": 1, "caption": "a leaf"})").add("d/c.txt", "a leaf").add("d/c.png", png);
  tar.raw("d/e.png", "", '2');  // a link
  const ImageSet set = ImageSet::open(folder.write("x.tar", tar.text()));
  ASSERT_EQ(set.size(), 3);
  EXPECT_EQ((std::vector<int64_t>{set.label(0), set.label(1), set.label(2)}), (std::vector<int64_t>{3, 2, 1}));
  EXPECT_EQ(set.class_names(), (std::vector<std::string>{"0", "1", "2", "3"}));
  const std::vector<std::string> classes(5, "c");
  EXPECT_EQ(ImageSet::open(folder / "x.tar", &classes).class_names().size(), 5u);
}

TEST(Tars, AreRefusedWithTheArchiveAndTheByte) {
  const TemporaryFolder folder;
  const std::string png = fixture("rgb.png");  // 5352 bytes: 11 blocks
  const std::string good = TarText().add("a.png", png).add("a.cls", "0").text();
  const auto with = [&](const std::string& text) { return refusal(folder.write("x.tar", text)); };
  const std::string path = (folder / "x.tar").string();
  ASSERT_EQ(with(good), kNothing);
  std::string damaged = good, summed = good;
  damaged[512 * 12 + 3] ^= 1;
  const struct {
    std::string text, said;
  } cases[] = {
      {"", path + ": is empty, expected a tar archive"},
      {std::string("\x1f\x8b\x08", 3) + good, path + ": is compressed (gzip)"},
      {"\x28\xb5\x2f\xfd" + good, path + ": is compressed (zstd)"},
      {"BZh9" + good, path + ": is compressed (bzip2)"},
      {std::string(600, 'x'), path + ": the header at byte 0 is damaged, or this is no tar archive"},
      {good.substr(0, 300), path + ": is cut short: it ends at byte 300"},
      {good.substr(0, 2000), path + ": is cut short: the member at byte 0 has 5352 bytes, but the file ends at byte 2000"},
      {good.substr(0, 512 * 12 + 100), path + ": is cut short: it ends at byte 6244, expected a member"},
      {TarText().add("a.png", png).add("a.cls", "0").without_end(),
       path + ": is cut short: it ends at byte 7168, expected a member or the mark of the archive's end at byte 7168"},
      {damaged, path + ": the header at byte 6144 is damaged"},
      {good + good, path + ": holds more behind the mark of its end, from byte 7168 on"},
      {TarText().add("a.png", png).text(), path + ": a.png: has no label; expected a.cls"},
      {TarText().add("a.png", png).add("a.cls", "cat").text(),
       path + ": a.cls: holds \"cat\", expected a class number"},
      {TarText().add("a.png", png).add("a.cls", "-1").text(), path + ": a.cls: holds \"-1\""},
      {TarText().add("a.png", png).add("a.cls", "5000000").text(), path + ": a.cls: label 5000000, expected less than"},
      {TarText().add("a.png", png).add("a.json", "{\"label\": \"cat\"}").text(), path + ": a.json: has no \"label\""},
      {TarText().add("a.png", png).add("a.jpg", png).add("a.cls", "1").text(),
       path + ": a.jpg: a second image of the sample a"},
      {TarText().add("a.cls", "1").add("b.txt", "2").text(), path + ": holds no image"},
      {TarText().raw("a.png", png, 'S').text(), path + ": the member at byte 0 is a sparse file"},
      {TarText().raw("p", "999 path=x\n", 'x').add("a.png", png).text(),
       path + ": the pax header at byte 0 cannot be read"},
      {TarText().raw("././@LongLink", "a.png", 'L').text(), path + ": ends at byte 1024 behind a long name"},
  };
  for (const auto& [text, said] : cases) {
    const std::string found = with(text);
    EXPECT_TRUE(found.starts_with(said)) << found << "\n expected " << said;
  }
  const std::vector<std::string> one_class = {"only"};
  folder.write("x.tar", TarText().add("a.png", png).add("a.cls", "1").text());
  EXPECT_NE(refusal(folder / "x.tar", &one_class).find("a.cls: label 1 is out of range, expected 0 to 0"),
            std::string::npos);
}

TEST(Tars, AreFoundByBracesOrInAFolder) {
  const TemporaryFolder folder;
  const std::string tar = TarText().add("a.png", fixture("rgb.png")).add("a.cls", "0").text();
  for (const char* name : {"t-9.tar", "t-10.tar", "t-11.tar"}) folder.write(name, tar);
  EXPECT_EQ(ImageSet::open(folder / "t-{9..11}.tar").size(), 3);
  EXPECT_EQ(ImageSet::open(folder / "t-{9..11}.tar").entry(0).name, "t-9.tar: a.png");
  EXPECT_NE(refusal(folder / "t-{9..12}.tar").find("t-12.tar: cannot be read"), std::string::npos);
  for (const char* bad : {"t-{9}.tar", "t-{11..9}.tar", "t-{a..b}.tar", "t-{1..2}-{1..2}.tar", "t-{09..100}.tar",
                          "t-{1..2.tar"})
    EXPECT_NE(refusal(folder / bad).find("braces of another form"), std::string::npos) << bad;
  fs::create_directories(folder / "cats");
  EXPECT_NE(refusal(folder.path()).find("holds archives (t-10.tar) beside folders (cats)"), std::string::npos);
}

TEST(Lists, TakeNumbersOrNames) {
  const SameImages made;
  const auto labels = [&](const std::string& text, const std::vector<std::string>* classes = nullptr) {
    const ImageSet set = ImageSet::open(made.folder.write("l.txt", text), classes);
    std::vector<int64_t> all;
    for (int64_t i = 0; i < set.size(); ++i) all.push_back(set.label(i));
    return std::make_pair(all, set.class_names());
  };
  using Labels = std::pair<std::vector<int64_t>, std::vector<std::string>>;
  EXPECT_EQ(labels("set/0/a.png 2\nset/1/b.jpg\t0\r\n"), (Labels{{2, 0}, {"0", "1", "2"}}));
  EXPECT_EQ(labels("set/0/a.png eel\n#set/2/d.png cow\nset/1/b.jpg\tbig cat\nset/2/d.png eel"),
            (Labels{{1, 0, 1}, {"big cat", "eel"}}));
  const std::vector<std::string> classes = {"ant", "bee", "cow"};
  EXPECT_EQ(labels("set/0/a.png cow\nset/2/d.png 1\n", &classes), (Labels{{2, 1}, classes}));
  // A path may have blanks, and be absolute.
  fs::copy_file(image_fixture("rgb.png"), made.folder / "one two.png");
  EXPECT_EQ(labels("one two.png 0\n" + image_fixture("grey.png").string() + " 1\n").first,
            (std::vector<int64_t>{0, 1}));
}

TEST(Lists, AreRefusedWithFileAndLine) {
  const SameImages made;
  const auto with = [&](const std::string& text, const std::vector<std::string>* classes = nullptr) {
    return refusal(made.folder.write("l.txt", text), classes);
  };
  const std::string path = (made.folder / "l.txt").string();
  const std::vector<std::string> classes = {"cat", "dog"};
  EXPECT_EQ(with(""), path + ": names no image, expected \"path label\" on each line");
  EXPECT_EQ(with("# nothing\n\nset/0/a.png\n"), path + ":3: \"set/0/a.png\", expected \"path label\"");
  EXPECT_NE(with("set/0/a.png 1\nset/0/z.png 1\n")
                .find(path + ":2: " + (made.folder / "set/0/z.png").string() + " cannot be read"),
            std::string::npos);
  EXPECT_NE(with("set/0/a.txt 1\n").find(path + ":1: set/0/a.txt is not an image file"), std::string::npos);
  EXPECT_NE(with("set/0/a.png 9000000\n").find(path + ":1: label 9000000"), std::string::npos);
  EXPECT_NE(with("set/0/a.png cot\n", &classes).find(path + ":1: \"cot\" is neither a class number nor a class"),
            std::string::npos);
  EXPECT_NE(with(std::string("\x89PNG\0\n", 6)).find(path + ":1: holds a zero byte"), std::string::npos);
  EXPECT_NE(refusal(made.folder / "no.txt").find("no.txt: does not exist"), std::string::npos);
}

}  // namespace
}  // namespace varscale::data
