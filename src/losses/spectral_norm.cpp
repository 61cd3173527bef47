#include "losses/spectral_norm.hpp"

#include <ATen/ATen.h>

#include "base/random.hpp"
#include "losses/parts/weight_reader.hpp"

namespace varscale::losses {

namespace {

constexpr int kStartIterations = 15;

void copy_unit(const Tensor& to, const Tensor& x) {
  to.copy_(x / at::linalg_vector_norm(x, 2).clamp_min(1e-12));
}

}  // namespace

SpectralNorm::SpectralNorm(Tensor weight, const std::string& name, nn::NamedTensors& buffers)
    : weight_(std::move(weight)), name_(name) {
  const auto options = weight_.options().requires_grad(false);
  u_O_ = at::zeros({weight_.size(0)}, options);
  v_I_ = at::zeros({weight_[0].numel()}, options);
  buffers.push_back({name + ".u", u_O_});
  buffers.push_back({name + ".v", v_I_});
}

void SpectralNorm::start(uint64_t seed) {
  const at::NoGradGuard no_grad;
  Tensor drawn = at::empty(u_O_.sizes(), at::kFloat);
  base::RandomStream(seed, "spectral_norm.start", name_)
      .fill_normal(drawn.mutable_data_ptr<float>(), 0, drawn.numel(), 1);
  copy_unit(u_O_, drawn.to(u_O_.device()));
  for (int i = 0; i < kStartIterations; ++i) advance();
}

void SpectralNorm::advance() {
  const at::NoGradGuard no_grad;
  const Tensor weight_OI = weight_.flatten(1);
  copy_unit(v_I_, at::mv(weight_OI.t(), u_O_));
  copy_unit(u_O_, at::mv(weight_OI, v_I_));
}

Tensor SpectralNorm::weight(at::ScalarType compute) const {
  const at::ScalarType type = wide(compute);
  const Tensor weight = weight_.to(type);
  // Clones: advance() may change the buffers before the pass that uses this weight goes back.
  const Tensor u_O = u_O_.to(type, false, /*copy=*/true), v_I = v_I_.to(type, false, /*copy=*/true);
  const Tensor sigma = at::dot(u_O, at::mv(weight.flatten(1), v_I));
  return (weight / sigma).to(compute);
}

}  // namespace varscale::losses
