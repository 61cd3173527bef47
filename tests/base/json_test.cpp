#include "base/json.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace varscale::base {
namespace {

TEST(Json, TextReadsBackInTheOrderItWasWritten) {
  const std::string text = R"({"b":[1,2.5,null],"a":"x"})";
  EXPECT_EQ(json_text(parse_json(text)), text);
  EXPECT_EQ(json_text(parse_json(R"({"b":1})"), 2), "{\n  \"b\": 1\n}");
}

TEST(Json, ReplacesBytesThatAreNotUtf8) {
  EXPECT_EQ(json_text("K\xE4"
                      "fer"),
            "\"K\xEF\xBF\xBD"
            "fer\"");
}

TEST(Json, RefusesTextThatIsNotJsonOrGoesOnBehindIt) {
  for (const char* text : {"", "{", "{} {}", "nan"})
    EXPECT_THROW(parse_json(text), nlohmann::ordered_json::parse_error) << text;
}

}  // namespace
}  // namespace varscale::base
