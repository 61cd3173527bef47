#include "generate/pyramid.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <set>
#include <tuple>

#include "base/error.hpp"
#include "data/png.hpp"
#include "tests/generate/small_pair.hpp"

namespace varscale::generate {
namespace {

TEST(Pyramid, ShowsEveryMapAndEndsWithTheImage) {
  const SmallPair pair;
  const Samples samples = pair.sampler({.cfg = 1.5, .seed = 3, .group = 2}).sample({{.image = 4, .label = 1}});
  const Tensor pictures = pyramid(pair.tokenizer, samples.tokens_BL);
  ASSERT_EQ(pictures.sizes(), (std::vector<int64_t>{8, 16, 16, 3}));
  const Tensor image = data::to_u8_BHWC(decode_each(pair.tokenizer, samples.f_hat_BEHW))[0];
  EXPECT_TRUE(at::equal(pictures[7], image));
  EXPECT_FALSE(at::equal(pictures[6], image));
  EXPECT_TRUE(at::equal(pictures[4], data::to_u8_BHWC(pair.tokenizer.decode(pair.tokenizer.quantizer().contribution(
                                         0, samples.tokens_BL.slice(1, 0, 1))))[0]));

  // Each place of a map is a square of one colour, and two places have one colour where they have one token.
  int64_t begin = 0;
  std::set<std::tuple<int, int, int, int64_t>> colours;
  std::set<int64_t> tokens;
  for (int64_t k = 0; k < 4; ++k) {
    const int64_t cells = int64_t{1} << k, cell = 16 / cells;
    for (int64_t y = 0; y < cells; ++y) {
      for (int64_t x = 0; x < cells; ++x) {
        const Tensor square_CC3 = pictures[k].slice(0, y * cell, (y + 1) * cell).slice(1, x * cell, (x + 1) * cell);
        const Tensor colour_3 = square_CC3[0][0];
        EXPECT_TRUE(at::equal(square_CC3, colour_3.expand_as(square_CC3))) << k << ' ' << y << ' ' << x;
        const int64_t token = samples.tokens_BL[0][begin + y * cells + x].item<int64_t>();
        tokens.insert(token);
        colours.insert({colour_3[0].item<int>(), colour_3[1].item<int>(), colour_3[2].item<int>(), token});
      }
    }
    begin += cells * cells;
  }
  EXPECT_GT(tokens.size(), 5u);
  EXPECT_EQ(colours.size(), tokens.size());
}

TEST(Pyramid, RefusesTokensOfMoreThanOneImage) {
  const SmallPair pair;
  EXPECT_THROW(pyramid(pair.tokenizer, at::zeros({2, 85}, at::kLong)), base::InvariantError);
}

}  // namespace
}  // namespace varscale::generate
