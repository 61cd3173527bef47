#include "tokenizer/vqvae.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <cmath>

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

Vqvae::Vqvae(VqvaeConfig config, at::Device device)
    : config_(checked(std::move(config))), quantizer_(Quantizer(config_.quantizer()).to(device)) {
  encoder_.emplace(config_.autoencoder(), parameters_, device);
  decoder_.emplace(config_.autoencoder(), parameters_, device);
  const nn::NamedTensors& codes = quantizer_.parameters();  // codebook first, then the phis
  parameters_.insert(parameters_.end(), codes.begin() + 1, codes.end());
  parameters_.push_back(codes[0]);
  const Builder build("", config_.groups, parameters_, device);
  quant_conv_ = build.conv("quant_conv", config_.code_width, config_.code_width);
  post_quant_conv_ = build.conv("post_quant_conv", config_.code_width, config_.code_width);
  hits_SV_ = at::zeros({quantizer_.config().scales.count(), config_.vocabulary}, device);
}

Vqvae Vqvae::to(at::Device device) const {
  const at::NoGradGuard no_grad;
  Vqvae copy(config_, device);
  const nn::NamedTensors from = state(), to = copy.state();
  for (size_t i = 0; i < from.size(); ++i) to[i].tensor.copy_(from[i].tensor);
  return copy;
}

nn::NamedTensors Vqvae::state() const {
  nn::NamedTensors state = parameters_;
  state.push_back({"quantize.ema_vocab_hit_SV", hits_SV_});
  return state;
}

void Vqvae::initialise(Init init, uint64_t seed) {
  at::NoGradGuard no_grad;
  double fan_in = 1;  // of the convolution whose weight came last: its bias follows
  for (const auto& [name, tensor] : parameters_) {
    const base::RandomStream stream(seed, "tokenizer.init", name);
    auto fill_uniform = [&](double bound) {
      stream.fill_uniform(tensor.mutable_data_ptr<float>(), 0, tensor.numel());
      tensor.mul_(2 * bound).sub_(bound);
    };
    auto fill_normal = [&](double deviation) {
      stream.fill_normal(tensor.mutable_data_ptr<float>(), 0, tensor.numel(),
                         static_cast<float>(deviation));
    };
    const bool norm = name.find("norm") != std::string::npos;
    if (name == "quantize.embedding.weight") {
      if (init == Init::kPublic)
        fill_normal(1);
      else
        fill_uniform(1.0 / static_cast<double>(config_.vocabulary));
    } else if (norm) {
      tensor.fill_(name.ends_with(".weight") ? 1 : 0);
    } else if (tensor.dim() == 4) {
      fan_in = static_cast<double>(tensor[0].numel());
      const bool closes_block = name.ends_with("conv2.weight") || name.ends_with("proj_out.weight");
      if (init == Init::kPublic)
        fill_uniform(1 / std::sqrt(fan_in));
      else if (closes_block)
        tensor.zero_();
      else
        fill_normal(1 / std::sqrt(fan_in));
    } else {
      if (init == Init::kPublic)
        fill_uniform(1 / std::sqrt(fan_in));
      else
        tensor.zero_();
    }
  }
}

void Vqvae::encode_in(at::ScalarType type) {
  const auto layout = type == at::kFloat ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
  for (const auto& [name, tensor] : parameters_)
    if (name.starts_with("encoder.") || name.starts_with("quant_conv."))
      tensor.set_data(tensor.dim() == 4 ? tensor.to(type).contiguous(layout) : tensor.to(type));
}

Tensor Vqvae::features(const Tensor& image_B3XX, const Observer& observe) const {
  VARSCALE_CHECK(image_B3XX.dim() == 4 && image_B3XX.size(1) == 3 &&
                     image_B3XX.size(2) == config_.image_side &&
                     image_B3XX.size(3) == config_.image_side,
                 "image [{}], expected [B, 3, {}, {}]", fmt::join(image_B3XX.sizes(), ", "),
                 config_.image_side, config_.image_side);
  // Images decoded pixel by pixel come channels-last, in which float32 convolutions of few channels are slower on
  // CPUs; those in bf16 are faster.
  const at::ScalarType type = quant_conv_.weight_OIkk.scalar_type();
  const auto layout = type == at::kFloat ? at::MemoryFormat::Contiguous : at::MemoryFormat::ChannelsLast;
  const Tensor f_BCHW = quant_conv_((*encoder_)(image_B3XX.to(type).contiguous(layout), observe)).contiguous();
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

Tensor Vqvae::decode_raw(const Tensor& f_hat_BCHW, const Observer& observe) const {
  const Tensor z_BCHW = post_quant_conv_(f_hat_BCHW);
  if (observe) observe("post_quant_conv", z_BCHW);
  return (*decoder_)(z_BCHW, observe);
}

Tensor Vqvae::decode(const Tensor& f_hat_BCHW) const { return decode_raw(f_hat_BCHW).clamp(-1, 1); }

Tensor Vqvae::decode_tokens(const Tensor& tokens_BL) const {
  at::NoGradGuard no_grad;
  return decode(quantizer_.cumulative(tokens_BL).back());
}

Vqvae::TrainOutput Vqvae::forward_train(const Tensor& image_B3XX, bool quantise) const {
  const Tensor f_BCHW = features(image_B3XX);
  TrainOutput out;
  if (!quantise) {
    out.reconstruction_B3XX = decode_raw(f_BCHW);
    out.vq_loss = at::zeros({});
    out.hits_SV = at::zeros_like(hits_SV_);
    return out;
  }
  const Tensor target_BCHW = f_BCHW.detach();
  Tensor rest_BCHW = target_BCHW, f_hat_BCHW;
  std::vector<Tensor> hits, losses;
  for (int64_t k = 0; k < quantizer_.config().scales.count(); ++k) {
    out.residuals.push_back(quantizer_.residual_codes(k, rest_BCHW));
    out.tokens.push_back(quantizer_.nearest(out.residuals.back()));
    hits.push_back(out.tokens.back().bincount({}, config_.vocabulary).to(at::kFloat));
    const Tensor h_BCHW = quantizer_.contribution(k, out.tokens.back().view({f_BCHW.size(0), -1}));
    f_hat_BCHW = k == 0 ? h_BCHW : f_hat_BCHW + h_BCHW;
    rest_BCHW = rest_BCHW - h_BCHW.detach();
    losses.push_back(at::mse_loss(f_hat_BCHW.detach(), f_BCHW) * config_.beta +
                     at::mse_loss(f_hat_BCHW, target_BCHW));
  }
  out.vq_loss = at::stack(losses).mean();
  out.hits_SV = at::stack(hits);
  out.reconstruction_B3XX = decode_raw(f_hat_BCHW.detach() - target_BCHW + f_BCHW);
  return out;
}

}  // namespace varscale::tokenizer
