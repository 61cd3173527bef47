#include "generate/edit.hpp"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "data/png.hpp"
#include "generate/sampler.hpp"
#include "tests/generate/small_pair.hpp"
#include "tests/support/hash_weights.hpp"
#include "tests/support/temporary_folder.hpp"

namespace varscale::generate {
namespace {

using testing::HasSubstr;

constexpr int64_t kNull = 3, kSide = 16;

Tensor box(int64_t x0, int64_t y0, int64_t x1, int64_t y1, int64_t side = kSide) {
  Tensor marked_XX = at::zeros({side, side}, at::kBool);
  marked_XX.slice(0, y0, y1).slice(1, x0, x1).fill_(true);
  return marked_XX;
}

// 0 and 1 by rows, the maps of a pyramid apart.
std::string drawn(const scaling::ScaleList& scales, const Tensor& keep_L) {
  std::string text;
  for (int64_t k = 0; k < scales.count(); ++k) {
    if (k > 0) text += "|";
    for (int64_t l = scales.begin(k); l < scales.end(k); ++l) {
      if (l > scales.begin(k) && (l - scales.begin(k)) % scales.side(k) == 0) text += " ";
      text += keep_L[l].item<bool>() ? "1" : "0";
    }
  }
  return text;
}

TEST(KeepOutside, BringsAMaskToEachMap) {
  const scaling::ScaleList scales({1, 2, 4});
  // Pixels of 4 x 4 make a cell. The left half is painted.
  EXPECT_EQ(drawn(scales, keep_outside(scales, box(0, 0, 8, 16))), "1|01 01|0011 0011 0011 0011");
  // The upper left cell alone: a fourth of what comes to the map of side 2.
  EXPECT_EQ(drawn(scales, keep_outside(scales, box(0, 0, 4, 4))), "1|11 11|0111 1111 1111 1111");
  // Half of a cell is enough, less is not.
  EXPECT_EQ(drawn(scales, keep_outside(scales, box(0, 0, 2, 4))), "1|11 11|0111 1111 1111 1111");
  EXPECT_EQ(drawn(scales, keep_outside(scales, box(0, 0, 2, 3))), "1|11 11|1111 1111 1111 1111");
  // Two of four cells: half stays, which is not more than half.
  EXPECT_EQ(drawn(scales, keep_outside(scales, box(0, 0, 4, 8))), "1|01 11|0111 0111 1111 1111");
  EXPECT_EQ(drawn(scales, keep_outside(scales, box(0, 0, 16, 16))), "1|00 00|0000 0000 0000 0000");
}

// Against the notebook's own steps for a mask of the last side: torch's bilinear interpolation, then > 0.5.
TEST(KeepOutside, InterpolatesToSidesThatDoNotDivideTheLast) {
  const scaling::ScaleList scales({1, 2, 3, 5});
  // Side 3 sees places 0.33, 2 and 3.67 of the five: rows 0 (2/3) and 1 (1/3); 2; 3 (1/3) and 4 (2/3).
  const Tensor keep_L = keep_outside(scales, box(0, 0, 5, 2, /*side=*/5));
  EXPECT_EQ(drawn(scales, keep_L), "1|00 11|000 111 111|00000 00000 11111 11111 11111");
}

TEST(KeepFirst, KeepsWholeMaps) {
  const scaling::ScaleList scales({1, 2, 3});
  EXPECT_EQ(drawn(scales, keep_first(scales, 0)), "0|00 00|000 000 000");
  EXPECT_EQ(drawn(scales, keep_first(scales, 2)), "1|11 11|000 000 000");
  EXPECT_EQ(drawn(scales, keep_first(scales, 3)), "1|11 11|111 111 111");
}

class Edit : public testing::Test {
 protected:
  Samples sample(const SmallPair& pair, const Tensor& keep_L, SamplingOptions options = {.cfg = 2, .seed = 4},
                 const std::vector<int64_t>& images = {0, 1, 9}) const {
    std::vector<Request> requests;
    for (const int64_t image : images)
      requests.push_back({.image = image, .label = 1, .given = {.tokens_L = tokens_of(pair)[0], .keep_L = keep_L}});
    return pair.sampler(options).sample(requests);
  }
  static Tensor tokens_of(const SmallPair& pair) {
    const Tensor x = test::hash_v("edited image", {1, 3, kSide, kSide}).to(at::kFloat);
    return pair.tokenizer.tokens(x);
  }
  const SmallPair pair_;
  const scaling::ScaleList scales_{{1, 2, 4, 8}};
};

TEST_F(Edit, NothingToPaintIsTheReconstructionToTheBit) {
  const Tensor want_13XX = pair_.tokenizer.decode_tokens(tokens_of(pair_));
  for (const bool smooth : {false, true}) {
    for (const Tensor& keep_L : {keep_outside(scales_, at::zeros({kSide, kSide}, at::kBool)), keep_first(scales_, 4)}) {
      const Samples samples = sample(pair_, keep_L, {.cfg = 2, .seed = 4, .smooth = smooth});
      const Tensor images_B3XX = decode_each(pair_.tokenizer, samples.f_hat_BEHW);
      for (int64_t b = 0; b < 3; ++b) {
        EXPECT_TRUE(at::equal(samples.tokens_BL[b], tokens_of(pair_)[0]));
        EXPECT_TRUE(at::equal(images_B3XX[b], want_13XX[0])) << b << " smooth " << smooth;
      }
    }
  }
}

// Only the map of one place is given, which more than three places would not be.
TEST_F(Edit, PaintingAllIsPlainSamplingAfterTheFirstMap) {
  const Tensor all_XX = at::ones({kSide, kSide}, at::kBool);
  const Samples painted = sample(pair_, keep_outside(scales_, all_XX));
  const Samples first_given = sample(pair_, keep_first(scales_, 1));
  EXPECT_TRUE(at::equal(painted.tokens_BL, first_given.tokens_BL));
  EXPECT_TRUE(at::equal(painted.tokens_BL.select(1, 0), tokens_of(pair_)[0][0].expand({3})));

  const SmallPair from_two({2, 4, 8});
  const Samples all = sample(from_two, keep_outside(scaling::ScaleList({2, 4, 8}), all_XX));
  const Samples plain = from_two.sampler({.cfg = 2, .seed = 4}).sample({{0, 1}, {1, 1}, {9, 1}});
  EXPECT_TRUE(at::equal(all.tokens_BL, plain.tokens_BL));
  EXPECT_TRUE(at::equal(all.f_hat_BEHW, plain.f_hat_BEHW));
}

// The reconstruction where the last map's tokens stay, a board of two greys where they do not.
TEST_F(Edit, WhatIsGivenIsShownAndTheRestIsABoard) {
  const Tensor tokens_1L = tokens_of(pair_), whole = data::to_u8_BHWC(pair_.tokenizer.decode_tokens(tokens_1L));
  const Tensor painted_XX = box(4, 6, 12, 14);
  const Tensor shown = shown_as_given(pair_.tokenizer, tokens_1L, keep_outside(scales_, painted_XX));
  ASSERT_EQ(shown.sizes(), (std::vector<int64_t>{1, kSide, kSide, 3}));
  const Tensor outside_1XX1 = painted_XX.logical_not().view({1, kSide, kSide, 1});
  EXPECT_TRUE(at::equal(shown.masked_select(outside_1XX1), whole.masked_select(outside_1XX1)));
  // A cell has 2 x 2 pixels, so a square of the board is one.
  for (int64_t y = 6; y < 14; ++y)
    for (int64_t x = 4; x < 12; ++x)
      for (int64_t c = 0; c < 3; ++c)
        EXPECT_EQ(shown[0][y][x][c].item<int64_t>(), (x + y) % 2 == 0 ? 216 : 168) << x << ' ' << y;
}

TEST_F(Edit, OfWholeMapsWhatTheyMakeIsShown) {
  const Tensor tokens_1L = tokens_of(pair_);
  const std::vector<Tensor> cumulative = pair_.tokenizer.quantizer().cumulative(tokens_1L);
  for (int64_t maps = 1; maps <= scales_.count(); ++maps)
    EXPECT_TRUE(at::equal(shown_as_given(pair_.tokenizer, tokens_1L, keep_first(scales_, maps)),
                          data::to_u8_BHWC(pair_.tokenizer.decode(cumulative[maps - 1]))))
        << maps;
  EXPECT_THROW(shown_as_given(pair_.tokenizer, tokens_1L, keep_first(scales_, 0)), base::InvariantError);
}

TEST_F(Edit, TokensOutsideTheMaskAreTheGivenOnesAndInsideTheModels) {
  const Tensor keep_L = keep_outside(scales_, box(4, 4, 12, 14)), given_L = tokens_of(pair_)[0];
  for (const bool smooth : {false, true}) {
    const Samples samples = sample(pair_, keep_L, {.cfg = 2, .seed = 4, .smooth = smooth});
    for (int64_t b = 0; b < 3; ++b) {
      const Tensor same_L = samples.tokens_BL[b] == given_L;
      EXPECT_TRUE(same_L.masked_select(keep_L).all().item<bool>()) << b;
      // 64 codes: a few of the painted places may come out as they were.
      EXPECT_LT(same_L.masked_select(keep_L.logical_not()).to(at::kFloat).mean().item<float>(), 0.5f) << b;
    }
    EXPECT_FALSE(at::equal(samples.tokens_BL[0], samples.tokens_BL[1]));
  }
}

// The model sees what is given: its logits are those of a pass over the mixed tokens.
TEST_F(Edit, LaterMapsSeeTheMixture) {
  const Tensor keep_L = keep_outside(scales_, box(0, 0, 16, 8));
  std::vector<Tensor> logits;
  const std::vector<Request> requests = {{0, 1, {tokens_of(pair_)[0], keep_L}}, {1, 2, {tokens_of(pair_)[0], keep_L}}};
  const Samples samples = pair_.sampler({.cfg = 0, .group = 2}).sample(requests, [&](const MapView& map) {
    logits.push_back(map.logits_GNV);
  });
  const at::NoGradGuard no_grad;
  const Tensor want_BLV = pair_.model.forward(at::tensor({1, 2}, at::kLong),
                                              pair_.tokenizer.quantizer().teacher_input(samples.tokens_BL));
  // Products and attention over other shapes: float32 roundings.
  EXPECT_LE((at::cat(logits, 1) - want_BLV).abs().max().item<float>(), 5e-6 * want_BLV.abs().max().item<float>());
}

TEST_F(Edit, ResultsAreFunctionsOfSeedAndImageAlone) {
  const Tensor keep_L = keep_outside(scales_, box(0, 0, 8, 8));
  for (const bool smooth : {false, true}) {
    const SamplingOptions options{.cfg = 1, .top_k = 20, .seed = 7, .smooth = smooth};
    const Samples together = sample(pair_, keep_L, options, {0, 1, 9}), alone = sample(pair_, keep_L, options, {9});
    EXPECT_TRUE(at::equal(together.f_hat_BEHW[2], alone.f_hat_BEHW[0])) << smooth;
    const Samples other = sample(pair_, keep_L, {.cfg = 1, .top_k = 20, .seed = 8, .smooth = smooth}, {9});
    EXPECT_FALSE(at::equal(other.tokens_BL, alone.tokens_BL)) << smooth;
  }
}

TEST(SmoothWeights, AreMixturesThatNarrowFromMapToMap) {
  const Tensor logits_NV = test::hash_v("smooth", {50, 64}).to(at::kFloat);
  double before = 0;
  for (int64_t k = 0; k < 4; ++k) {
    const Tensor weights_NV = smooth_weights(logits_NV, /*seed=*/1, /*image=*/0, k, /*scales=*/4);
    EXPECT_LE((weights_NV.sum(-1) - 1).abs().max().item<float>(), 1e-5);
    const double largest = weights_NV.amax({-1}).mean().item<double>();
    EXPECT_GT(largest, before);
    before = largest;
  }
  EXPECT_GT(before, 0.95);
  EXPECT_FALSE(at::equal(smooth_weights(logits_NV, 1, 0, 2, 4), smooth_weights(logits_NV, 1, 1, 2, 4)));
}

// Without temperature the place of the largest weight is a draw of softmax((1 + r) logits), here with r = 0.
TEST(SmoothWeights, LargestOnesFollowTheProbabilities) {
  const Tensor p_V = at::tensor({0.5f, 0.3f, 0.15f, 0.05f, 0.f});
  constexpr int64_t kDraws = 40000;
  const Tensor drawn_N = smooth_weights(p_V.log().expand({kDraws, 5}), 3, 0, 0, 4).argmax(-1);
  for (int64_t v = 0; v < 5; ++v) {
    const double p = p_V[v].item<double>(), share = (drawn_N == v).sum().item<double>() / kDraws;
    // Five standard deviations of a binomial share; the draws are fixed by the seed.
    EXPECT_NEAR(share, p, 5 * std::sqrt(p * (1 - p) / kDraws)) << v;
  }
}

class PictureTest : public testing::Test {
 protected:
  std::filesystem::path write(const char* name, const Tensor& image_u8_HW3) const {
    data::write_png(folder_ / name, image_u8_HW3.contiguous());
    return folder_ / name;
  }
  std::filesystem::path write_mask(const char* name, const Tensor& marked_HW) const {
    return write(name, (marked_HW.to(at::kByte) * 255).unsqueeze(2).expand({marked_HW.size(0), marked_HW.size(1), 3}));
  }
  static Tensor noise(int64_t height, int64_t width) {
    return test::hash_int_tensor("noise", {height, width, 3}, 256).to(at::kByte);
  }
  base::TemporaryFolder folder_;
};

TEST_F(PictureTest, OfTheRightSizeIsTakenAsItIs) {
  const Tensor image = noise(16, 16);
  const Picture picture = Picture::read(write("a.png", image), 16);
  EXPECT_TRUE(at::equal(picture.pixels_u8_XX3(), image));
  EXPECT_TRUE(at::equal(picture.x_13XX(), data::to_float_BCHW(image.unsqueeze(0))));
  EXPECT_TRUE(at::equal(picture.marked_by(Box{2, 3, 7, 16}), box(2, 3, 7, 16)));
  EXPECT_TRUE(at::equal(picture.marked_by(write_mask("m.png", box(2, 3, 7, 16))), box(2, 3, 7, 16)));
}

// Twice the size and half as wide again: the central square at half the resolution, mask and box with it.
TEST_F(PictureTest, MaskAndBoxFollowTheImageToItsSize) {
  const Tensor image = at::full({32, 48, 3}, 90, at::kByte);
  const Picture picture = Picture::read(write("a.png", image), 16);
  EXPECT_TRUE(at::equal(picture.pixels_u8_XX3(), at::full({16, 16, 3}, 90, at::kByte)));
  EXPECT_TRUE(at::equal(picture.marked_by(Box{16, 8, 32, 24}), box(4, 4, 12, 12)));
  Tensor mask_HW = at::zeros({32, 48}, at::kBool);
  mask_HW.slice(0, 8, 24).slice(1, 16, 32).fill_(true);
  EXPECT_TRUE(at::equal(picture.marked_by(write_mask("m.png", mask_HW)), box(4, 4, 12, 12)));
}

TEST_F(PictureTest, RefusesInOneSentence) {
  const Picture picture = Picture::read(write("a.png", noise(16, 16)), 16);
  const auto said = [](const auto& call) { return base::message_of<base::UserError>(call); };
  EXPECT_THAT(said([&] { picture.marked_by(write_mask("m.png", at::ones({16, 18}, at::kBool))); }),
              HasSubstr("m.png: has 18 x 16 pixels; expected 16 x 16, the size of"));
  EXPECT_THAT(said([&] { picture.marked_by(write_mask("m.png", at::zeros({16, 16}, at::kBool))); }),
              HasSubstr("m.png: marks no pixel; expected white where it marks"));
  EXPECT_THAT(said([&] { picture.marked_by(Box{4, 4, 4, 8}); }),
              HasSubstr("--box 4,4,4,8: expected x0 < x1 and y0 < y1 within the 16 x 16 pixels of"));
  EXPECT_THAT(said([&] { picture.marked_by(Box{0, 0, 17, 8}); }), HasSubstr("--box 0,0,17,8: expected"));
  EXPECT_EQ(said([&] { parse_box("1,2,3"); }), "--box 1,2,3: expected four whole numbers, x0,y0,x1,y1");
  EXPECT_THAT(said([&] { parse_box("1,2,3,4,5"); }), HasSubstr("expected four whole numbers"));
  EXPECT_THAT(said([&] { parse_box("a,2,3,4"); }), HasSubstr("expected four whole numbers"));
  EXPECT_THAT(said([&] { Picture::read(folder_.write("b.png", "no image"), 16); }), HasSubstr("b.png"));
  const Picture wide = Picture::read(write("w.png", noise(16, 40)), 16);
  EXPECT_THAT(said([&] { wide.marked_by(Box{0, 0, 8, 16}); }), HasSubstr("marks no pixel of the central square"));
}

}  // namespace
}  // namespace varscale::generate
