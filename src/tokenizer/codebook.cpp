#include "tokenizer/codebook.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::tokenizer {

namespace {

Tensor nearest_rows(const Tensor& z_NC, const Tensor& codes_VC) {
  return at::argmin(at::addmm(codes_VC.square().sum(1), z_NC, codes_VC.t(), 1, -2), 1);
}

}  // namespace

Tensor kmeans(const Tensor& z_NC, int64_t codes, int64_t iterations, uint64_t seed) {
  at::NoGradGuard no_grad;
  const int64_t rows = z_NC.size(0);
  VARSCALE_CHECK(rows >= 1, "k-means of no rows");
  const base::Permutation order(static_cast<uint64_t>(rows), seed, "tokenizer.kmeans");
  const base::RandomStream draws(seed, "tokenizer.kmeans.empty");
  std::vector<int64_t> first(codes);
  for (int64_t v = 0; v < codes; ++v)
    first[v] = static_cast<int64_t>(order(static_cast<uint64_t>(v % rows)));
  Tensor codes_VC = z_NC.index_select(0, at::tensor(first, at::kLong));
  uint64_t drawn = 0;
  for (int64_t i = 0; i < iterations; ++i) {
    const Tensor nearest_N = nearest_rows(z_NC, codes_VC);
    const Tensor count_V = nearest_N.bincount({}, codes);
    const Tensor sum_VC = at::zeros_like(codes_VC).index_add_(0, nearest_N, z_NC);
    codes_VC = sum_VC / count_V.clamp_min(1).unsqueeze(1).to(at::kFloat);
    const auto* count = count_V.const_data_ptr<int64_t>();
    for (int64_t v = 0; v < codes; ++v) {
      if (count[v] > 0) continue;
      codes_VC[v].copy_(
          z_NC[static_cast<int64_t>(draws.below(drawn++, static_cast<uint64_t>(rows)))]);
    }
  }
  return codes_VC;
}

CodebookAverage::CodebookAverage(Tensor embedding_VC, double decay)
    : embedding_VC_(std::move(embedding_VC)), decay_(decay) {
  start(embedding_VC_.detach());
}

void CodebookAverage::start(const Tensor& codes_VC) {
  at::NoGradGuard no_grad;
  weight_V_ = at::ones({codes_VC.size(0)}, codes_VC.options());
  sum_VC_ = codes_VC.clone();
  embedding_VC_.copy_(codes_VC);
}

void CodebookAverage::update(const Tensor& hits_V, const Tensor& sums_VC) {
  at::NoGradGuard no_grad;
  weight_V_.mul_(decay_).add_(hits_V, 1 - decay_);
  sum_VC_.mul_(decay_).add_(sums_VC, 1 - decay_);
  // A code that was not chosen for long keeps its place: sum and weight shrink together.
  embedding_VC_.copy_(sum_VC_ / weight_V_.clamp_min(1e-6).unsqueeze(1));
}

std::vector<RowChoice> CodebookAverage::to_restart(double share, const std::vector<int64_t>& rows, uint64_t seed,
                                                   int64_t step) {
  const Tensor weight_V = weight_V_.to(at::kCPU);
  equal_ = weight_V.sum(at::kDouble).item<double>() / static_cast<double>(weight_V.size(0));
  const base::RandomStream draws(seed, "tokenizer.restart", static_cast<uint64_t>(step));
  weak_.clear();
  std::vector<RowChoice> choices;
  for (int64_t v = 0; v < weight_V.size(0); ++v) {
    if (weight_V.const_data_ptr<float>()[v] >= share * equal_) continue;
    const auto n = static_cast<int64_t>(weak_.size()), scale = n % static_cast<int64_t>(rows.size());
    const auto row = draws.below(static_cast<uint64_t>(n), static_cast<uint64_t>(rows[static_cast<size_t>(scale)]));
    choices.push_back({scale, static_cast<int64_t>(row)});
    weak_.push_back(v);
  }
  return choices;
}

void CodebookAverage::restart(const Tensor& rows_nC) {
  at::NoGradGuard no_grad;
  VARSCALE_CHECK(rows_nC.size(0) == static_cast<int64_t>(weak_.size()), "{} rows for {} codes", rows_nC.size(0),
                 weak_.size());
  if (weak_.empty()) return;
  const Tensor weak_n = at::tensor(weak_, at::kLong).to(embedding_VC_.device());
  embedding_VC_.index_copy_(0, weak_n, rows_nC);
  sum_VC_.index_copy_(0, weak_n, rows_nC * equal_);
  weight_V_.index_fill_(0, weak_n, equal_);
  weak_.clear();
}

Tensor code_sums(const std::vector<Tensor>& residuals, const std::vector<Tensor>& tokens,
                 const std::vector<Tensor>& counted, int64_t vocabulary) {
  at::NoGradGuard no_grad;
  Tensor z_NC = at::cat(residuals);
  if (!counted.empty()) z_NC = z_NC * at::cat(counted).unsqueeze(1);
  return at::zeros({vocabulary, z_NC.size(1)}, z_NC.options()).index_add_(0, at::cat(tokens), z_NC);
}

CodebookUse codebook_use(const Tensor& hits_V) {
  const Tensor hits = hits_V.to(at::kDouble);
  CodebookUse use;
  use.codes = hits.numel();
  use.used = hits.gt(0).sum().item<int64_t>();
  const double total = hits.sum().item<double>();
  if (total == 0) return use;
  const Tensor share = hits / total;
  use.perplexity = std::exp(-at::xlogy(share, share).sum().item<double>());
  return use;
}

void update_hits(const Tensor& mean_SV, const Tensor& hits_SV, int64_t updates_before) {
  at::NoGradGuard no_grad;
  const double rate = updates_before == 0 ? 1 : updates_before < 100 ? 0.1 : 0.01;
  mean_SV.lerp_(hits_SV, rate);
}

}  // namespace varscale::tokenizer
