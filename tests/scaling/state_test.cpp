#include "scaling/state.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/file.hpp"
#include "base/json.hpp"
#include "scaling/count.hpp"

namespace varscale::scaling {
namespace {

nlohmann::ordered_json as_listed(const StateEntry& entry) {
  const bool parameter = entry.kind == StateKind::kParameter, levels = entry.kind == StateKind::kLevels;
  return {entry.name, parameter ? "p" : "b", levels ? "int64" : "float32", entry.shape};
}

TEST(PublicState, IsThatOfThePublicModels) {
  const nlohmann::ordered_json names =
      base::parse_json(base::read_file(std::filesystem::path(std::getenv("VARSCALE_FIXTURES")) / "names.json"));
  const TokenSpace space{4096, 32, ScaleList({1, 2, 3, 4, 5, 6, 8, 10, 13, 16})};
  const TokenSpace large{4096, 32, ScaleList({1, 2, 3, 4, 6, 9, 13, 18, 24, 32})};
  const std::map<std::string, VarShape> models = {
      {"var_d16_256", VarShape::from_depth(16, space, 1000)},
      {"var_d30_256", VarShape::from_depth(30, space, 1000)},
      {"var_d36_512_saln", VarShape::from_depth(36, large, 1000, /*shared_adaln=*/true)}};
  for (const auto& [name, shape] : models) {
    nlohmann::ordered_json listed = nlohmann::ordered_json::array();
    for (const StateEntry& entry : public_state(shape)) listed.push_back(as_listed(entry));
    EXPECT_EQ(listed, names[name]["state_dict"]) << name;
  }
}

TEST(PublicState, HasTheParametersThatAreCounted) {
  VarShape shape = VarShape::from_depth(3, {64, 8, ScaleList({2, 3})}, 10);
  for (const bool norm : {true, false}) {
    shape.attn_l2_norm = norm;
    int64_t count = 0;
    for (const StateEntry& entry : parameters_of(shape)) {
      int64_t numel = 1;
      for (const int64_t size : entry.shape) numel *= size;
      count += numel;
    }
    EXPECT_EQ(count, count_parameters(shape).total());
  }
}

TEST(TokenLevels, NumberTheMaps) {
  EXPECT_THAT(token_levels(ScaleList({1, 2, 3})), testing::ElementsAre(0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2));
}

}  // namespace
}  // namespace varscale::scaling
