#include "generate/choose.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <limits>

#include "nn/tensor.hpp"
#include "tests/support/parity.hpp"

namespace varscale::generate {
namespace {

constexpr float kGone = -std::numeric_limits<float>::infinity();

Tensor row(std::vector<float> values) { return at::tensor(values, at::kFloat); }

TEST(Guidance, RampsFromNothingToTheFullWeight) {
  EXPECT_EQ(guidance_at(1.5, 0, 4), 0);
  EXPECT_EQ(guidance_at(1.5, 1, 4), 0.5);
  EXPECT_EQ(guidance_at(1.5, 3, 4), 1.5);
  EXPECT_EQ(guidance_at(1.5, 0, 1), 0);  // a single map is never guided
}

TEST(Guidance, ExtrapolatesFromTheUnconditionalLogits) {
  const Tensor cond = row({1, 2, 4}), uncond = row({2, 2, 1});
  EXPECT_TRUE(at::equal(guide(cond, uncond, 0), cond));
  EXPECT_TRUE(at::equal(guide(cond, uncond, 0.5), row({0.5, 2, 5.5})));
  EXPECT_TRUE(at::equal(cond, row({1, 2, 4})));  // the inputs stay as they were
}

TEST(FilterLogits, KeepsTheKLargestAndTheirTies) {
  const Tensor logits = row({0, 3, 1, 2, 2, -1});
  EXPECT_TRUE(at::equal(filter_logits(logits, 2, 0), row({kGone, 3, kGone, 2, 2, kGone})));
  EXPECT_TRUE(at::equal(filter_logits(logits, 1, 0), row({kGone, 3, kGone, kGone, kGone, kGone})));
  EXPECT_TRUE(at::equal(filter_logits(logits, 6, 0), logits));
  EXPECT_TRUE(at::equal(filter_logits(logits, 0, 0), logits));
}

// Probabilities 0.1, 0.2, 0.3, 0.4: cumulated from below 0.1, 0.3, 0.6, 1.
TEST(FilterLogits, TopPCutsTheLowestTailOfMassOneMinusP) {
  const Tensor logits = row({0.3, 0.1, 0.4, 0.2}).log();
  auto survivors = [&](double top_p) {
    const Tensor kept = filter_logits(logits, 0, top_p).isfinite();
    return std::vector<int64_t>{kept[0].item<bool>(), kept[1].item<bool>(), kept[2].item<bool>(),
                                kept[3].item<bool>()};
  };
  EXPECT_EQ(survivors(0.95), (std::vector<int64_t>{1, 1, 1, 1}));
  EXPECT_EQ(survivors(0.85), (std::vector<int64_t>{1, 0, 1, 1}));
  EXPECT_EQ(survivors(0.65), (std::vector<int64_t>{1, 0, 1, 0}));
  EXPECT_EQ(survivors(0.35), (std::vector<int64_t>{0, 0, 1, 0}));
  EXPECT_EQ(survivors(1e-9), (std::vector<int64_t>{0, 0, 1, 0}));  // never the largest
  EXPECT_EQ(survivors(1), (std::vector<int64_t>{1, 1, 1, 1}));
}

TEST(FilterLogits, TopPLooksAtWhatTopKHasLeft) {
  // After k = 2 the rest has probabilities 3/7 and 4/7; 0.5 of the mass leaves the largest alone.
  const Tensor logits = row({0.3, 0.1, 0.4, 0.2}).log();
  EXPECT_EQ(filter_logits(logits, 2, 0.5).isfinite().sum().item<int64_t>(), 1);
  EXPECT_EQ(filter_logits(logits, 2, 0.6).isfinite().sum().item<int64_t>(), 2);
}

TEST(FilterLogits, EqualsThePublicMasks) {
  test::Parity parity("sampling_d2.masks");
  const base::SafetensorsFile file(std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) /
                                   "sampling_d2.safetensors");
  struct Case {
    const char *logits, *want;
    int64_t top_k;
    double top_p;
  };
  for (const Case& c :
       {Case{"mask.logits64", "mask.k10_p0", 10, 0}, Case{"mask.logits64", "mask.k0_p0.9", 0, 0.9},
        Case{"mask.logits64", "mask.k10_p0.9", 10, 0.9},
        Case{"mask.logits4096", "mask.k900_p0.96_V4096", 900, 0.96},
        Case{"mask.tie_logits", "mask.tie_k3_p0", 3, 0}}) {
    const Tensor logits = nn::load_tensor(file, c.logits), want = nn::load_tensor(file, c.want);
    EXPECT_GT(want.isinf().sum().item<int64_t>(), 0);
    parity.check_equal(c.want, filter_logits(logits, c.top_k, c.top_p), want);
  }
}

TEST(DrawTokens, InvertsTheCumulatedDistribution) {
  // Probabilities 0.25, 0, 0.5, 0.25: steps at 0.25 and 0.75, token 1 never.
  const Tensor logits_BNV = row({0.25, 0, 0.5, 0.25}).log().expand({1, 6, 4});
  const Tensor u_BN =
      at::tensor({0.0, 0.2499, 0.2501, 0.7499, 0.7501, 0.999999}, at::kDouble).view({1, 6});
  EXPECT_TRUE(at::equal(draw_tokens(logits_BNV, u_BN),
                        at::tensor({0, 0, 2, 2, 3, 3}, at::kLong).view({1, 6})));
}

TEST(DrawTokens, NeverDrawsARemovedTokenAtEitherEnd) {
  const Tensor logits_BNV = row({kGone, 0, 0.1, 0.2, kGone}).expand({1, 2, 5});
  const Tensor u_BN = at::tensor({0.0, std::nextafter(1.0, 0.0)}, at::kDouble).view({1, 2});
  EXPECT_TRUE(at::equal(draw_tokens(logits_BNV, u_BN), at::tensor({1, 3}, at::kLong).view({1, 2})));
}

TEST(DrawTokens, FollowsTheProbabilities) {
  constexpr int64_t kDraws = 40000;
  const Tensor p_V = row({0.5, 0.3, 0.15, 0.05});
  const Tensor u_BN = uniforms(/*seed=*/3, {17}, /*scale=*/2, kDraws);
  const Tensor tokens_BN = draw_tokens(p_V.log().expand({1, kDraws, 4}), u_BN);
  for (int64_t v = 0; v < 4; ++v) {
    const double p = p_V[v].item<double>();
    const double share = (tokens_BN == v).sum().item<double>() / kDraws;
    // Five standard deviations of a binomial share; the draws are fixed by the seed.
    EXPECT_NEAR(share, p, 5 * std::sqrt(p * (1 - p) / kDraws)) << v;
  }
}

TEST(Uniforms, AreFunctionsOfSeedImageScaleAndPlaceAlone) {
  const Tensor all = uniforms(7, {4, 9, 2}, 1, 6);
  EXPECT_TRUE(at::equal(uniforms(7, {2}, 1, 6)[0], all[2]));
  EXPECT_TRUE(at::equal(uniforms(7, {9, 4}, 1, 3)[0], all[1].slice(0, 0, 3)));
  EXPECT_FALSE(at::equal(all[0], all[1]));
  EXPECT_FALSE(at::equal(uniforms(7, {4}, 2, 6)[0], all[0]));
  EXPECT_FALSE(at::equal(uniforms(8, {4}, 1, 6)[0], all[0]));
}

}  // namespace
}  // namespace varscale::generate
