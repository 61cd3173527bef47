#include "models/var/model.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "base/error.hpp"
#include "base/random.hpp"
#include "nn/storage.hpp"

namespace varscale::models {

namespace {
constexpr double kNormEps = 1e-6;
// The learned log-scale of q is bounded by ln 100.
const double kMaxLogScale = std::log(100.0);
}  // namespace

Var::Var(scaling::VarShape shape, const VarOptions& options)
    : shape_(std::move(shape)),
      options_(options),
      prefix_plan_(shape_.tokens.scales, nn::PrefixPlan::kMergeBelow, options.device) {
  const int64_t C = shape_.width, H = shape_.heads, E = shape_.tokens.code_width;
  const int64_t V = shape_.tokens.vocabulary, L = shape_.tokens.scales.tokens();
  const int64_t first = shape_.tokens.scales.tokens_at(0);
  VARSCALE_CHECK(C % H == 0, "width {} is not divisible by {} heads", C, H);

  pos_start_ = add("pos_start", {1, first, C});
  pos_1LC_ = add("pos_1LC", {1, L, C});
  word_weight_ = add("word_embed.weight", {C, E});
  word_bias_ = add("word_embed.bias", {C});
  class_emb_ = add("class_emb.weight", {shape_.classes + 1, C});
  lvl_emb_ = add("lvl_embed.weight", {shape_.tokens.scales.count(), C});
  if (shape_.shared_adaln) {
    shared_ada_weight_ = add("shared_ada_lin.1.weight", {6 * C, C});
    shared_ada_bias_ = add("shared_ada_lin.1.bias", {6 * C});
  }
  for (int64_t i = 0; i < shape_.depth; ++i) {
    const std::string prefix = fmt::format("blocks.{}.", i);
    Block block;
    if (shape_.shared_adaln) block.ada_gss = add(prefix + "ada_gss", {1, 1, 6, C});
    if (shape_.attn_l2_norm) block.scale_mul = add(prefix + "attn.scale_mul_1H11", {1, H, 1, 1});
    block.q_bias = add(prefix + "attn.q_bias", {C}, Use::kProducts);
    block.v_bias = add(prefix + "attn.v_bias", {C}, Use::kProducts);
    block.qkv_weight = add(prefix + "attn.mat_qkv.weight", {3 * C, C}, Use::kProducts);
    block.proj_weight = add(prefix + "attn.proj.weight", {C, C}, Use::kProducts);
    block.proj_bias = add(prefix + "attn.proj.bias", {C}, Use::kProducts);
    block.fc1_weight = add(prefix + "ffn.fc1.weight", {shape_.hidden(), C}, Use::kProducts);
    block.fc1_bias = add(prefix + "ffn.fc1.bias", {shape_.hidden()}, Use::kProducts);
    block.fc2_weight = add(prefix + "ffn.fc2.weight", {C, shape_.hidden()}, Use::kProducts);
    block.fc2_bias = add(prefix + "ffn.fc2.bias", {C}, Use::kProducts);
    if (!shape_.shared_adaln) {
      block.ada_weight = add(prefix + "ada_lin.1.weight", {6 * C, C}, Use::kProducts);
      block.ada_bias = add(prefix + "ada_lin.1.bias", {6 * C}, Use::kProducts);
    }
    blocks_.push_back(std::move(block));
  }
  head_ada_weight_ = add("head_nm.ada_lin.1.weight", {2 * C, C});
  head_ada_bias_ = add("head_nm.ada_lin.1.bias", {2 * C});
  head_weight_ = add("head.weight", {V, C}, Use::kProducts);
  head_bias_ = add("head.bias", {V}, Use::kProducts);

  level_of_token_L_ = at::empty({L}, at::kLong);
  for (int64_t k = 0; k < shape_.tokens.scales.count(); ++k) {
    level_of_token_L_.slice(0, shape_.tokens.scales.begin(k), shape_.tokens.scales.end(k)).fill_(k);
  }
  level_of_token_L_ = level_of_token_L_.to(options_.device);
}

Tensor Var::add(const std::string& name, std::vector<int64_t> shape, Use use) {
  const at::ScalarType dtype = use == Use::kProducts ? options_.weights : at::kFloat;
  Tensor parameter =
      options_.allocate
          ? at::empty(shape, at::TensorOptions(dtype).device(options_.device))
                .set_requires_grad(true)
          : nn::absent_leaf(shape, dtype, options_.device);
  parameters_.push_back({name, parameter});
  return parameter;
}

std::vector<nn::NamedTensors> Var::units() const {
  std::vector<nn::NamedTensors> units(1 + static_cast<size_t>(shape_.depth));
  for (const nn::NamedTensor& parameter : parameters_) {
    constexpr std::string_view kBlocks = "blocks.";
    const bool in_block = parameter.name.starts_with(kBlocks);
    units[in_block ? 1 + std::stoul(parameter.name.substr(kBlocks.size())) : 0].push_back(parameter);
  }
  return units;
}

double Var::attention_scale() const {
  // Without the unit norm the public code uses a quarter of the usual scale.
  return shape_.attn_l2_norm ? 1.0 : 0.25 / std::sqrt(static_cast<double>(shape_.head_width()));
}

Var::Condition Var::condition(const Tensor& labels_B) const {
  Condition condition;
  condition.class_BC = at::embedding(class_emb_, labels_B);
  if (shape_.shared_adaln) {
    condition.shared_B6C =
        at::linear(at::silu(condition.class_BC), shared_ada_weight_, shared_ada_bias_)
            .view({labels_B.size(0), 1, 6, shape_.width});
  }
  return condition;
}

Tensor Var::embed_words(const Tensor& codes_BLE) const {
  return at::linear(codes_BLE, word_weight_, word_bias_);
}

Tensor Var::embed(const Condition& condition, const Tensor& teacher_BLE) const {
  const int64_t B = condition.class_BC.size(0), first = pos_start_.size(1);
  Tensor x_BLC = condition.class_BC.unsqueeze(1).expand({B, first, shape_.width}) + pos_start_;
  if (teacher_BLE.defined() && teacher_BLE.size(1) > 0) {
    x_BLC = at::cat({x_BLC, embed_words(teacher_BLE)}, 1);
  }
  const int64_t L = x_BLC.size(1);
  const Tensor level_LC = at::embedding(lvl_emb_, level_of_token_L_.slice(0, 0, L));
  return x_BLC + (level_LC + pos_1LC_.slice(1, 0, L));
}

Tensor Var::embed_map(int64_t k, const Tensor& input_BLE) const {
  const int64_t begin = shape_.tokens.scales.begin(k), end = shape_.tokens.scales.end(k);
  const Tensor level_LC = at::embedding(lvl_emb_, level_of_token_L_.slice(0, begin, end));
  return embed_words(input_BLE) + (level_LC + pos_1LC_.slice(1, begin, end));
}

Var::Modulation Var::modulation(int64_t index, const Condition& condition,
                                at::ScalarType compute) const {
  const Block& block = blocks_[index];
  Tensor all_B16C;
  if (shape_.shared_adaln) {
    all_B16C = block.ada_gss + condition.shared_B6C;
  } else {
    all_B16C = nn::linear(at::silu(condition.class_BC), block.ada_weight, block.ada_bias, compute)
                   .to(at::kFloat)
                   .view({-1, 1, 6, shape_.width});
  }
  const std::vector<Tensor> parts = all_B16C.unbind(2);
  return {parts[0], parts[1], parts[2], parts[3], parts[4], parts[5]};
}

Tensor Var::norm_and_linear(const Tensor& x_BLC, const Tensor& scale_B1C, const Tensor& shift_B1C, const Tensor& weight,
                            const Tensor& bias, Arithmetic arithmetic) {
  const at::ScalarType compute = arithmetic.compute;
  const auto norm = [compute](const std::vector<Tensor>& in) {
    return nn::modulated_norm(in[0], in[1], in[2], kNormEps, compute);
  };
  const std::vector<Tensor> inputs{x_BLC, scale_B1C, shift_B1C};
  return arithmetic.recompute_inputs ? nn::linear_of(norm, inputs, weight, bias, compute)
                                     : nn::linear(norm(inputs), weight, bias, compute);
}

nn::Heads Var::project_qkv(const Block& block, const Tensor& x_BLC, const Modulation& mod, Arithmetic arithmetic) const {
  // k has no bias: a constant added to every key does not change the softmax.
  const Tensor bias = at::cat({block.q_bias, at::zeros_like(block.q_bias), block.v_bias});
  const Tensor qkv_BLM =
      norm_and_linear(x_BLC, mod.scale1, mod.shift1, block.qkv_weight, bias, arithmetic);
  if (!shape_.attn_l2_norm) return nn::split_heads(qkv_BLM, shape_.heads);
  return nn::unit_heads(qkv_BLM, block.scale_mul.clamp_max(kMaxLogScale).exp());
}

Tensor Var::attention_branch(int64_t index, const Tensor& x_BLC, const Modulation& mod,
                             const std::vector<nn::PrefixSpan>& spans,
                             Arithmetic arithmetic) const {
  const Block& block = blocks_[index];
  const auto [q, k, v] = project_qkv(block, x_BLC, mod, arithmetic);
  const Tensor attended = nn::prefix_attention(q, k, v, spans, attention_scale());
  return nn::linear(attended, block.proj_weight, block.proj_bias, arithmetic.compute);
}

Tensor Var::feed_forward_branch(int64_t index, const Tensor& x_BLC, const Modulation& mod,
                                Arithmetic arithmetic) const {
  const Block& block = blocks_[index];
  const Tensor hidden = norm_and_linear(x_BLC, mod.scale2, mod.shift2, block.fc1_weight, block.fc1_bias, arithmetic);
  if (!arithmetic.recompute_inputs)
    return nn::linear(nn::gelu_tanh(hidden), block.fc2_weight, block.fc2_bias, arithmetic.compute);
  return nn::linear_of([](const std::vector<Tensor>& in) { return nn::gelu_tanh(in[0]); }, {hidden}, block.fc2_weight,
                       block.fc2_bias, arithmetic.compute);
}

Tensor Var::block(int64_t index, const Tensor& x_BLC, const Condition& condition,
                  const std::vector<nn::PrefixSpan>& spans, const ForwardOptions& options) const {
  const Modulation mod = modulation(index, condition, options.compute);
  Tensor gamma1 = mod.gamma1, gamma2 = mod.gamma2;
  if (options.drop_path_SB.defined()) {  // the factor of a sample scales its gates
    gamma1 = gamma1 * options.drop_path_SB[2 * index].view({-1, 1, 1});
    gamma2 = gamma2 * options.drop_path_SB[2 * index + 1].view({-1, 1, 1});
  }
  const Arithmetic arithmetic{options.compute, options.recompute_inputs};
  const Tensor attn_out = attention_branch(index, x_BLC, mod, spans, arithmetic);
  const Tensor x1_BLC = nn::gated_residual(x_BLC, attn_out, gamma1);
  const Tensor ffn_out = feed_forward_branch(index, x1_BLC, mod, arithmetic);
  return nn::gated_residual(x1_BLC, ffn_out, gamma2);
}

Tensor Var::block_cached(int64_t index, const Tensor& x_BLC, const Condition& condition,
                         KvCache& cache, at::ScalarType compute) const {
  const Block& block = blocks_[index];
  const Modulation mod = modulation(index, condition, compute);
  const int64_t begin = cache.tokens, end = begin + x_BLC.size(1);
  const auto [q, k, v] = project_qkv(block, x_BLC, mod, {compute});
  cache.k_BHLD[index].slice(2, begin, end).copy_(k);
  cache.v_BHLD[index].slice(2, begin, end).copy_(v);
  const Tensor attended =
      at::scaled_dot_product_attention(q, cache.k_BHLD[index].slice(2, 0, end),
                                       cache.v_BHLD[index].slice(2, 0, end), std::nullopt, 0.0,
                                       false, attention_scale())
          .transpose(1, 2)
          .reshape({x_BLC.size(0), x_BLC.size(1), shape_.width});
  const Tensor attn_out = nn::linear(attended, block.proj_weight, block.proj_bias, compute);
  const Tensor x1_BLC = nn::gated_residual(x_BLC, attn_out, mod.gamma1);
  const Tensor ffn_out = feed_forward_branch(index, x1_BLC, mod, {compute});
  if (index + 1 == shape_.depth) cache.tokens = end;
  return nn::gated_residual(x1_BLC, ffn_out, mod.gamma2);
}

KvCache Var::make_cache(int64_t batch, at::ScalarType compute) const {
  KvCache cache;
  const auto options = at::TensorOptions(compute).device(options_.device);
  for (int64_t i = 0; i < shape_.depth; ++i) {
    const std::vector<int64_t> shape{batch, shape_.heads, shape_.tokens.scales.tokens(),
                                     shape_.head_width()};
    cache.k_BHLD.push_back(at::empty(shape, options));
    cache.v_BHLD.push_back(at::empty(shape, options));
  }
  return cache;
}

Tensor Var::head_norm(const Tensor& x_BLC, const Condition& condition,
                      at::ScalarType compute) const {
  const std::vector<Tensor> parts =
      at::linear(at::silu(condition.class_BC), head_ada_weight_, head_ada_bias_)
          .view({-1, 1, 2, shape_.width})
          .unbind(2);
  return nn::modulated_norm(x_BLC, parts[0], parts[1], kNormEps, compute);
}

Tensor Var::head(const Tensor& x_BLC, const Condition& condition, at::ScalarType compute) const {
  return nn::linear(head_norm(x_BLC, condition, compute), head_weight_, head_bias_, compute);
}

Tensor Var::forward(const Tensor& labels_B, const Tensor& teacher_BLE,
                    const ForwardOptions& options) const {
  const Condition cond = condition(labels_B);
  Tensor x_BLC = embed(cond, teacher_BLE);
  const std::vector<nn::PrefixSpan> prefix_spans = spans(x_BLC.size(1));
  for (int64_t i = 0; i < shape_.depth; ++i) {
    // By value: a body may run again in backward.
    const BlockBody body = [this, i, prefix_spans, options](const std::vector<Tensor>& inputs) {
      return block(i, inputs[0], {inputs[1], inputs[2]}, prefix_spans, options);
    };
    const std::vector<Tensor> inputs{x_BLC, cond.class_BC, cond.shared_B6C};
    x_BLC = options.run_block ? options.run_block(i, inputs, body) : body(inputs);
  }
  return head(x_BLC, cond, options.compute);
}

}  // namespace varscale::models
