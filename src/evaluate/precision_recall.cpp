#include "evaluate/precision_recall.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

// A block of points in the dtype of the distances, and their squared lengths.
struct Block {
  Tensor x_BD, squares_B;
};

Block block_at(const Tensor& features_ND, int64_t begin, const NeighbourOptions& options) {
  const int64_t end = std::min(begin + options.block, features_ND.size(0));
  const Tensor x_BD = features_ND.slice(0, begin, end).to(options.compute);
  return {x_BD, x_BD.square().sum(1)};
}

// Squared distances between the points of two blocks: [A,B].
Tensor distances(const Block& a, const Block& b) {
  return at::addmm(a.squares_B.unsqueeze(1) + b.squares_B, a.x_BD, b.x_BD.t(), 1, -2).clamp_min_(0);
}

}  // namespace

Tensor squared_radii_N(const Tensor& features_ND, const NeighbourOptions& options) {
  const int64_t count = features_ND.size(0);
  if (count <= options.k)
    throw base::UserError("precision and recall with k = {} need more than {} images a set, there are {}", options.k,
                          options.k, count);
  std::vector<Tensor> radii;
  for (int64_t i = 0; i < count; i += options.block) {
    const Block rows = block_at(features_ND, i, options);
    Tensor nearest_BK;  // the k + 1 smallest so far
    for (int64_t j = 0; j < count; j += options.block) {
      Tensor seen = distances(rows, block_at(features_ND, j, options));
      if (nearest_BK.defined()) seen = at::cat({nearest_BK, seen}, 1);
      nearest_BK = std::get<0>(seen.topk(std::min(options.k + 1, seen.size(1)), 1, /*largest=*/false));
    }
    radii.push_back(std::get<0>(nearest_BK.max(1)));
  }
  return at::cat(radii);
}

PrecisionRecall precision_recall(const Tensor& reference_ND, const Tensor& samples_MD,
                                 const NeighbourOptions& options) {
  const Tensor reference_radii_N = squared_radii_N(reference_ND, options);
  const Tensor sample_radii_M = squared_radii_N(samples_MD, options);
  const int64_t references = reference_ND.size(0), samples = samples_MD.size(0);
  Tensor covered_N = at::zeros({references}, at::kBool);
  int64_t inside = 0;
  for (int64_t i = 0; i < samples; i += options.block) {
    const Block rows = block_at(samples_MD, i, options);
    const Tensor radii_B1 = sample_radii_M.slice(0, i, i + options.block).unsqueeze(1);
    Tensor inside_B = at::zeros({rows.x_BD.size(0)}, at::kBool);
    for (int64_t j = 0; j < references; j += options.block) {
      const Tensor d_BN = distances(rows, block_at(reference_ND, j, options));
      inside_B.logical_or_((d_BN <= reference_radii_N.slice(0, j, j + options.block)).any(1));
      covered_N.slice(0, j, j + options.block).logical_or_((d_BN <= radii_B1).any(0));
    }
    inside += inside_B.sum().item<int64_t>();
  }
  return {static_cast<double>(inside) / static_cast<double>(samples),
          static_cast<double>(covered_N.sum().item<int64_t>()) / static_cast<double>(references)};
}

}  // namespace varscale::evaluate
