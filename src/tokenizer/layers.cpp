#include "tokenizer/layers.hpp"

#include <ATen/ATen.h>

#include <cmath>

#include "nn/rows.hpp"
#include "nn/storage.hpp"
#include "nn/winograd.hpp"

namespace varscale::tokenizer {

namespace {
constexpr double kEps = 1e-6;  // of the norms
}  // namespace

Tensor run_block(const BlockRunner& runner, int64_t index, const Tensor& x, const BlockBody& body) {
  return runner ? runner(index, {x}, body) : body({x});
}

Tensor make_leaf(const std::vector<int64_t>& sizes, at::ScalarType dtype, const LeafOptions& options) {
  if (!options.allocate) return nn::absent_leaf(sizes, dtype, options.device);
  return at::zeros(sizes, at::TensorOptions(dtype).device(options.device));
}

Tensor Conv::operator()(const Tensor& x_BCHW) const {
  if (!at::GradMode::is_enabled() && stride == 1 && nn::winograd_pays(x_BCHW, weight_OIkk))
    return nn::winograd_convolution(x_BCHW, weight_OIkk, bias_O);
  return at::conv2d(x_BCHW.to(weight_OIkk.scalar_type()), weight_OIkk, bias_O, stride, padding);
}

Tensor GroupNorm::operator()(const Tensor& x_BCHW) const {
  // The CPU's kernel takes bfloat16 beside float32 weights, a GPU's does not.
  if (x_BCHW.is_cpu()) return at::group_norm(x_BCHW, groups, weight_C, bias_C, kEps);
  return at::group_norm(x_BCHW.to(weight_C.scalar_type()), groups, weight_C, bias_C, kEps).to(x_BCHW.scalar_type());
}

Tensor GroupNorm::silu(const Tensor& x_BCHW) const {
  const bool by_rows = !at::GradMode::is_enabled() && x_BCHW.is_cpu() && !x_BCHW.is_contiguous() &&
                       x_BCHW.is_contiguous(at::MemoryFormat::ChannelsLast);
  return by_rows ? nn::group_norm_silu(x_BCHW, groups, weight_C, bias_C, kEps) : at::silu((*this)(x_BCHW));
}

Conv Builder::conv(const std::string& name, int64_t in, int64_t out, int64_t kernel,
                   int64_t stride) const {
  Conv conv{make_leaf({out, in, kernel, kernel}, leaves_.weights, leaves_),
            make_leaf({out}, leaves_.weights, leaves_), stride, stride == 1 ? kernel / 2 : 0};
  parameters_.push_back({prefix_ + name + ".weight", conv.weight_OIkk});
  parameters_.push_back({prefix_ + name + ".bias", conv.bias_O});
  return conv;
}

GroupNorm Builder::norm(const std::string& name, int64_t channels) const {
  GroupNorm norm{make_leaf({channels}, at::kFloat, leaves_), make_leaf({channels}, at::kFloat, leaves_), groups_};
  if (leaves_.allocate) norm.weight_C.fill_(1);
  parameters_.push_back({prefix_ + name + ".weight", norm.weight_C});
  parameters_.push_back({prefix_ + name + ".bias", norm.bias_C});
  return norm;
}

ResidualBlock::ResidualBlock(const Builder& build, int64_t in, int64_t out)
    : norm1_(build.norm("norm1", in)),
      conv1_(build.conv("conv1", in, out)),
      norm2_(build.norm("norm2", out)),
      conv2_(build.conv("conv2", out, out)) {
  if (in != out) shortcut_ = build.conv("nin_shortcut", in, out, 1);
}

Tensor ResidualBlock::operator()(const Tensor& x_BCHW) const {
  const Tensor h_BCHW = conv2_(norm2_.silu(conv1_(norm1_.silu(x_BCHW))));
  return (shortcut_ ? (*shortcut_)(x_BCHW) : x_BCHW) + h_BCHW;
}

AttentionBlock::AttentionBlock(const Builder& build, int64_t channels)
    : norm_(build.norm("norm", channels)),
      qkv_(build.conv("qkv", channels, 3 * channels, 1)),
      proj_out_(build.conv("proj_out", channels, channels, 1)) {}

Tensor AttentionBlock::operator()(const Tensor& x_BCHW) const {
  const int64_t channels = x_BCHW.size(1);
  const Tensor qkv_BXN = qkv_(norm_(x_BCHW)).flatten(2);  // X = 3 C
  const auto q_k_v = qkv_BXN.chunk(3, 1);                 // each [B, C, N]
  const double scale = 1 / std::sqrt(static_cast<double>(channels));
  const Tensor weight_BNN = at::softmax(at::bmm(q_k_v[0].transpose(1, 2), q_k_v[1]) * scale, 2, at::kFloat);
  const Tensor h_BCN = at::bmm(q_k_v[2], weight_BNN.to(qkv_BXN.scalar_type()).transpose(1, 2));
  return x_BCHW + proj_out_(h_BCN.view(x_BCHW.sizes()));
}

MiddleBlock::MiddleBlock(const Builder& build, int64_t channels)
    : block_1_(build.below("block_1"), channels, channels),
      attn_1_(build.below("attn_1"), channels),
      block_2_(build.below("block_2"), channels, channels) {}

Tensor MiddleBlock::operator()(const Tensor& x_BCHW, std::string_view prefix,
                               const Observer& observe) const {
  const Tensor attended_BCHW = attn_1_(block_1_(x_BCHW));
  if (observe) observe(std::string(prefix) + "mid.attn_1", attended_BCHW);
  const Tensor y_BCHW = block_2_(attended_BCHW);
  if (observe) observe(std::string(prefix) + "mid.block_2", y_BCHW);
  return y_BCHW;
}

}  // namespace varscale::tokenizer
