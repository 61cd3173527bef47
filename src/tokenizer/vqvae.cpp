#include "tokenizer/vqvae.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <string_view>

#include "base/error.hpp"
#include "base/random.hpp"

namespace varscale::tokenizer {

using base::UserError;

void VqvaeConfig::check() const {
  if (channel_mult.empty()) throw UserError("channel_mult is empty, expected one factor per level");
  const scaling::ScaleList list(scales);
  const int64_t down = int64_t{1} << (channel_mult.size() - 1);
  if (image_side != list.last_side() * down) {
    throw UserError("image_side is {}, expected {}: the last scale {} times {} ({} levels)",
                    image_side, list.last_side() * down, list.last_side(), down,
                    channel_mult.size());
  }
  for (const int64_t mult : channel_mult) {
    if (channels * mult % groups != 0) {
      throw UserError("groups is {}, which does not divide the {} channels of a level", groups,
                      channels * mult);
    }
  }
}

QuantizerConfig VqvaeConfig::quantizer() const {
  return {vocabulary, code_width, scaling::ScaleList(scales), phis, phi_ratio, beta, unit_norm};
}

namespace {

VqvaeConfig checked(VqvaeConfig config) {
  config.check();
  return config;
}

}  // namespace

Vqvae::Vqvae(VqvaeConfig config, const LeafOptions& leaves)
    : config_(checked(std::move(config))), quantizer_(config_.quantizer(), leaves) {
  encoder_.emplace(config_.autoencoder(), parameters_, leaves);
  decoder_.emplace(config_.autoencoder(), parameters_, leaves);
  const nn::NamedTensors& codes = quantizer_.parameters();  // codebook first, then the phis
  parameters_.insert(parameters_.end(), codes.begin() + 1, codes.end());
  parameters_.push_back(codes[0]);
  const Builder build("", config_.groups, parameters_, leaves);
  quant_conv_ = build.conv("quant_conv", config_.code_width, config_.code_width);
  post_quant_conv_ = build.conv("post_quant_conv", config_.code_width, config_.code_width);
  hits_SV_ = at::zeros({quantizer_.config().scales.count(), config_.vocabulary}, leaves.device);
}

Vqvae Vqvae::to(at::Device device) const {
  const at::NoGradGuard no_grad;
  Vqvae copy(config_, {.device = device});
  const nn::NamedTensors from = state(), to = copy.state();
  for (size_t i = 0; i < from.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  return copy;
}

nn::NamedTensors Vqvae::state() const {
  nn::NamedTensors state = parameters_;
  state.push_back({"quantize.ema_vocab_hit_SV", hits_SV_});
  return state;
}

std::vector<nn::NamedTensors> Vqvae::units() const {
  // The order of the pass: encoder's levels and middle, decoder's middle and levels from the last on.
  const auto levels = static_cast<int64_t>(config_.channel_mult.size());
  std::vector<std::string> prefixes;
  for (int64_t i = 0; i < levels; ++i) prefixes.push_back(fmt::format("encoder.down.{}.", i));
  prefixes.insert(prefixes.end(), {"encoder.mid.", "decoder.mid."});
  for (int64_t i = levels; i-- > 0;) prefixes.push_back(fmt::format("decoder.up.{}.", i));
  std::vector<nn::NamedTensors> units(1 + prefixes.size());
  for (const nn::NamedTensor& parameter : parameters_) {
    size_t unit = 0;
    for (size_t u = 0; u < prefixes.size(); ++u)
      if (parameter.name.starts_with(prefixes[u])) unit = 1 + u;
    units[unit].push_back(parameter);
  }
  return units;
}

std::vector<double> Vqvae::fan_ins() const {
  std::vector<double> fan_ins;
  double fan_in = 1;  // of the convolution whose weight came last: its bias follows
  for (const auto& [name, tensor] : parameters_) {
    if (tensor.dim() == 4) fan_in = static_cast<double>(tensor.numel() / tensor.size(0));
    const bool of_convolution = tensor.dim() == 4 || (tensor.dim() == 1 && name.find("norm") == std::string::npos);
    fan_ins.push_back(of_convolution ? fan_in : 1);
  }
  return fan_ins;
}

void fill_initial(const std::string& name, double fan_in, int64_t vocabulary, const InitOptions& options,
                  int64_t first, const Tensor& out_P) {
  at::NoGradGuard no_grad;
  const base::RandomStream stream(options.seed, "tokenizer.init", name);
  const Tensor host_P = out_P.is_cpu() ? out_P : at::empty(out_P.sizes(), at::kFloat);
  auto fill_uniform = [&](double bound) {
    stream.fill_uniform(host_P.mutable_data_ptr<float>(), static_cast<uint64_t>(first), host_P.numel());
    out_P.copy_(host_P).mul_(2 * bound).sub_(bound);
  };
  auto fill_normal = [&](double deviation) {
    stream.fill_normal(host_P.mutable_data_ptr<float>(), static_cast<uint64_t>(first), host_P.numel(),
                       static_cast<float>(deviation));
    out_P.copy_(host_P);
  };
  const bool as_public = options.network == Init::kPublic;
  const bool norm = name.find("norm") != std::string::npos, bias = name.ends_with(".bias");
  const bool closes_block = name.ends_with("conv2.weight") || name.ends_with("proj_out.weight");
  if (norm) {
    out_P.fill_(bias ? 0 : 1);
  } else if (name == "quantize.embedding.weight") {
    if (options.small_codes)
      fill_uniform(1.0 / static_cast<double>(vocabulary));
    else
      fill_normal(1);
  } else if (as_public) {
    fill_uniform(1 / std::sqrt(fan_in));
  } else if (bias || closes_block) {
    out_P.zero_();
  } else {
    fill_normal(1 / std::sqrt(fan_in));
  }
}

void Vqvae::initialise(const InitOptions& options) {
  const std::vector<double> fan_ins = this->fan_ins();
  for (size_t i = 0; i < parameters_.size(); ++i)
    fill_initial(parameters_[i].name, fan_ins[i], config_.vocabulary, options, 0, parameters_[i].tensor.detach());
}

namespace {

// The convolutions under these prefixes; norms stay in float32. An output follows the layout of the weights.
void round_to(at::ScalarType type, at::MemoryFormat layout, const nn::NamedTensors& parameters,
              std::initializer_list<std::string_view> prefixes) {
  for (const auto& [name, tensor] : parameters) {
    const bool below = std::ranges::any_of(prefixes, [&](std::string_view prefix) { return name.starts_with(prefix); });
    if (!below || name.find("norm") != std::string::npos) continue;
    tensor.set_data(tensor.dim() == 4 ? tensor.to(type).contiguous(layout) : tensor.to(type));
  }
}

}  // namespace

void Vqvae::encode_in(at::ScalarType type) {
  // In float32 as training has it: another order of the sums could give other tokens.
  const auto layout = type == at::kFloat ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
  round_to(type, layout, parameters_, {"encoder.", "quant_conv."});
}

void Vqvae::decode_in(at::ScalarType type) {
  round_to(type, at::MemoryFormat::ChannelsLast, parameters_, {"decoder.", "post_quant_conv."});
}

Tensor Vqvae::features(const Tensor& image_B3XX, const Observer& observe, const BlockRunner& runner) const {
  VARSCALE_CHECK(image_B3XX.dim() == 4 && image_B3XX.size(1) == 3 &&
                     image_B3XX.size(2) == config_.image_side &&
                     image_B3XX.size(3) == config_.image_side,
                 "image [{}], expected [B, 3, {}, {}]", fmt::join(image_B3XX.sizes(), ", "),
                 config_.image_side, config_.image_side);
  // Images decoded pixel by pixel come channels-last, in which float32 convolutions of few channels are slower on
  // CPUs; those in bf16 are faster.
  const at::ScalarType type = quant_conv_.weight_OIkk.scalar_type();
  const auto layout = type == at::kFloat ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
  const Tensor f_BCHW =
      quant_conv_((*encoder_)(image_B3XX.to(type).contiguous(layout), observe, runner)).to(at::kFloat).contiguous();
  if (observe) observe("quant_conv", f_BCHW);
  return f_BCHW;
}

Vqvae::Encoded Vqvae::encode(const Tensor& image_B3XX) const {
  at::NoGradGuard no_grad;
  Encoded encoded;
  encoded.f_BCHW = features(image_B3XX);
  encoded.tokens = quantizer_.encode(encoded.f_BCHW);
  return encoded;
}

Tensor Vqvae::tokens(const Tensor& image_B3XX) const {
  return at::cat(encode(image_B3XX).tokens, 1);
}

Tensor Vqvae::decode_raw(const Tensor& f_hat_BCHW, const Observer& observe, const BlockRunner& runner) const {
  const Tensor z_BCHW = post_quant_conv_(f_hat_BCHW);
  if (observe) observe("post_quant_conv", z_BCHW);
  BlockRunner behind;  // the decoder's blocks come after the encoder's
  if (runner) {
    behind = [&runner, encoder = static_cast<int64_t>(config_.channel_mult.size()) + 1](
                 int64_t index, const std::vector<Tensor>& inputs, const BlockBody& body) {
      return runner(encoder + index, inputs, body);
    };
  }
  return (*decoder_)(z_BCHW, observe, behind).to(at::kFloat);
}

Tensor Vqvae::decode(const Tensor& f_hat_BCHW) const { return decode_raw(f_hat_BCHW).clamp(-1, 1); }

Tensor Vqvae::decode_tokens(const Tensor& tokens_BL) const {
  at::NoGradGuard no_grad;
  return decode(quantizer_.cumulative(tokens_BL).back());
}

namespace {

constexpr double kLeastUse = 1e-12;  // below it a use counts as this in a logarithm

// How often each code was chosen, float32 [V]; weight_N undefined: 1.
Tensor count_hits(const Tensor& tokens_N, const Tensor& weight_N, int64_t vocabulary) {
  const Tensor weights = weight_N.defined() ? weight_N : at::ones(tokens_N.sizes(), tokens_N.options().dtype(at::kFloat));
  return at::zeros({vocabulary}, weights.options()).index_add_(0, tokens_N, weights);
}

}  // namespace

Vqvae::TrainOutput Vqvae::forward_train(const Tensor& image_B3XX, const TrainOptions& options) const {
  const Tensor f_BCHW = features(image_B3XX, {}, options.run_block);
  TrainOutput out;
  if (!options.quantise) {
    out.reconstruction_B3XX = decode_raw(f_BCHW, {}, options.run_block);
    out.vq_loss = at::zeros({}, f_BCHW.options());
    out.hits_SV = at::zeros_like(hits_SV_);
    return out;
  }
  const Tensor target_BCHW = f_BCHW.detach();
  Tensor rest_BCHW = target_BCHW, f_hat_BCHW;
  std::vector<Tensor> hits, losses;
  int64_t soft_rows = 0;
  for (int64_t k = 0; k < quantizer_.config().scales.count(); ++k) {
    const Tensor counted_B = options.scales_B.defined() ? options.scales_B > k : Tensor();
    Tensor weight_N;
    out.residuals.push_back(quantizer_.residual_codes(k, rest_BCHW));
    const Tensor tokens_N = quantizer_.nearest(out.residuals.back());
    out.tokens.push_back(tokens_N);
    if (counted_B.defined()) {
      weight_N = counted_B.to(at::kFloat).repeat_interleave(tokens_N.size(0) / counted_B.size(0));
      out.counted.push_back(weight_N);
    }
    hits.push_back(count_hits(tokens_N, weight_N, config_.vocabulary));
    if (options.usage_V.defined()) {
      const Tensor left_BCHW = k == 0 ? f_BCHW : f_BCHW - f_hat_BCHW.detach();
      const Tensor p_NV = quantizer_.soft_use(quantizer_.residual_codes(k, left_BCHW), options.entropy_temperature);
      const Tensor cost = (p_NV * (options.usage_V.clamp_min(kLeastUse).log() - p_NV.clamp_min(kLeastUse).log())).sum();
      out.entropy_loss = k == 0 ? cost : out.entropy_loss + cost;
      const Tensor use_V = p_NV.detach().sum(0);
      out.soft_use_V = k == 0 ? use_V : out.soft_use_V + use_V;
      soft_rows += p_NV.size(0);
    }
    Tensor h_BCHW = quantizer_.contribution(k, tokens_N.view({f_BCHW.size(0), -1}));
    if (counted_B.defined()) h_BCHW = h_BCHW * counted_B.to(at::kFloat).view({-1, 1, 1, 1});
    f_hat_BCHW = k == 0 ? h_BCHW : f_hat_BCHW + h_BCHW;
    rest_BCHW = rest_BCHW - h_BCHW.detach();
    losses.push_back(at::mse_loss(f_hat_BCHW.detach(), f_BCHW) * config_.beta +
                     at::mse_loss(f_hat_BCHW, target_BCHW));
  }
  if (soft_rows > 0) out.entropy_loss = out.entropy_loss / static_cast<double>(soft_rows);
  out.vq_loss = at::stack(losses).mean();
  out.hits_SV = at::stack(hits);
  out.reconstruction_B3XX = decode_raw(f_hat_BCHW.detach() - target_BCHW + f_BCHW, {}, options.run_block);
  return out;
}

}  // namespace varscale::tokenizer
