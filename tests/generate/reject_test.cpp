#include "generate/reject.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.hpp"

namespace varscale::generate {
namespace {

using testing::ElementsAre;

TEST(Reject, KeepsTheLikeliestOfEachClassInTheirOrder) {
  //                                0    1    2    3    4    5    6
  const std::vector<int64_t> labels{7, 7, 2, 7, 2, 7, 2};
  const std::vector<double> p{0.1, 0.9, 0.2, 0.3, 0.2, 0.8, 0.1};
  EXPECT_THAT(keep_likeliest(labels, p, 1), ElementsAre(1, 2));  // of the two with 0.2 the first
  EXPECT_THAT(keep_likeliest(labels, p, 2), ElementsAre(1, 2, 4, 5));
  EXPECT_THAT(keep_likeliest(labels, p, 3), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(keep_likeliest(labels, p, 9), ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_THROW(keep_likeliest(labels, {0.5}, 1), base::InvariantError);
}

TEST(Reject, DrawsAsManyAsTheShareAsksFor) {
  EXPECT_EQ(candidates_for(50, 0.5), 100);
  EXPECT_EQ(candidates_for(50, 0.1), 500);  // not 501
  EXPECT_EQ(candidates_for(7, 0.3), 24);    // 23.3
  EXPECT_EQ(candidates_for(1, 0.999), 2);
  EXPECT_THROW(candidates_for(1, 1), base::InvariantError);
}

}  // namespace
}  // namespace varscale::generate
