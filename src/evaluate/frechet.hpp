// The Fréchet distance between two sets of features, each taken for a Gaussian.
//
//   GaussianStatistics statistics(2048);
//   statistics.add(features_ND);                       // batch by batch; statistics of other ranks: merge()
//   double fd = frechet_distance(statistics.gaussian(), reference);
//
// Statistics  float64. A batch is centred on its own mean before its products are summed, and joined by the update of
//             Chan, Golub and LeVeque (1979), so a large mean costs no digits. The order of batches changes the last
//             bits alone.
// Distance    |m1 - m2|^2 + Tr S1 + Tr S2 - 2 Tr (S1^(1/2) S2 S1^(1/2))^(1/2), from two symmetric eigen-decompositions.
//             A covariance of n images has at most n - 1 directions of extent: no more eigenvalues than that count, and
//             negative ones, which are rounding, count as 0. Where covariances lack rank that keeps the result within
//             1e-9 relative of the exact one; public evaluators are off by up to 1e-7 there. The distance of equal sets
//             is 0 up to rounding, of either sign.
// Few images  Up to 1024 images, if they are fewer than the features, are kept themselves: the same trace is then the
//             sum of the singular values of X1 X2^T, X the centred images over (n - 1)^(1/2), or comes from the
//             eigenvalues of X1 S2 X1^T where the other set is larger. Seconds become milliseconds, and rounding is all
//             that the result is off by.
// Bias        Both covariances come from samples, so the distance of two finite sets is too large, by about a
//             constant / N: numbers at different N do not compare.
// Errors      UserError: fewer than two images, or a feature that is not finite.
// Legend      N images, D features.
// Source      Heusel et al. 2017 (arXiv 1706.08500), equation 6.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace varscale::evaluate {

using at::Tensor;

struct Gaussian {
  Tensor mean_D, covariance_DD;  // float64
  int64_t images = 0;            // that it was taken from; 0: not known
  Tensor root_ND = {};           // float64 with root^T root = covariance, of few images; else undefined
};

class GaussianStatistics {
 public:
  explicit GaussianStatistics(int64_t dimension);
  GaussianStatistics(GaussianStatistics&&) = default;
  GaussianStatistics(const GaussianStatistics&) = delete;
  void add(const Tensor& features_ND);  // any float dtype
  void merge(const GaussianStatistics& other);

  int64_t count() const noexcept { return count_; }
  Gaussian gaussian() const;  // divisor of the covariance: count - 1

 private:
  void join(int64_t count, const Tensor& mean_D);
  void keep(const std::vector<Tensor>& rows_ND, int64_t count);
  int64_t count_ = 0;
  std::vector<Tensor> rows_ND_;  // all images so far, as long as they are few; then none
  Tensor mean_D_, scatter_DD_;  // scatter: sum over images of (x - mean)(x - mean)^T
};

double frechet_distance(const Gaussian& a, const Gaussian& b);

}  // namespace varscale::evaluate
