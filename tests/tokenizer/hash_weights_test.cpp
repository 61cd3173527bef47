#include "tests/support/hash_weights.hpp"

#include <gtest/gtest.h>

namespace varscale::test {
namespace {

// The generator's published self-test.
TEST(HashWeights, GivesThePublishedNumbers) {
  EXPECT_EQ(hash_name("a.weight"), 0xDE73AE9D17C13F4E);
  EXPECT_EQ(hash_k("a.weight", 4), (std::vector<uint64_t>{12560029, 12479323, 16350834, 3508771}));
  const at::Tensor matrix = hash_param("a.weight", {2, 2}), vector = hash_param("a.weight", {4});
  const float want_matrix[] = {0.60903150f, 0.59724832f, 1.16249263f, -0.71246094f};
  const float want_vector[] = {1.04972720f, 1.04876518f, 1.09491718f, 0.94182783f};
  for (int i = 0; i < 4; ++i) {
    EXPECT_FLOAT_EQ(matrix.const_data_ptr<float>()[i], want_matrix[i]);
    EXPECT_FLOAT_EQ(vector.const_data_ptr<float>()[i], want_vector[i]);
  }
}

TEST(HashWeights, ScalesBySeedNameAndKind) {
  EXPECT_FALSE(at::equal(hash_param("a.weight", {3, 3}), hash_param("a.weight", {3, 3}, 2)));
  EXPECT_EQ(hash_param("blocks.0.attn.zero_k_bias", {5}).abs().max().item<float>(), 0);
  EXPECT_LE(hash_param("fc.bias", {100}).abs().max().item<float>(), 0.05f);
  const at::Tensor tokens = hash_int_tensor("input.tokens.d2", {3, 30}, 4096);
  EXPECT_GE(tokens.min().item<int64_t>(), 0);
  EXPECT_LT(tokens.max().item<int64_t>(), 4096);
}

}  // namespace
}  // namespace varscale::test
