#include "train/recorded_update.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.hpp"
#include "tests/train/keeping_graph.hpp"

namespace varscale::train {
namespace {

TEST(RecordedUpdate, ReadsEachCallsInputsAndRateFromFixedPlaces) {
  test::GraphCounts counts;
  std::vector<const void*> places;
  RecordedUpdate update(std::make_unique<test::KeepingGraph>(counts), [&](const std::vector<at::Tensor>& inputs, const at::Tensor& lr) {
    for (const at::Tensor& tensor : {inputs[0], inputs[2], lr}) places.push_back(tensor.const_data_ptr());
    EXPECT_FALSE(inputs[1].defined());
    return inputs[0].sum() * lr + inputs[2].sum();
  });
  for (int64_t call = 0; call < RecordedUpdate::kFirst + 3; ++call) {
    const auto x = static_cast<double>(call);
    const at::Tensor result =
        update({at::full({2, 3}, x, at::kDouble), at::Tensor(), at::full({1}, 100 * x, at::kDouble)}, 0.1 + x);
    EXPECT_DOUBLE_EQ(result.item<double>(), 6 * x * (0.1 + x) + 100 * x) << "call " << call;
  }
  EXPECT_EQ(counts.records, 1);
  EXPECT_EQ(counts.replays, 3);
  ASSERT_EQ(places.size() % 3, 0U);
  for (size_t i = 3; i < places.size(); ++i) EXPECT_EQ(places[i], places[i % 3]) << "call " << i / 3;
}

TEST(RecordedUpdate, RefusesInputsOfOtherSizes) {
  test::GraphCounts counts;
  RecordedUpdate update(std::make_unique<test::KeepingGraph>(counts), [](const auto& inputs, const auto&) { return inputs[0]; });
  update({at::ones({2}), at::Tensor()}, 1);
  EXPECT_THROW(update({at::ones({3}), at::Tensor()}, 1), base::InvariantError);
  EXPECT_THROW(update({at::ones({2}), at::ones({2})}, 1), base::InvariantError);
  EXPECT_THROW(update({at::ones({2})}, 1), base::InvariantError);
}

}  // namespace
}  // namespace varscale::train
