#include "evaluate/frechet.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

// The most directions in which a Gaussian has extent.
int64_t rank_of(const Gaussian& gaussian) {
  const int64_t features = gaussian.mean_D.numel();
  return gaussian.images > 0 ? std::min(features, gaussian.images - 1) : features;
}

}  // namespace

GaussianStatistics::GaussianStatistics(int64_t dimension)
    : mean_D_(at::zeros({dimension}, at::kDouble)), scatter_DD_(at::zeros({dimension, dimension}, at::kDouble)) {}

void GaussianStatistics::add(const Tensor& features_ND) {
  VARSCALE_CHECK(features_ND.dim() == 2 && features_ND.size(1) == mean_D_.size(0), "features are not [N, {}]",
                 mean_D_.size(0));
  if (features_ND.size(0) == 0) return;
  const Tensor x_ND = features_ND.detach().to(at::kCPU, at::kDouble);
  if (!x_ND.isfinite().all().item<bool>())
    throw base::UserError("the network gives a feature that is not a finite number");
  const Tensor mean_D = x_ND.mean(0), centred_ND = x_ND - mean_D;
  join(x_ND.size(0), mean_D, at::mm(centred_ND.t(), centred_ND));
}

void GaussianStatistics::merge(const GaussianStatistics& other) {
  VARSCALE_CHECK(other.mean_D_.size(0) == mean_D_.size(0), "statistics of {} and of {} features", mean_D_.size(0),
                 other.mean_D_.size(0));
  if (other.count_ > 0) join(other.count_, other.mean_D_, other.scatter_DD_);
}

void GaussianStatistics::join(int64_t count, const Tensor& mean_D, const Tensor& scatter_DD) {
  const auto mine = static_cast<double>(count_), theirs = static_cast<double>(count), all = mine + theirs;
  const Tensor shift_D = mean_D - mean_D_;
  scatter_DD_.add_(scatter_DD).addr_(shift_D, shift_D, 1, mine * theirs / all);
  mean_D_.add_(shift_D, theirs / all);
  count_ += count;
}

Gaussian GaussianStatistics::gaussian() const {
  if (count_ < 2) throw base::UserError("a covariance needs at least 2 images, there are {}", count_);
  return {mean_D_.clone(), scatter_DD_ / static_cast<double>(count_ - 1), count_};
}

double frechet_distance(const Gaussian& a, const Gaussian& b) {
  VARSCALE_CHECK(a.mean_D.sizes() == b.mean_D.sizes(), "Gaussians of {} and {} features", a.mean_D.numel(),
                 b.mean_D.numel());
  // In the basis of a's eigenvectors, R of them: the eigenvalues of root^T S2 root are those of S1^(1/2) S2 S1^(1/2).
  const int64_t features = a.mean_D.numel(), rank = rank_of(a);
  const auto [values_D, vectors_DD] = at::linalg_eigh(a.covariance_DD);  // in rising order
  const Tensor root_DR =
      vectors_DD.slice(1, features - rank) * values_D.slice(0, features - rank).clamp_min(0).sqrt();
  const Tensor product_RR = at::mm(root_DR.t(), at::mm(b.covariance_DD, root_DR));
  const Tensor squares_R = at::linalg_eigvalsh((product_RR + product_RR.t()) / 2);
  const Tensor kept = squares_R.slice(0, rank - std::min(rank, rank_of(b)));
  return ((a.mean_D - b.mean_D).square().sum() + a.covariance_DD.trace() + b.covariance_DD.trace() -
          2 * kept.clamp_min(0).sqrt().sum())
      .item<double>();
}

}  // namespace varscale::evaluate
