#include "tokenizer/codebook.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/support/hash_weights.hpp"

namespace varscale::tokenizer {
namespace {

TEST(Kmeans, FindsTheCentresOfSeparateClusters) {
  const Tensor centres = at::tensor({0.f, 0.f, 10.f, 0.f, 0.f, 10.f, 10.f, 10.f}).view({4, 2});
  const Tensor noise = test::hash_v("noise", {4, 25, 2}).to(at::kFloat) * 0.1;
  const Tensor z_NC = (centres.unsqueeze(1) + noise).view({100, 2});
  // Whatever four rows it starts from, 20 codes for 4 clusters leave every row near a code.
  const Tensor codes = kmeans(z_NC, 20, 10, 1);
  EXPECT_LT(at::cdist(z_NC, codes).amin(1).max().item<float>(), 0.3f);
  EXPECT_TRUE(at::equal(codes, kmeans(z_NC, 20, 10, 1)));
  EXPECT_EQ(kmeans(z_NC.slice(0, 0, 3), 8, 2, 1).size(0), 8);  // fewer rows than codes
}

TEST(CodebookAverage, FollowsTheClosedForm) {
  const Tensor codes = at::tensor({1.f, 2.f}).view({2, 1});
  CodebookAverage average(codes, 0.75);
  // Code 0 is chosen for 3 and 5, code 1 not at all: weight .75 + .25 x 2, sum .75 x 1 + .25 x 8.
  const std::vector<Tensor> residuals{at::tensor({3.f}).view({1, 1}), at::tensor({5.f}).view({1, 1})},
      tokens{at::zeros({1}, at::kLong), at::zeros({1}, at::kLong)};
  average.update(at::tensor({2.f, 0.f}), code_sums(residuals, tokens, {}, 2));
  EXPECT_FLOAT_EQ(codes[0].item<float>(), 2.75f / 1.25f);
  EXPECT_FLOAT_EQ(codes[1].item<float>(), 2.f);
}

TEST(CodeSums, LeaveOutWhatDoesNotCount) {
  const std::vector<Tensor> residuals{at::tensor({3.f, 5.f}).view({2, 1})}, tokens{at::zeros({2}, at::kLong)};
  EXPECT_EQ(code_sums(residuals, tokens, {}, 2)[0].item<float>(), 8);
  EXPECT_EQ(code_sums(residuals, tokens, {at::tensor({0.f, 1.f})}, 2)[0].item<float>(), 5);
}

TEST(CodebookAverage, RestartsOnlyCodesBelowTheirShare) {
  const Tensor codes = at::arange(4, at::kFloat).view({4, 1}) * 100;
  CodebookAverage average(codes, 0.5);
  for (int i = 0; i < 10; ++i) average.update(at::tensor({4.f, 4.f, 0.f, 0.f}), at::tensor({28.f, 30.f, 0.f, 0.f}).view({4, 1}));
  const Tensor kept = codes.slice(0, 0, 2).clone();
  const std::vector<RowChoice> choices = average.to_restart(0.05, {3, 5}, 1, 0);
  ASSERT_EQ(choices.size(), 2u);
  EXPECT_EQ(choices[0].scale, 0);  // drawn from the scales in turn
  EXPECT_EQ(choices[1].scale, 1);
  EXPECT_LT(choices[0].row, 3);
  EXPECT_LT(choices[1].row, 5);
  average.restart(at::tensor({7.f, 8.f}).view({2, 1}));
  EXPECT_TRUE(at::equal(codes.slice(0, 0, 2), kept));
  EXPECT_EQ(codes[2].item<float>(), 7);
  EXPECT_EQ(codes[3].item<float>(), 8);
  EXPECT_TRUE(average.to_restart(0.05, {3, 5}, 1, 1).empty());
}

TEST(CodebookUse, CountsCodesAndTheirPerplexity) {
  const CodebookUse even = codebook_use(at::tensor({5, 5, 5, 5, 0, 0, 0, 0}));
  EXPECT_EQ(even.used, 4);
  EXPECT_DOUBLE_EQ(even.used_share(), 0.5);
  EXPECT_NEAR(even.perplexity, 4, 1e-12);
  EXPECT_NEAR(codebook_use(at::tensor({9, 0})).perplexity, 1, 1e-12);
  EXPECT_EQ(codebook_use(at::zeros({3})).used, 0);
}

TEST(UpdateHits, AveragesAsThePublicCode) {
  const Tensor mean = at::zeros({1, 1}), hits = at::full({1, 1}, 10.f);
  update_hits(mean, hits, 0);
  EXPECT_FLOAT_EQ(mean.item<float>(), 10);
  update_hits(mean, at::zeros({1, 1}), 5);
  EXPECT_FLOAT_EQ(mean.item<float>(), 9);
  update_hits(mean, at::zeros({1, 1}), 100);
  EXPECT_FLOAT_EQ(mean.item<float>(), 8.91f);
}

}  // namespace
}  // namespace varscale::tokenizer
