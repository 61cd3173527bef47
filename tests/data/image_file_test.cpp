#include "data/image_file.hpp"

#include "data/png.hpp"
#include "support.hpp"

namespace varscale::data {
namespace {

TEST(DecodeRgb, EqualsPillowOnLosslessFiles) {
  for (const std::string name :
       {"rgb.png", "grey.png", "palette.png", "alpha.png", "lossless.webp"}) {
    EXPECT_EQ(largest_difference(to_tensor(decode_rgb(image_fixture(name))), pillow(name + ".rgb")),
              0)
        << name;
  }
}

TEST(DecodeRgb, EqualsPillowOnJpeg) {
  // Pillow may bundle another libjpeg, whose colour upsampling may round by a step.
  for (const std::string name : {"photo.jpg", "grey.JPEG"}) {
    EXPECT_LE(largest_difference(to_tensor(decode_rgb(image_fixture(name))), pillow(name + ".rgb")),
              2)
        << name;
  }
}

TEST(DecodeRgb, ConvertsCmyk) {
  // Without an embedded profile the conversion is a matter of taste: only the picture must be the same.
  const at::Tensor ours = to_tensor(decode_rgb(image_fixture("cmyk.jpg"))).to(at::kDouble);
  const at::Tensor theirs = pillow("cmyk.jpg.rgb").to(at::kDouble);
  ASSERT_EQ(ours.sizes(), theirs.sizes());
  const at::Tensor a = ours - ours.mean(), b = theirs - theirs.mean();
  EXPECT_GT(((a * b).sum() / (a.norm() * b.norm())).item<double>(), 0.9);
}

TEST(DecodeRgb, NamesWhatCannotBeRead) {
  const TemporaryFolder folder;
  for (const std::string name : {"rgb.png", "photo.jpg", "lossless.webp"}) {
    const auto path = folder / name;
    std::filesystem::copy_file(image_fixture(name), path);
    truncate(path);
    EXPECT_NE(message_of<UserError>([&] {
                decode_rgb(path);
              }).find(path.string() + ": not a readable image"),
              std::string::npos)
        << name;
  }
  const auto text = folder.write("text.png", "no image at all");
  EXPECT_THROW(decode_rgb(text), UserError);
  const auto empty = folder.write("empty.jpg", "");
  EXPECT_THROW(decode_rgb(empty), UserError);
  EXPECT_THROW(decode_rgb(folder / "absent.png"), UserError);
}

TEST(ResizeLanczos, EqualsPillowBitForBit) {
  const RgbImage image = to_image(pillow("rgb.png.rgb"));
  for (const auto& [width, height] : std::vector<std::pair<int64_t, int64_t>>{
           {36, 27}, {20, 15}, {53, 17}, {100, 40}, {106, 80}, {8, 6}, {1, 1}}) {
    const std::string name = fmt::format("rgb.png.{}x{}", width, height);
    EXPECT_EQ(largest_difference(to_tensor(resize_lanczos(image, width, height)), pillow(name)), 0)
        << name;
  }
}

TEST(WritePng, ReadsBackTheSame) {
  const TemporaryFolder folder;
  const at::Tensor image = pillow("rgb.png.rgb");
  write_png(folder / "a.png", image);
  EXPECT_TRUE(at::equal(to_tensor(decode_rgb(folder / "a.png")), image));
  EXPECT_EQ(folder.entries(), 1);
}

TEST(WritePng, RefusesAFolderThatIsNotThere) {
  const TemporaryFolder folder;
  EXPECT_THROW(write_png(folder / "absent" / "a.png", pillow("rgb.png.rgb")), UserError);
}

TEST(Grid, PutsImagesRowByRowWithGaps) {
  const at::Tensor images = at::arange(3, at::kByte).reshape({3, 1, 1, 1}).expand({3, 4, 5, 3});
  const at::Tensor sheet = grid(images, 2, 1);
  ASSERT_EQ(sheet.sizes(), (at::IntArrayRef{2 * 5 + 1, 2 * 6 + 1, 3}));
  EXPECT_EQ(sheet[1][1][0].item<int>(), 0);
  EXPECT_EQ(sheet[1][7][0].item<int>(), 1);
  EXPECT_EQ(sheet[6][1][0].item<int>(), 2);
  EXPECT_EQ(sheet[6][7][0].item<int>(), 255);  // no fourth image
  // Everything else is the white between them: three images of 4 x 5 pixels.
  EXPECT_EQ((sheet != 255).sum().item<int64_t>(), 3 * 4 * 5 * 3);
  EXPECT_TRUE(at::equal(enlarge(sheet, 3).slice(0, 1, {}, 3).slice(1, 2, {}, 3), sheet));
}

TEST(ByteImages, SurviveTheWayToFloatAndBack) {
  const at::Tensor bytes =
      at::arange(256, at::kLong).to(at::kByte).reshape({1, 16, 16, 1}).expand({1, 16, 16, 3});
  const at::Tensor x_BCHW = to_float_BCHW(bytes);
  EXPECT_EQ(x_BCHW.sizes(), (at::IntArrayRef{1, 3, 16, 16}));
  EXPECT_EQ(x_BCHW.min().item<float>(), -1.f);
  EXPECT_EQ(x_BCHW.max().item<float>(), 1.f);
  EXPECT_TRUE(at::equal(to_u8_BHWC(x_BCHW), bytes));
  EXPECT_TRUE(at::equal(to_u8_BHWC(x_BCHW * 3).max(), at::full({}, 255, at::kByte)));  // clamped
}

}  // namespace
}  // namespace varscale::data
