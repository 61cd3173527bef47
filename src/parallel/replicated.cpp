#include "parallel/replicated.hpp"

#include <ATen/ATen.h>

namespace varscale::parallel {

namespace {
constexpr int64_t kBucketElements = (int64_t{25} << 20) / 4;
}

Share share_of(int64_t batch, int rank, int size) {
  return {batch * rank / size, batch * (rank + 1) / size};
}

Replicated::Replicated(const nn::NamedTensors& parameters, comm::Communicator& world)
    : world_(world), parameters_(parameters), gradients_(parameters.size()) {
  flat_P_ = at::zeros({nn::count_elements(parameters)},
                      parameters.at(0).tensor.options().requires_grad(false));
  int64_t end = 0, bucket_begin = 0;
  // Last parameters first: backward reaches them first.
  for (size_t i = parameters.size(); i-- > 0;) {
    const Tensor& parameter = parameters[i].tensor;
    const int64_t begin = end;
    end += parameter.numel();
    if (end - bucket_begin > kBucketElements && begin > bucket_begin) {
      buckets_.emplace_back(bucket_begin, begin);
      bucket_begin = begin;
    }
    gradients_[i] = flat_P_.slice(0, begin, end).view(parameter.sizes());
    Tensor(parameter).mutable_grad() = gradients_[i];
  }
  buckets_.emplace_back(bucket_begin, end);
}

void Replicated::zero_gradients() { flat_P_.zero_(); }

void Replicated::reduce_gradients() {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    VARSCALE_CHECK(parameters_[i].tensor.grad().data_ptr() == gradients_[i].data_ptr(),
                   "the gradient of {} left its bucket", parameters_[i].name);
  }
  std::vector<comm::Work> pending;
  for (const auto& [begin, end] : buckets_) {
    pending.push_back(
        world_.all_reduce(flat_P_.slice(0, begin, end), comm::Reduce::kSum, "gradients"));
  }
  for (comm::Work& work : pending) work.wait();
}

}  // namespace varscale::parallel
