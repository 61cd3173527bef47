#include "evaluate/frechet.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

constexpr int64_t kMostKept = 1024;  // images

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
  keep({x_ND}, x_ND.size(0));
  scatter_DD_.addmm_(centred_ND.t(), centred_ND);  // in place: another matrix would cost more than the product
  join(x_ND.size(0), mean_D);
}

void GaussianStatistics::merge(const GaussianStatistics& other) {
  VARSCALE_CHECK(other.mean_D_.size(0) == mean_D_.size(0), "statistics of {} and of {} features", mean_D_.size(0),
                 other.mean_D_.size(0));
  if (other.count_ == 0) return;
  keep(other.rows_ND_, other.count_);
  scatter_DD_.add_(other.scatter_DD_);
  join(other.count_, other.mean_D_);
}

// `rows_ND` are `count` images, or none where they are not known. Comes before the count is raised.
void GaussianStatistics::keep(const std::vector<Tensor>& rows_ND, int64_t count) {
  const bool all_known = (count_ == 0 || !rows_ND_.empty()) && !rows_ND.empty();
  if (all_known && count_ + count <= kMostKept && count_ + count < mean_D_.size(0))
    rows_ND_.insert(rows_ND_.end(), rows_ND.begin(), rows_ND.end());
  else
    rows_ND_.clear();
}

// The means of both sides and the scatter between them; the scatter within each is there already.
void GaussianStatistics::join(int64_t count, const Tensor& mean_D) {
  const auto mine = static_cast<double>(count_), theirs = static_cast<double>(count), all = mine + theirs;
  const Tensor shift_D = mean_D - mean_D_;
  scatter_DD_.addr_(shift_D, shift_D, 1, mine * theirs / all);
  mean_D_.add_(shift_D, theirs / all);
  count_ += count;
}

Gaussian GaussianStatistics::gaussian() const {
  if (count_ < 2) throw base::UserError("a covariance needs at least 2 images, there are {}", count_);
  const auto divisor = static_cast<double>(count_ - 1);
  Tensor root_ND;
  if (!rows_ND_.empty()) root_ND = (at::cat(rows_ND_) - mean_D_) / std::sqrt(divisor);
  return {mean_D_.clone(), scatter_DD_ / divisor, count_, root_ND};
}

namespace {

// R columns with root root^T = covariance, R the rank: of few images they themselves, else scaled eigenvectors.
Tensor root_of(const Gaussian& a) {
  if (a.root_ND.defined()) return a.root_ND.t();
  const int64_t features = a.mean_D.numel(), rank = rank_of(a);
  const auto [values_D, vectors_DD] = at::linalg_eigh(a.covariance_DD);  // in rising order
  return vectors_DD.slice(1, features - rank) * values_D.slice(0, features - rank).clamp_min(0).sqrt();
}

// Tr (S1^(1/2) S2 S1^(1/2))^(1/2).
Tensor trace_of_root(const Gaussian& a, const Gaussian& b) {
  if (a.root_ND.defined() && b.root_ND.defined())
    return at::linalg_svdvals(at::mm(a.root_ND, b.root_ND.t())).sum();
  if (!a.root_ND.defined() && b.root_ND.defined()) return trace_of_root(b, a);
  // The eigenvalues of root^T S2 root are those of S1^(1/2) S2 S1^(1/2).
  const Tensor root_DR = root_of(a);
  const int64_t rank = root_DR.size(1), kept = std::min({rank, rank_of(a), rank_of(b)});
  const Tensor product_RR = at::mm(root_DR.t(), at::mm(b.covariance_DD, root_DR));
  const Tensor squares_R = at::linalg_eigvalsh((product_RR + product_RR.t()) / 2);
  return squares_R.slice(0, rank - kept).clamp_min(0).sqrt().sum();
}

}  // namespace

double frechet_distance(const Gaussian& a, const Gaussian& b) {
  VARSCALE_CHECK(a.mean_D.sizes() == b.mean_D.sizes(), "Gaussians of {} and {} features", a.mean_D.numel(),
                 b.mean_D.numel());
  return ((a.mean_D - b.mean_D).square().sum() + a.covariance_DD.trace() + b.covariance_DD.trace() -
          2 * trace_of_root(a, b))
      .item<double>();
}

}  // namespace varscale::evaluate
