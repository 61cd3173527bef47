#include "nn/storage.hpp"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/error.hpp"

namespace varscale::nn {
namespace {

TEST(Storage, ALeafSeesTheBufferItWasLent) {
  const Tensor leaf = absent_leaf({2, 3}, at::kFloat, at::kCPU);
  EXPECT_FALSE(has_storage(leaf));
  const Tensor buffer = at::arange(6, at::kFloat);
  lend_storage(leaf, buffer.data_ptr(), buffer.nbytes());
  EXPECT_TRUE(at::equal(leaf.detach(), buffer.view({2, 3})));
  reclaim_storage(leaf);
  EXPECT_FALSE(has_storage(leaf));
  EXPECT_THROW(lend_storage(leaf, buffer.data_ptr(), buffer.nbytes() - 1), base::InvariantError);
}

TEST(Storage, ALeafMayHaveMemoryOfItsOwn) {
  const Tensor leaf = absent_leaf({2, 3}, at::kFloat, at::kCPU);
  allocate_storage(leaf);
  EXPECT_TRUE(has_storage(leaf));
  leaf.detach().fill_(2);
  EXPECT_EQ(leaf.sum().item<float>(), 12);
}

// Its device could not be changed later, and kernels compare numbers.
TEST(Storage, ALeafOnAGpuMustSayWhichOne) {
  EXPECT_THROW(absent_leaf({2}, at::kFloat, at::kCUDA), base::InvariantError);
  EXPECT_EQ(absent_leaf({2}, at::kFloat, {at::kCUDA, 1}).device(), at::Device(at::kCUDA, 1));
}

}  // namespace
}  // namespace varscale::nn
