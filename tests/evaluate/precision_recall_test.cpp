#include "evaluate/precision_recall.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/error.hpp"
#include "tests/evaluate/fixture_json.hpp"
#include "tests/support/hash_weights.hpp"

namespace varscale::evaluate {
namespace {

TEST(PrecisionRecall, EqualsThePublicEvaluatorInAnyBlocks) {
  for (const auto& c : reference_values("precision_recall")) {
    const Tensor reference = rows_of(c.at("ref")), samples = rows_of(c.at("sample"));
    for (const int64_t block : {2, 7, 2048}) {
      for (const auto compute : {at::kDouble, at::kFloat}) {
        const NeighbourOptions options{.k = c.at("k"), .block = block, .compute = compute};
        const Tensor radii_N = squared_radii_N(reference, options).to(at::kDouble);
        const double tolerance = compute == at::kDouble ? 1e-12 : 1e-5;
        EXPECT_TRUE(at::allclose(radii_N, vector_of(c.at("radii_sq_ref")), tolerance, tolerance)) << c.at("name");
        EXPECT_TRUE(at::allclose(squared_radii_N(samples, options).to(at::kDouble),
                                 vector_of(c.at("radii_sq_sample")), tolerance, tolerance));
        const PrecisionRecall got = precision_recall(reference, samples, options);
        EXPECT_DOUBLE_EQ(got.precision, c.at("precision").get<double>()) << c.at("name") << " block " << block;
        EXPECT_DOUBLE_EQ(got.recall, c.at("recall").get<double>()) << c.at("name") << " block " << block;
      }
    }
  }
}

TEST(PrecisionRecall, OnALineIsWhatTheRadiiSay) {
  const Tensor reference = at::arange(10, at::kDouble).unsqueeze(1);  // radius 3 at the ends, 2 inside
  EXPECT_TRUE(at::equal(squared_radii_N(reference).sqrt(),
                        at::tensor(std::vector<double>{3, 2, 2, 2, 2, 2, 2, 2, 2, 3}, at::kDouble)));
  // -3 lies on the border of 0's ball, -3.5 outside; 11.5 within 9's, 12.5 outside. Among the samples the third
  // neighbours are 15, 14.5, 15 and 16 away: every reference point is in reach.
  const Tensor samples = at::tensor(std::vector<double>{-3, -3.5, 11.5, 12.5}, at::kDouble).unsqueeze(1);
  const PrecisionRecall pr = precision_recall(reference, samples);
  EXPECT_DOUBLE_EQ(pr.precision, 0.5);
  EXPECT_DOUBLE_EQ(pr.recall, 1);
}

TEST(PrecisionRecall, RefusesSetsOfKPoints) {
  EXPECT_THROW(precision_recall(at::rand({9, 2}), at::rand({3, 2})), base::UserError);
}

}  // namespace
}  // namespace varscale::evaluate
