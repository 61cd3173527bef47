#include "evaluate/inception_score.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "tests/evaluate/fixture_json.hpp"

namespace varscale::evaluate {
namespace {

void expect_score(const InceptionScore& got, const nlohmann::ordered_json& want) {
  EXPECT_NEAR(got.mean, want.at("mean").get<double>(), 1e-13);
  EXPECT_NEAR(got.deviation, want.at("std").get<double>(), 1e-13);
  const auto parts = want.at("scores").get<std::vector<double>>();
  ASSERT_EQ(got.parts.size(), parts.size());
  for (size_t i = 0; i < parts.size(); ++i) EXPECT_NEAR(got.parts[i], parts[i], 1e-13);
}

TEST(InceptionScore, EqualsThePublicEvaluators) {
  const auto values = reference_values("inception_score");
  const Tensor probabilities_NC = rows_of(values.at("probabilities"));
  for (const auto& want : values.at("adm_split_size"))
    expect_score(inception_score(probabilities_NC, want.at("split_size").get<int64_t>()), want);
  for (const auto& want : values.at("improved_gan_num_splits"))
    expect_score(inception_score_in_splits(probabilities_NC, want.at("num_splits").get<int64_t>()), want);
}

TEST(InceptionScore, OfCertainClassesIsTheirNumberInEachPart) {
  const Tensor sorted = at::eye(6, at::kDouble).repeat_interleave(2, 0);  // 12 images, zeros among the probabilities
  EXPECT_NEAR(inception_score(sorted, 12).mean, 6, 1e-12);
  EXPECT_NEAR(inception_score(sorted, 4).mean, 2, 1e-12);  // sorted by class: a part sees two of them
  EXPECT_NEAR(inception_score(at::full({5, 3}, 1. / 3)).mean, 1, 1e-6);
}

TEST(InceptionScore, RefusesPartsWithoutImages) {
  EXPECT_THROW(inception_score_in_splits(at::eye(3), 4), base::UserError);
  EXPECT_THROW(inception_score(at::empty({0, 3})), base::UserError);
}

}  // namespace
}  // namespace varscale::evaluate
