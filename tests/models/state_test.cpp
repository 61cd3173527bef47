// The list of parameters that lower layers know is that of the model.
#include "scaling/state.hpp"

#include <gtest/gtest.h>

#include "models/var/model.hpp"

namespace varscale::models {
namespace {

TEST(State, NamesTheParametersOfTheModelInItsOrder) {
  for (const bool shared : {false, true}) {
    for (const bool norm : {false, true}) {
      scaling::VarShape shape = scaling::VarShape::from_depth(3, {64, 8, scaling::ScaleList({2, 3})}, 10, shared);
      shape.attn_l2_norm = norm;
      const Var model(shape, {.allocate = false});
      const std::vector<scaling::StateEntry> listed = scaling::parameters_of(shape);
      ASSERT_EQ(listed.size(), model.parameters().size());
      for (size_t i = 0; i < listed.size(); ++i) {
        EXPECT_EQ(listed[i].name, model.parameters()[i].name);
        EXPECT_EQ(listed[i].shape, model.parameters()[i].tensor.sizes().vec());
      }
    }
  }
}

}  // namespace
}  // namespace varscale::models
