#include "data/image_file.hpp"

#include "base/file.hpp"
#include "data/png.hpp"
#include "support.hpp"

namespace varscale::data {
namespace {

TEST(DecodeRgb, EqualsPillowOnPngAndWebp) {
  for (const std::string name :
       {"rgb.png", "grey.png", "palette.png", "alpha.png", "bits.png", "grey_alpha.png", "palette_clear.png",
        "rgb_clear.png", "rgb16.png", "rgba16.png", "grey16.png", "grey_alpha16.png", "lossless.webp", "alpha.webp",
        "lossy.webp", "moving.webp"}) {
    EXPECT_EQ(largest_difference(to_tensor(decode_rgb(image_fixture(name))), pillow(name + ".rgb")), 0) << name;
  }
}

TEST(DecodeRgb, EqualsPillowOnJpegWithinALevel) {
  // Pillow brings another libjpeg, whose colour conversion may round the other way.
  for (const std::string name : {"photo.jpg", "grey.JPEG", "progressive.jpg", "full_colour.jpg", "turned.jpg",
                                 "broken_exif.jpg", "cmyk.jpg", "cmyk_plain.jpg", "ycck.jpg"}) {
    EXPECT_LE(largest_difference(to_tensor(decode_rgb(image_fixture(name))), pillow(name + ".rgb")), 1) << name;
  }
}

TEST(DecodeRgb, GoesByTheBytesAndNotByTheName) {
  const std::string png = base::read_file(image_fixture("rgb.png"));
  EXPECT_TRUE(at::equal(to_tensor(decode_rgb(png, "called.jpg")), pillow("rgb.png.rgb")));
}

TEST(DecodeRgb, NamesWhatCannotBeRead) {
  const auto refusal = [](const std::string& bytes) {
    return message_of<UserError>([&] { decode_rgb(bytes, "some/image"); });
  };
  for (const std::string name : {"rgb.png", "photo.jpg", "progressive.jpg", "lossless.webp", "lossy.webp"}) {
    const std::string bytes = base::read_file(image_fixture(name));
    for (const size_t part : {2, 3, 4}) {
      const std::string said = refusal(bytes.substr(0, bytes.size() - bytes.size() / part));
      EXPECT_TRUE(said.starts_with("some/image: not a readable image (")) << name << ": " << said;
    }
  }
  for (const std::string& bytes : {std::string(), std::string("no image at all"), std::string("GIF89a and more"),
                                   std::string("<svg xmlns='http://www.w3.org/2000/svg'/>")})
    EXPECT_TRUE(refusal(bytes).starts_with("some/image: not a readable image (")) << bytes;
}

// A PNG of these sizes as its header has them, with no pixels behind it.
std::string png_head(uint32_t width, uint32_t height) {
  std::string header = base::read_file(image_fixture("rgb.png")).substr(0, 33);
  for (int i = 0; i < 4; ++i) {
    header[16 + i] = static_cast<char>(width >> (24 - 8 * i));
    header[20 + i] = static_cast<char>(height >> (24 - 8 * i));
  }
  uint32_t crc = ~0u;  // of PNG: reflected, polynomial 0xedb88320
  for (size_t i = 12; i < 29; ++i) {
    crc ^= static_cast<uint8_t>(header[i]);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
  }
  for (int i = 0; i < 4; ++i) header[29 + i] = static_cast<char>(~crc >> (24 - 8 * i));
  return header + base::read_file(image_fixture("rgb.png")).substr(33);
}

TEST(DecodeRgb, RefusesBombsByTheirHeader) {
  const auto refusal = [](uint32_t width, uint32_t height) {
    return message_of<UserError>([&] { decode_rgb(png_head(width, height), "bomb.png"); });
  };
  EXPECT_EQ(refusal(53, 40), "(nothing was thrown)");  // the file as it is
  EXPECT_EQ(refusal(20000, 20000), "bomb.png: has 20000 x 20000 pixels, expected at most 178956970 in all");
  EXPECT_EQ(refusal(100000, 1), "bomb.png: has 100000 x 1 pixels, expected a longer side of at most 200 times the shorter one");
  // Within the limit, but the pixels are not there.
  EXPECT_NE(refusal(13000, 13000).find("not a readable image"), std::string::npos);
  EXPECT_NE(refusal(0xffffffff, 0xffffffff).find("bomb.png: "), std::string::npos);
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
