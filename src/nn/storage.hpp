// Leaves whose memory comes and goes: the tensor stays, its storage is lent a buffer and gives it back.
//
//   Tensor w = absent_leaf({64, 64}, at::kFloat, at::kCPU);   // shape and autograd identity, no memory
//   lend_storage(w, buffer, bytes);                           // now it is a view of the buffer
//   reclaim_storage(w);                                       // and now it has none again
//
// Views that autograd saved while a buffer was lent see the next one: they share the storage object.
// Nothing here touches version counters. Reading a leaf without storage is undefined.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace varscale::nn {

using at::Tensor;

// A contiguous leaf that requires grad, without memory.
Tensor absent_leaf(const std::vector<int64_t>& sizes, at::ScalarType dtype, at::Device device);
bool has_storage(const Tensor& leaf);

// `data` must hold `bytes` bytes, at least those of the leaf, until reclaim_storage().
void lend_storage(const Tensor& leaf, void* data, size_t bytes);
void reclaim_storage(const Tensor& leaf);
// Memory of its own, uninitialised, for as long as the leaf lives.
void allocate_storage(const Tensor& leaf);

}  // namespace varscale::nn
