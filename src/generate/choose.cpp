#include "generate/choose.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <tuple>

#include "base/random.hpp"

namespace varscale::generate {

namespace {
constexpr double kRemoved = -std::numeric_limits<double>::infinity();
}  // namespace

double guidance_at(double cfg, int64_t k, int64_t scales) {
  return scales > 1 ? cfg * static_cast<double>(k) / static_cast<double>(scales - 1) : 0;
}

Tensor guide(const Tensor& cond_BNV, const Tensor& uncond_BNV, double t) {
  return cond_BNV.to(at::kFloat).mul(1 + t).sub_(uncond_BNV.to(at::kFloat), t);
}

Tensor filter_logits(const Tensor& logits, int64_t top_k, double top_p) {
  Tensor kept = logits;
  if (top_k > 0 && top_k < logits.size(-1)) {
    const Tensor smallest_kept = std::get<0>(logits.topk(top_k, -1)).amin({-1}, /*keepdim=*/true);
    kept = kept.masked_fill(logits < smallest_kept, kRemoved);
  }
  if (top_p > 0) {
    const auto [ascending, order] = kept.sort(/*stable=*/true, /*dim=*/-1, /*descending=*/false);
    Tensor remove = ascending.softmax(-1, at::kDouble).cumsum(-1) <= 1 - top_p;
    remove.select(-1, -1).fill_(false);
    kept = kept.masked_fill(remove.scatter(-1, order, remove), kRemoved);
  }
  return kept;
}

Tensor draw_tokens(const Tensor& logits_BNV, const Tensor& u_BN) {
  const Tensor cdf_BNV = logits_BNV.softmax(-1, at::kDouble).cumsum(-1);
  const Tensor total_BN1 = cdf_BNV.slice(-1, -1);
  // The product may round up to the total, beyond which no token lies.
  const Tensor target_BN1 = at::minimum(u_BN.to(cdf_BNV.device()).unsqueeze(-1) * total_BN1,
                                        at::nextafter(total_BN1, at::zeros_like(total_BN1)));
  return at::searchsorted(cdf_BNV, target_BN1, /*out_int32=*/false, /*right=*/true).squeeze(-1);
}

Tensor uniforms(uint64_t seed, const std::vector<int64_t>& images, int64_t scale, int64_t tokens) {
  Tensor u_BN = at::empty({static_cast<int64_t>(images.size()), tokens}, at::kDouble);
  double* out = u_BN.mutable_data_ptr<double>();
  for (const int64_t image : images) {
    const base::RandomStream stream(seed, "sample", static_cast<uint64_t>(image),
                                    static_cast<uint64_t>(scale));
    for (int64_t i = 0; i < tokens; ++i) *out++ = stream.uniform_double(static_cast<uint64_t>(i));
  }
  return u_BN;
}

Tensor smooth_weights(const Tensor& logits_NV, uint64_t seed, int64_t image, int64_t k, int64_t scales) {
  const double r = guidance_at(1, k, scales), tau = std::max(0.27 * (1 - 0.95 * r), 0.005);
  Tensor u_NV = at::empty(logits_NV.sizes(), at::kFloat);
  base::RandomStream(seed, "smooth", static_cast<uint64_t>(image), static_cast<uint64_t>(k))
      .fill_uniform(u_NV.mutable_data_ptr<float>(), 0, static_cast<uint64_t>(u_NV.numel()));
  // Half a step up, u is neither 0 nor 1 and the noise finite.
  const Tensor noise_NV = u_NV.to(at::kDouble).add_(0x1p-25).log_().neg_().log_().neg_();
  return logits_NV.to(at::kDouble)
      .mul(1 + r)
      .add_(noise_NV.to(logits_NV.device()))
      .div_(tau)
      .softmax(-1)
      .to(at::kFloat);
}

}  // namespace varscale::generate
