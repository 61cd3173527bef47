// Precision and recall of a set of samples against a reference, by neighbourhoods in feature space.
//
//   PrecisionRecall pr = precision_recall(reference_ND, samples_MD);
//   pr.precision;   // share of the samples inside the reference's neighbourhoods: are they real-looking?
//   pr.recall;      // share of the reference inside the samples' neighbourhoods: is all of it covered?
//
// A point's neighbourhood is the ball that reaches its k-th nearest other point of the same set, border included.
// ADM's evaluator computes the same squared distances in float16, which moves either share by up to 0.002.
//
// Memory   Beside the features, a few blocks of `block` x `block` distances.
// Errors   UserError: a set of k points or fewer.
// Legend   N reference, M samples, D features.
// Source   Kynkäänniemi et al. 2019 (arXiv 1904.06991), equations 1 and 2.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace varscale::evaluate {

using at::Tensor;

struct NeighbourOptions {
  int64_t k = 3;
  int64_t block = 2048;                    // points whose distances are computed at a time
  at::ScalarType compute = at::kDouble;  // of the distances; kFloat is faster
};

// Squared distance of each point to its k-th nearest other: [N]. The smallest k + 1, itself among them.
Tensor squared_radii_N(const Tensor& features_ND, const NeighbourOptions& options = {});

struct PrecisionRecall {
  double precision = 0, recall = 0;  // 0 to 1
};
PrecisionRecall precision_recall(const Tensor& reference_ND, const Tensor& samples_MD,
                                 const NeighbourOptions& options = {});

}  // namespace varscale::evaluate
