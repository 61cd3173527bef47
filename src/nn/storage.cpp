#include "nn/storage.hpp"

#include <ATen/ATen.h>
#include <c10/core/DeviceGuard.h>

#include "base/error.hpp"

namespace varscale::nn {

Tensor absent_leaf(const std::vector<int64_t>& sizes, at::ScalarType dtype, at::Device device) {
  VARSCALE_CHECK(device.is_cpu() || device.has_index(), "a leaf on {} without a number",
                 c10::DeviceTypeName(device.type(), /*lower_case=*/true));
  c10::Storage storage(c10::Storage::use_byte_size_t(), 0, c10::DataPtr(nullptr, device),
                       /*allocator=*/nullptr, /*resizable=*/false);
  const at::DispatchKeySet keys(device.is_cuda() ? at::DispatchKey::CUDA : at::DispatchKey::CPU);
  Tensor leaf = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), keys,
                                                         at::scalarTypeToTypeMeta(dtype));
  leaf.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return leaf.set_requires_grad(true);
}

bool has_storage(const Tensor& leaf) {
  return leaf.numel() == 0 || leaf.storage().nbytes() > 0;
}

void lend_storage(const Tensor& leaf, void* data, size_t bytes) {
  VARSCALE_CHECK(bytes >= leaf.nbytes(), "{} bytes lent to a leaf of {}", bytes, leaf.nbytes());
  c10::StorageImpl* storage = leaf.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(c10::DataPtr(data, leaf.device()));
  storage->set_nbytes(bytes);
}

void reclaim_storage(const Tensor& leaf) {
  c10::StorageImpl* storage = leaf.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(c10::DataPtr(nullptr, leaf.device()));
  storage->set_nbytes(0);
}

void allocate_storage(const Tensor& leaf) {
  // A CUDA allocator takes the thread's current device and must have been initialised.
  if (leaf.is_cuda()) at::globalContext().lazyInitDevice(leaf.device().type());
  const c10::DeviceGuard guard(leaf.device());
  c10::Allocator* allocator = c10::GetAllocator(leaf.device().type());
  c10::StorageImpl* storage = leaf.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(allocator->allocate(leaf.nbytes()));
  storage->set_nbytes(leaf.nbytes());
}

}  // namespace varscale::nn
