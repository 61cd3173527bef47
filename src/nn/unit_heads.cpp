// The way from one projection to attention's q, k and v, in the order of memory both ways.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "nn/functional.hpp"
#include "nn/lanes.hpp"
#include "nn/row_access.hpp"

namespace varscale::nn {

namespace {

constexpr float kSmallestNorm = 1e-12F;

// Elements of one image; how far apart tokens and heads lie.
template <class T>
struct Place {
  T* data;
  int64_t token, head;
  T* at(int64_t l, int64_t h) const { return data + l * token + h * head; }
};

template <class T>
inline __attribute__((always_inline)) void unit(const T* x, float scale, T* y, float* norm, int64_t D) {
  Floats squares{};
  for (int64_t i = 0; i < D; i += kLanes) {
    const Floats lanes = load_lanes(x + i);
    squares += lanes * lanes;
  }
  *norm = std::max(std::sqrt(sum_of(squares)), kSmallestNorm);
  const float factor = scale / *norm;
  for (int64_t i = 0; i < D; i += kLanes) store_lanes(load_lanes(x + i) * factor, y + i);
}

// From y = scale x / |x| and its gradient to that of x; returns the gradient of the scale.
template <class T>
inline __attribute__((always_inline)) float unit_backward(const T* dy, const T* y, float norm, float scale, T* dx, int64_t D) {
  Floats products{};
  for (int64_t i = 0; i < D; i += kLanes) products += load_lanes(dy + i) * load_lanes(y + i);
  const float along = sum_of(products) / scale;  // of the gradient along the unit vector
  // Below the smallest norm the factor is constant.
  const float ahead = scale / norm, back = norm > kSmallestNorm ? -along / norm : 0.0F;
  for (int64_t i = 0; i < D; i += kLanes) store_lanes(load_lanes(dy + i) * ahead + load_lanes(y + i) * back, dx + i);
  return along;
}

// Tokens [begin, end) of an image; heads 0 to H - 1 of a token of qkv are q's, then k's, then v's.
template <class T>
struct Split {
  Place<T> qkv, q, k, v;
  float *q_norm, *k_norm;  // [H, L]
  const float* scale;      // [H], of q
  int64_t L, H, D;
};

template <class T>
inline __attribute__((always_inline)) void split(const Split<T>& s, int64_t begin, int64_t end) {
  for (int64_t l = begin; l < end; ++l) {
    for (int64_t h = 0; h < s.H; ++h) unit(s.qkv.at(l, h), s.scale[h], s.q.at(l, h), s.q_norm + h * s.L + l, s.D);
    for (int64_t h = 0; h < s.H; ++h) unit(s.qkv.at(l, s.H + h), 1.0F, s.k.at(l, h), s.k_norm + h * s.L + l, s.D);
    for (int64_t h = 0; h < s.H; ++h) std::copy_n(s.qkv.at(l, 2 * s.H + h), s.D, s.v.at(l, h));
  }
}

// Here qkv, q and k with their norms are those of forward, the others gradients; qkv's is written.
template <class T>
inline __attribute__((always_inline)) void split_backward(const Split<T>& s, Place<T> dq, Place<T> dk, Place<T> dv, float* dscale,
                                                          int64_t begin, int64_t end) {
  for (int64_t l = begin; l < end; ++l) {
    for (int64_t h = 0; h < s.H; ++h)
      dscale[h] += unit_backward<T>(dq.at(l, h), s.q.at(l, h), s.q_norm[h * s.L + l], s.scale[h], s.qkv.at(l, h), s.D);
    for (int64_t h = 0; h < s.H; ++h)
      unit_backward<T>(dk.at(l, h), s.k.at(l, h), s.k_norm[h * s.L + l], 1.0F, s.qkv.at(l, s.H + h), s.D);
    for (int64_t h = 0; h < s.H; ++h) std::copy_n(dv.at(l, h), s.D, s.qkv.at(l, 2 * s.H + h));
  }
}

VARSCALE_SIMD void split_tokens(const Split<float>& s, int64_t begin, int64_t end) { split(s, begin, end); }
VARSCALE_SIMD void split_tokens(const Split<uint16_t>& s, int64_t begin, int64_t end) { split(s, begin, end); }
VARSCALE_SIMD void split_tokens_backward(const Split<float>& s, Place<float> dq, Place<float> dk, Place<float> dv, float* dscale,
                                         int64_t begin, int64_t end) {
  split_backward(s, dq, dk, dv, dscale, begin, end);
}
VARSCALE_SIMD void split_tokens_backward(const Split<uint16_t>& s, Place<uint16_t> dq, Place<uint16_t> dk, Place<uint16_t> dv,
                                         float* dscale, int64_t begin, int64_t end) {
  split_backward(s, dq, dk, dv, dscale, begin, end);
}

// Image b of [B, H, L, D].
template <class T>
Place<T> image_of(const Tensor& x_BHLD, int64_t b) {
  auto* data = static_cast<T*>(const_cast<void*>(x_BHLD.const_data_ptr()));
  return {data + b * x_BHLD.stride(0), x_BHLD.stride(2), x_BHLD.stride(1)};
}

// norms_2BHL: of q and of k.
template <class T>
Split<T> split_of(const Tensor& qkv_BLM, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& norms_2BHL,
                  const Tensor& scale_H, int64_t b) {
  const int64_t H = q.size(1), L = q.size(2), D = q.size(3), B = q.size(0);
  auto* qkv = static_cast<T*>(const_cast<void*>(qkv_BLM.const_data_ptr()));
  auto* norms = const_cast<float*>(norms_2BHL.const_data_ptr<float>());
  return {{qkv + b * L * 3 * H * D, 3 * H * D, D},
          image_of<T>(q, b),
          image_of<T>(k, b),
          image_of<T>(v, b),
          norms + b * H * L,
          norms + (B + b) * H * L,
          scale_H.const_data_ptr<float>(),
          L,
          H,
          D};
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Keeps what it returns, which attention keeps as well, and two norms a token and head.
class UnitHeads : public torch::autograd::Function<UnitHeads> {
 public:
  static variable_list forward(AutogradContext* ctx, const Tensor& qkv_BLM, const Tensor& scale_1H11) {
    const int64_t B = qkv_BLM.size(0), L = qkv_BLM.size(1), H = scale_1H11.size(1), D = qkv_BLM.size(2) / (3 * H);
    const Tensor scale_H = scale_1H11.flatten().contiguous();
    const auto heads = [&] { return at::empty({B, H, L, D}, qkv_BLM.options()); };
    const Tensor q = heads(), k = heads(), v = heads(), norms_2BHL = at::empty({2, B, H, L}, at::TensorOptions(at::kFloat));
    with_elements(qkv_BLM, [&](auto element) {
      at::parallel_for(0, B * L, row_grain(3 * H * D), [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end;) {
          const int64_t b = n / L, next = std::min(end, (b + 1) * L);
          split_tokens(split_of<decltype(element)>(qkv_BLM, q, k, v, norms_2BHL, scale_H, b), n - b * L, next - b * L);
          n = next;
        }
      });
    });
    ctx->save_for_backward({q, k, norms_2BHL, scale_H});
    return {q, k, v};
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &q = saved[0], &k = saved[1], &norms_2BHL = saved[2], &scale_H = saved[3];
    const int64_t B = q.size(0), H = q.size(1), L = q.size(2), D = q.size(3);
    for (Tensor& grad : grads)
      if (grad.stride(3) != 1) grad = grad.contiguous();
    const Tensor dqkv_BLM = at::empty({B, L, 3 * H * D}, q.options());
    Tensor dscale_BH;
    with_elements(q, [&](auto element) {
      using T = decltype(element);
      dscale_BH = sample_sums(B, L, H, [&](int64_t begin, int64_t end, float* sums) {
        const int64_t b = begin / L;
        split_tokens_backward(split_of<T>(dqkv_BLM, q, k, q, norms_2BHL, scale_H, b), image_of<T>(grads[0], b),
                              image_of<T>(grads[1], b), image_of<T>(grads[2], b), sums, begin - b * L, end - b * L);
      });
    });
    return {dqkv_BLM, dscale_BH.sum(0).view({1, H, 1, 1})};
  }
};

}  // namespace

Heads split_heads(const Tensor& qkv_BLM, int64_t heads) {
  VARSCALE_CHECK(qkv_BLM.size(2) % (3 * heads) == 0, "a projection of {} numbers for {} heads", qkv_BLM.size(2), heads);
  const std::vector<Tensor> parts =
      qkv_BLM.view({qkv_BLM.size(0), qkv_BLM.size(1), 3, heads, -1}).permute({2, 0, 3, 1, 4}).unbind(0);
  return {parts[0], parts[1], parts[2]};
}

Heads unit_heads(const Tensor& qkv_BLM, const Tensor& scale_1H11) {
  const int64_t H = scale_1H11.size(1), D = qkv_BLM.size(2) / (3 * H);
  if (has_row_kernels(qkv_BLM) && qkv_BLM.is_contiguous() && qkv_BLM.size(2) == 3 * H * D && D % kLanes == 0 &&
      scale_1H11.scalar_type() == at::kFloat) {
    const variable_list heads = UnitHeads::apply(qkv_BLM, scale_1H11);
    return {heads[0], heads[1], heads[2]};
  }
  const Heads raw = split_heads(qkv_BLM, H);
  const at::ScalarType dtype = qkv_BLM.scalar_type();
  return {(unit_norm(raw.q_BHLD) * scale_1H11).to(dtype), unit_norm(raw.k_BHLD).to(dtype), raw.v_BHLD};
}

}  // namespace varscale::nn
