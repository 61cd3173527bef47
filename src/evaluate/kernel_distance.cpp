#include "evaluate/kernel_distance.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::evaluate {
namespace {

Tensor kernel(const Tensor& x_ND, const Tensor& y_MD) {
  return (at::mm(x_ND, y_MD.t()) / static_cast<double>(x_ND.size(1)) + 1).pow(3);
}

double mean_of_pairs(const Tensor& x_ND) {
  const Tensor k_NN = kernel(x_ND, x_ND);
  const auto count = static_cast<double>(x_ND.size(0));
  return (k_NN.sum() - k_NN.trace()).item<double>() / (count * (count - 1));
}

Tensor subset(const Tensor& features_ND, std::string_view purpose, int64_t number, const KernelOptions& options) {
  const base::Permutation order(features_ND.size(0), options.seed, purpose, number);
  std::vector<int64_t> rows(options.subset_size);
  for (int64_t i = 0; i < options.subset_size; ++i) rows[i] = static_cast<int64_t>(order(i));
  return features_ND.index_select(0, at::tensor(rows, at::kLong));
}

}  // namespace

double squared_discrepancy(const Tensor& x_ND, const Tensor& y_MD) {
  const Tensor x = x_ND.to(at::kDouble), y = y_MD.to(at::kDouble);
  return mean_of_pairs(x) + mean_of_pairs(y) - 2 * kernel(x, y).mean().item<double>();
}

KernelDistance kernel_distance(const Tensor& reference_ND, const Tensor& samples_MD, const KernelOptions& options) {
  const int64_t most = std::min(reference_ND.size(0), samples_MD.size(0));
  if (options.subsets < 1 || options.subset_size < 2 || options.subset_size > most)
    throw base::UserError("{} KID subsets of {} images: expected at least 1 subset of 2 to {} images", options.subsets,
                          options.subset_size, most);
  std::vector<double> distances;
  for (int64_t i = 0; i < options.subsets; ++i) {
    distances.push_back(squared_discrepancy(subset(reference_ND, "kid_reference", i, options),
                                            subset(samples_MD, "kid_samples", i, options)));
  }
  const Tensor all = at::tensor(distances, at::kDouble);
  return {all.mean().item<double>(), all.std(/*unbiased=*/false).item<double>()};
}

}  // namespace varscale::evaluate
