#include "nn/attention.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>

#include "base/error.hpp"
#include "nn/attention_rows.hpp"

namespace varscale::nn {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Additive mask of queries [begin, end) on keys [0, end): a token sees the maps up to its own.
Tensor block_causal_mask(const scaling::ScaleList& scales, int64_t begin, int64_t end) {
  Tensor map_of_token = at::empty({end}, at::kLong);
  for (int64_t k = 0; k < scales.count() && scales.begin(k) < end; ++k) {
    map_of_token.slice(0, scales.begin(k), scales.end(k)).fill_(k);
  }
  const Tensor seen = map_of_token.slice(0, begin, end).unsqueeze(1) >= map_of_token.unsqueeze(0);
  return at::zeros({end - begin, end}, at::kFloat)
      .masked_fill_(seen.logical_not(), -std::numeric_limits<float>::infinity());
}

std::optional<Tensor> mask_for(const PrefixSpan& span, const Tensor& q) {
  if (!span.mask_QK.defined()) return std::nullopt;
  return span.mask_QK.to(q.options());
}

class RowPrefixAttention : public torch::autograd::Function<RowPrefixAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<PrefixSpan>& spans, double scale) {
    const Attended attended =
        q.scalar_type() == at::kBFloat16 ? attention_bf16(q, k, v, spans, scale) : attention_rows(q, k, v, spans, scale);
    ctx->save_for_backward({q, k, v, attended.out_BLHD, attended.lse_BHL});
    std::vector<int64_t> bounds;
    std::vector<Tensor> masks;
    for (const PrefixSpan& span : spans) {
      bounds.push_back(span.begin);
      bounds.push_back(span.end);
      masks.push_back(span.mask_QK.defined() ? span.mask_QK : at::empty({0}, at::kFloat));
    }
    ctx->saved_data["spans"] = bounds;
    ctx->saved_data["masks"] = masks;
    ctx->saved_data["scale"] = scale;
    return attended.out_BLHD.flatten(2);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const std::vector<int64_t> bounds = ctx->saved_data["spans"].toIntVector();
    const std::vector<Tensor> masks = ctx->saved_data["masks"].toTensorVector();
    std::vector<PrefixSpan> spans;
    for (size_t i = 0; i < masks.size(); ++i)
      spans.push_back({bounds[2 * i], bounds[2 * i + 1], masks[i].numel() > 0 ? masks[i] : Tensor()});
    const auto backward_of = saved[0].scalar_type() == at::kBFloat16 ? attention_bf16_backward : attention_rows_backward;
    const AttentionGrads back =
        backward_of(grads[0].contiguous().view(saved[3].sizes()), saved[0], saved[1], saved[2], {saved[3], saved[4]}, spans,
                    ctx->saved_data["scale"].toDouble());
    return {back.dq_BLHD.transpose(1, 2), back.dk_BLHD.transpose(1, 2), back.dv_BLHD.transpose(1, 2), Tensor(), Tensor()};
  }
};

// In bf16 where the kernel does not serve: batched products by oneDNN are several times as fast as in float32, with AMX many
// times. Scores and shares are written out, and the shares kept for backward.
class Bf16PrefixAttention : public torch::autograd::Function<Bf16PrefixAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<PrefixSpan>& spans, double scale) {
    const int64_t B = q.size(0), H = q.size(1), L = q.size(2), D = q.size(3);
    auto batched = [&](const Tensor& x) { return x.reshape({B * H, L, D}); };
    const Tensor q_NLD = batched(q), k_NLD = batched(k), v_NLD = batched(v);
    Tensor out_BLHD = at::empty({B, L, H, D}, q.options());
    variable_list saved{q_NLD, k_NLD, v_NLD};
    std::vector<int64_t> bounds;
    for (const PrefixSpan& span : spans) {
      Tensor scores_NQK = at::bmm(q_NLD.slice(1, span.begin, span.end),
                                  k_NLD.slice(1, 0, span.end).transpose(1, 2));
      if (scale != 1) scores_NQK.mul_(scale);
      if (span.mask_QK.defined()) scores_NQK.add_(span.mask_QK.to(q.options()));
      const Tensor shares_NQK = at::softmax(scores_NQK, -1);
      const Tensor out_NQD = at::bmm(shares_NQK, v_NLD.slice(1, 0, span.end));
      out_BLHD.slice(1, span.begin, span.end)
          .copy_(out_NQD.view({B, H, span.end - span.begin, D}).transpose(1, 2));
      saved.push_back(shares_NQK);
      bounds.push_back(span.begin);
      bounds.push_back(span.end);
    }
    ctx->save_for_backward(saved);
    ctx->saved_data["spans"] = bounds;
    ctx->saved_data["scale"] = scale;
    return out_BLHD.view({B, L, H * D});
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &q_NLD = saved[0], &k_NLD = saved[1], &v_NLD = saved[2];
    const std::vector<int64_t> bounds = ctx->saved_data["spans"].toIntVector();
    const double scale = ctx->saved_data["scale"].toDouble();
    const int64_t B = grads[0].size(0), L = q_NLD.size(1), D = q_NLD.size(2), H = q_NLD.size(0) / B;
    const Tensor grad_NLD =
        grads[0].view({B, L, H, D}).transpose(1, 2).reshape({B * H, L, D});
    // Laid out as [B, L, H, D] in memory, like the projection they flow back into.
    const Tensor dq = at::empty({B, L, H, D}, q_NLD.options()).transpose(1, 2);
    Tensor dk, dv;
    for (int64_t i = static_cast<int64_t>(bounds.size() / 2) - 1; i >= 0; --i) {
      const int64_t begin = bounds[2 * i], end = bounds[2 * i + 1];
      const Tensor& shares_NQK = saved[3 + i];
      const Tensor grad_NQD = grad_NLD.slice(1, begin, end);
      const Tensor dshares_NQK = at::bmm(grad_NQD, v_NLD.slice(1, 0, end).transpose(1, 2));
      Tensor dscores_NQK =
          at::_softmax_backward_data(dshares_NQK, shares_NQK, -1, shares_NQK.scalar_type());
      if (scale != 1) dscores_NQK.mul_(scale);
      dq.slice(2, begin, end)
          .copy_(at::bmm(dscores_NQK, k_NLD.slice(1, 0, end)).view({B, H, end - begin, D}));
      const Tensor dk_span = at::bmm(dscores_NQK.transpose(1, 2), q_NLD.slice(1, begin, end));
      const Tensor dv_span = at::bmm(shares_NQK.transpose(1, 2), grad_NQD);
      if (!dk.defined()) {  // the last span sees every key; the sum over spans is taken in float32
        dk = dk_span.to(at::kFloat);
        dv = dv_span.to(at::kFloat);
      } else {
        dk.slice(1, 0, end).add_(dk_span);
        dv.slice(1, 0, end).add_(dv_span);
      }
    }
    auto back = [&](const Tensor& grad_of_NLD) {
      Tensor result = at::empty({B, L, H, D}, q_NLD.options()).transpose(1, 2);
      return result.copy_(grad_of_NLD.view({B, H, L, D}));
    };
    return {dq, back(dk), back(dv), Tensor(), Tensor()};
  }
};

// ATen's own attention span by span, whatever kernel it has for the device and dtype. Each span is a graph
// of its own, from views of the inputs: autograd's slicing of one graph would write a full-size zero tensor
// per span and input. The re-entrant backward is one call for all spans.
class AtenPrefixAttention : public torch::autograd::Function<AtenPrefixAttention> {
 public:
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        const std::vector<PrefixSpan>& spans, double scale, bool differentiable) {
    const int64_t B = q.size(0), H = q.size(1), L = q.size(2), D = q.size(3);
    const Tensor out_BLHD = at::empty({B, L, H, D}, q.options());
    variable_list inputs, outputs;
    std::vector<int64_t> bounds;
    for (const PrefixSpan& span : spans) {
      const auto part = [&](const Tensor& x, int64_t begin) {
        return x.slice(2, begin, span.end).detach().set_requires_grad(differentiable);
      };
      const Tensor q_span = part(q, span.begin), k_span = part(k, 0), v_span = part(v, 0);
      Tensor out;
      {
        const at::AutoGradMode grad_mode(differentiable);
        out = at::scaled_dot_product_attention(q_span, k_span, v_span, mask_for(span, q),
                                               /*dropout_p=*/0.0, /*is_causal=*/false, scale);
      }
      out_BLHD.slice(1, span.begin, span.end).copy_(out.detach().transpose(1, 2));
      if (!differentiable) continue;
      outputs.push_back(out);
      for (const Tensor& input : {q_span, k_span, v_span}) inputs.push_back(input);
      bounds.push_back(span.begin);
      bounds.push_back(span.end);
    }
    inputs.insert(inputs.end(), outputs.begin(), outputs.end());  // and their graphs with them
    ctx->save_for_backward(inputs);
    ctx->saved_data["spans"] = bounds;
    return out_BLHD.view({B, L, H * D});
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto middle = saved.end() - static_cast<int64_t>(saved.size() / 4);
    const variable_list inputs(saved.begin(), middle), outputs(middle, saved.end());
    const std::vector<int64_t> bounds = ctx->saved_data["spans"].toIntVector();
    const int64_t B = outputs[0].size(0), H = outputs[0].size(1), D = outputs[0].size(3);
    const int64_t L = bounds.back();
    const Tensor grad_BLHD = grads[0].contiguous().view({B, L, H, D});
    variable_list grads_of_outputs;
    for (size_t i = 0; i < outputs.size(); ++i) {
      grads_of_outputs.push_back(
          grad_BLHD.slice(1, bounds[2 * i], bounds[2 * i + 1]).transpose(1, 2));
    }
    // The graphs go when what was saved goes.
    const variable_list parts =
        torch::autograd::grad(outputs, inputs, grads_of_outputs, /*retain_graph=*/true);

    const at::ScalarType dtype = outputs[0].scalar_type();
    const at::ScalarType sum_dtype = dtype == at::kDouble ? at::kDouble : at::kFloat;
    // Laid out as [B, L, H, D] in memory, like the projection they flow back into.
    const Tensor dq = at::empty({B, L, H, D}, outputs[0].options()).transpose(1, 2);
    Tensor dk, dv;
    for (size_t i = outputs.size(); i-- > 0;) {
      const int64_t begin = bounds[2 * i], end = bounds[2 * i + 1];
      dq.slice(2, begin, end).copy_(parts[3 * i]);
      if (!dk.defined()) {  // the last span sees every key
        dk = parts[3 * i + 1].to(sum_dtype);
        dv = parts[3 * i + 2].to(sum_dtype);
      } else {
        dk.slice(2, 0, end).add_(parts[3 * i + 1]);
        dv.slice(2, 0, end).add_(parts[3 * i + 2]);
      }
    }
    return {dq, dk.to(dtype), dv.to(dtype), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

PrefixPlan::PrefixPlan(const scaling::ScaleList& scales, int64_t merge_below, at::Device device)
    : scales_(scales), merge_below_(merge_below) {
  int64_t merged = 0;
  for (int64_t k = 1; k < scales_.count() && scales_.end(k) <= merge_below_; ++k)
    merged = scales_.end(k);
  if (merged > 0) mask_QQ_ = block_causal_mask(scales_, 0, merged).to(device);
}

std::vector<PrefixSpan> PrefixPlan::spans(int64_t tokens) const {
  std::vector<PrefixSpan> spans;
  int64_t begin = 0;
  for (int64_t k = 0; k < scales_.count() && scales_.begin(k) < tokens; ++k) {
    const int64_t end = scales_.end(k);
    const bool merge_next =
        begin == 0 && k + 1 < scales_.count() && scales_.end(k + 1) <= std::min(merge_below_, tokens);
    if (merge_next) continue;
    const bool merged = begin < scales_.begin(k);
    spans.push_back(
        {begin, end, merged ? mask_QQ_.slice(0, 0, end).slice(1, 0, end).contiguous() : Tensor()});
    begin = end;
  }
  VARSCALE_CHECK(begin == tokens, "{} tokens do not end at a map of scales {}", tokens, scales_.words());
  return spans;
}

Tensor prefix_attention(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                        const std::vector<PrefixSpan>& spans, double scale) {
  VARSCALE_CHECK(!spans.empty() && q_BHLD.size(2) == spans.back().end && k_BHLD.sizes() == q_BHLD.sizes(),
                 "attention over {} tokens with spans for {}", q_BHLD.size(2),
                 spans.empty() ? 0 : spans.back().end);
  const auto dtype = q_BHLD.scalar_type();
  if (has_attention_rows(q_BHLD, k_BHLD, v_BHLD) || has_attention_bf16(q_BHLD, k_BHLD, v_BHLD))
    return RowPrefixAttention::apply(q_BHLD, k_BHLD, v_BHLD, spans, scale);
  if (q_BHLD.is_cpu() && dtype == at::kBFloat16)
    return Bf16PrefixAttention::apply(q_BHLD, k_BHLD, v_BHLD, spans, scale);
  const bool differentiable =
      at::GradMode::is_enabled() &&
      (q_BHLD.requires_grad() || k_BHLD.requires_grad() || v_BHLD.requires_grad());
  return AtenPrefixAttention::apply(q_BHLD, k_BHLD, v_BHLD, spans, scale, differentiable);
}

Tensor masked_attention(const Tensor& q_BHLD, const Tensor& k_BHLD, const Tensor& v_BHLD,
                        const scaling::ScaleList& scales, double scale) {
  const int64_t L = q_BHLD.size(2);
  const Tensor scores_BHLL = at::matmul(q_BHLD * scale, k_BHLD.transpose(-2, -1)) +
                             block_causal_mask(scales, 0, L).to(q_BHLD.options());
  return at::matmul(at::softmax(scores_BHLL, -1), v_BHLD).transpose(1, 2).reshape({q_BHLD.size(0), L, -1});
}

}  // namespace varscale::nn
