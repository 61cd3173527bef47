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
  weight_V_ = at::ones({codes_VC.size(0)});
  sum_VC_ = codes_VC.clone();
  embedding_VC_.copy_(codes_VC);
}

void CodebookAverage::update(const std::vector<Tensor>& residuals,
                             const std::vector<Tensor>& tokens) {
  at::NoGradGuard no_grad;
  const Tensor tokens_N = at::cat(tokens), z_NC = at::cat(residuals);
  const Tensor hits_V = tokens_N.bincount({}, weight_V_.size(0)).to(at::kFloat);
  weight_V_.mul_(decay_).add_(hits_V, 1 - decay_);
  sum_VC_.mul_(decay_).index_add_(0, tokens_N, z_NC, 1 - decay_);
  // A code that was not chosen for long keeps its place: sum and weight shrink together.
  embedding_VC_.copy_(sum_VC_ / weight_V_.clamp_min(1e-6).unsqueeze(1));
}

int64_t CodebookAverage::restart(const std::vector<Tensor>& residuals, double share, uint64_t seed,
                                 int64_t step) {
  at::NoGradGuard no_grad;
  const int64_t codes = weight_V_.size(0), scales = static_cast<int64_t>(residuals.size());
  const double equal = weight_V_.sum(at::kDouble).item<double>() / static_cast<double>(codes);
  const base::RandomStream draws(seed, "tokenizer.restart", static_cast<uint64_t>(step));
  int64_t revived = 0;
  for (int64_t v = 0; v < codes; ++v) {
    if (weight_V_.const_data_ptr<float>()[v] >= share * equal) continue;
    const Tensor& z_NC = residuals[revived % scales];
    const auto row =
        draws.below(static_cast<uint64_t>(revived), static_cast<uint64_t>(z_NC.size(0)));
    const Tensor code_C = z_NC[static_cast<int64_t>(row)];
    embedding_VC_[v].copy_(code_C);
    sum_VC_[v].copy_(code_C * equal);
    weight_V_[v].fill_(equal);
    ++revived;
  }
  return revived;
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
