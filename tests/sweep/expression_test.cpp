#include "sweep/expression.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "base/error.hpp"

namespace varscale::sweep {
namespace {

double value_of(const std::string& text) {
  return Expression::parse(text).evaluate({{"depth", 3}, {"width", 192}, {"batch", 16}});
}

std::string fault_in(const std::string& text) {
  try {
    value_of(text);
  } catch (const base::UserError& error) {
    return error.what();
  }
  return "";
}

TEST(Expression, FollowsTheUsualPrecedence) {
  EXPECT_EQ(value_of("1 + 2 * 3"), 7);
  EXPECT_EQ(value_of("(1 + 2) * 3"), 9);
  EXPECT_EQ(value_of("2 - 3 - 4"), -5);
  EXPECT_EQ(value_of("24 / 3 / 2"), 4);
  EXPECT_EQ(value_of("2 ^ 3 ^ 2"), 512);
  EXPECT_EQ(value_of("-2 ^ 2"), -4);
  EXPECT_EQ(value_of("2 ^ -1"), 0.5);
  EXPECT_EQ(value_of("2e-3*5"), 0.01);
}

TEST(Expression, KnowsNamesAndFunctions) {
  EXPECT_EQ(value_of("width / depth"), 64);
  EXPECT_EQ(value_of("sqrt(depth + 1)"), 2);
  EXPECT_EQ(value_of("min(depth, 2, 5)"), 2);
  EXPECT_EQ(value_of("max(depth, 2, 5)"), 5);
  EXPECT_THAT(Expression::parse("depth * batch + depth").names(),
              testing::ElementsAre("batch", "depth"));
}

TEST(Expression, RoundsToTwelveDigitsSoThatRulesGiveTheNumberOneWouldWrite) {
  EXPECT_EQ(value_of("6e-3 / depth"), 0.002);
  EXPECT_EQ(value_of("0.1 + 0.2"), 0.3);  // 0.30000000000000004 otherwise
}

TEST(Expression, SaysWhatItDoesNotUnderstand) {
  EXPECT_THAT(fault_in("fast"),
              testing::HasSubstr("fast is not a name that this formula may use; "
                                 "known here: batch, depth, width"));
  EXPECT_THAT(fault_in("6e-3 /"), testing::HasSubstr("ends too early"));
  EXPECT_THAT(fault_in("1e12^"), testing::HasSubstr("ends too early"));
  EXPECT_THAT(fault_in("(1 + 2"), testing::HasSubstr("closing bracket"));
  EXPECT_THAT(fault_in("1 2"), testing::HasSubstr("\"2\" is not expected"));
  EXPECT_THAT(fault_in("log(2)"), testing::HasSubstr("unknown function log"));
  EXPECT_THAT(fault_in("sqrt(1, 2)"), testing::HasSubstr("sqrt takes one"));
  EXPECT_THAT(fault_in("1 / (depth - 3)"), testing::HasSubstr("inf"));
  EXPECT_THAT(fault_in("sqrt(-1)"), testing::HasSubstr("nan"));
  EXPECT_THAT(fault_in("nan"), testing::HasSubstr("nan is not a name"));
  EXPECT_THAT(fault_in(std::string(201, '(')), testing::HasSubstr("at most 200"));
}

}  // namespace
}  // namespace varscale::sweep
