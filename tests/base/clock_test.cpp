#include "base/clock.hpp"

#include <gtest/gtest.h>

#include <ctime>

namespace varscale::base {
namespace {

TEST(UtcNow, IsNowInUtc) {
  const std::time_t before = std::time(nullptr);
  const std::string text = utc_now();
  const std::time_t after = std::time(nullptr);
  std::tm parts{};
  const char* end = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  ASSERT_NE(end, nullptr) << text;
  EXPECT_EQ(*end, '\0') << text;
  const std::time_t read = timegm(&parts);
  EXPECT_LE(before, read);
  EXPECT_LE(read, after);
}

}  // namespace
}  // namespace varscale::base
