#include "tokenizer/quantizer.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstring>

#include "base/error.hpp"
#include "nn/functional.hpp"

namespace varscale::tokenizer {

using base::UserError;

std::vector<int64_t> phi_of_scale(int64_t scales, int64_t phis) {
  VARSCALE_CHECK(scales >= 1 && phis >= 1, "{} scales, {} phis", scales, phis);
  // Evenly spaced ticks in (0, 1); each scale takes the nearest one to its place k / (S - 1). The order of
  // the roundings matters: the exact ties (2 of 10 scales with 4 phis, say) are decided by the last bit.
  const double share = phis == 4 ? 1.0 / 3 / phis : 1.0 / 2 / phis;
  const double first = share, last = 1 - share;
  std::vector<double> ticks(phis);
  const double step = phis > 1 ? (last - first) / static_cast<double>(phis - 1) : 0;
  for (int64_t p = 0; p < phis; ++p) {
    const volatile double offset =
        static_cast<double>(p) * step;  // volatile: no fused multiply-add
    ticks[p] = offset + first;
  }
  if (phis > 1) ticks.back() = last;
  std::vector<int64_t> choice(scales);
  for (int64_t k = 0; k < scales; ++k) {
    const double place = scales > 1 ? static_cast<double>(k) / static_cast<double>(scales - 1) : 0;
    for (int64_t p = 1; p < phis; ++p) {
      if (std::abs(ticks[p] - place) < std::abs(ticks[choice[k]] - place)) choice[k] = p;
    }
  }
  return choice;
}

Quantizer::Quantizer(QuantizerConfig config, const LeafOptions& leaves) : config_(std::move(config)) {
  if (config_.scales.count() == 0) throw UserError("the quantiser needs at least one scale");
  if (config_.vocabulary < 2 || config_.code_width < 1) {
    throw UserError(
        "the quantiser has {} codes of width {}; at least 2 codes of width 1 are needed",
        config_.vocabulary, config_.code_width);
  }
  if (config_.phis < 1 || config_.phis > config_.scales.count()) {
    throw UserError("phis is {}, expected 1 to the number of scales, {}", config_.phis,
                    config_.scales.count());
  }
  const int64_t width = config_.code_width;
  auto leaf = [&](const std::vector<int64_t>& sizes) { return make_leaf(sizes, at::kFloat, leaves); };
  parameters_.push_back({"quantize.embedding.weight", leaf({config_.vocabulary, width})});
  for (int64_t p = 0; p < config_.phis; ++p) {
    const std::string name = fmt::format("quantize.quant_resi.qresi_ls.{}", p);
    parameters_.push_back({name + ".weight", leaf({width, width, 3, 3})});
    parameters_.push_back({name + ".bias", leaf({width})});
  }
  phi_of_scale_ = phi_of_scale(config_.scales.count(), config_.phis);
}

Quantizer Quantizer::from_weights(const records::QuantizerWeights& weights,
                                  scaling::ScaleList scales) {
  QuantizerConfig config;
  config.vocabulary = weights.vocabulary;
  config.code_width = weights.code_width;
  config.scales = std::move(scales);
  config.phis = weights.phis;
  config.phi_ratio = weights.phi_ratio;
  Quantizer quantizer(std::move(config));
  auto fill = [](const Tensor& target, const std::vector<float>& values, int64_t first) {
    VARSCALE_CHECK(first + target.numel() <= static_cast<int64_t>(values.size()),
                   "the stored quantiser has {} values where {} are needed", values.size(),
                   first + target.numel());
    std::memcpy(target.mutable_data_ptr<float>(), values.data() + first, target.nbytes());
  };
  const auto& parameters = quantizer.parameters_;
  fill(parameters[0].tensor, weights.embedding, 0);
  for (int64_t p = 0; p < weights.phis; ++p) {
    const Tensor& weight = parameters[1 + 2 * p].tensor;
    const Tensor& bias = parameters[2 + 2 * p].tensor;
    fill(weight, weights.phi_weight, p * weight.numel());
    fill(bias, weights.phi_bias, p * bias.numel());
  }
  return quantizer;
}

Quantizer Quantizer::to(at::Device device) const {
  Quantizer moved = *this;
  for (nn::NamedTensor& parameter : moved.parameters_)
    parameter.tensor = parameter.tensor.detach().to(device);
  return moved;
}

records::QuantizerWeights Quantizer::weights() const {
  records::QuantizerWeights weights;
  weights.vocabulary = config_.vocabulary;
  weights.code_width = config_.code_width;
  weights.phis = config_.phis;
  weights.phi_ratio = config_.phi_ratio;
  auto append = [](std::vector<float>& values, const Tensor& tensor) {
    const Tensor stored = tensor.detach().to(at::kCPU).contiguous();
    values.insert(values.end(), stored.const_data_ptr<float>(),
                  stored.const_data_ptr<float>() + stored.numel());
  };
  append(weights.embedding, parameters_[0].tensor);
  for (int64_t p = 0; p < config_.phis; ++p) {
    append(weights.phi_weight, parameters_[1 + 2 * p].tensor);
    append(weights.phi_bias, parameters_[2 + 2 * p].tensor);
  }
  return weights;
}

Tensor Quantizer::apply_phi(int64_t k, const Tensor& h_BCHW) const {
  const int64_t p = phi_of_scale_.at(k);
  const double ratio = std::abs(config_.phi_ratio);
  const Tensor conv_BCHW =
      at::conv2d(h_BCHW, parameters_[1 + 2 * p].tensor, parameters_[2 + 2 * p].tensor, 1, 1);
  return h_BCHW.mul(1 - ratio) + conv_BCHW * ratio;
}

Tensor Quantizer::residual_codes(int64_t k, const Tensor& rest_BCHW) const {
  const int64_t side = config_.scales.side(k);
  const Tensor small_BChw =
      k + 1 < config_.scales.count() ? at::adaptive_avg_pool2d(rest_BCHW, {side, side}) : rest_BCHW;
  return small_BChw.permute({0, 2, 3, 1}).reshape({-1, config_.code_width});
}

Tensor Quantizer::nearest(const Tensor& z_NC) const {
  const Tensor e_VC = embedding_VC().detach();
  if (config_.unit_norm) return at::argmax(at::mm(nn::unit_norm(z_NC), nn::unit_norm(e_VC).t()), 1);
  // |z - e|^2 without |z|^2, which is the same for all codes.
  return at::argmin(at::addmm(e_VC.square().sum(1), z_NC, e_VC.t(), 1, -2), 1);
}

Tensor Quantizer::soft_use(const Tensor& z_NC, double temperature) const {
  const Tensor z = config_.unit_norm ? nn::unit_norm(z_NC) : z_NC;
  const Tensor e_VC = config_.unit_norm ? nn::unit_norm(embedding_VC()) : embedding_VC();
  // |z|^2 is the same for all codes.
  return at::softmax(at::addmm(e_VC.square().sum(1), z, e_VC.t(), 1, -2) * (-1 / temperature), 1);
}

std::vector<Tensor> Quantizer::encode(const Tensor& f_BCHW) const {
  at::NoGradGuard no_grad;
  const int64_t last = config_.scales.last_side();
  VARSCALE_CHECK(f_BCHW.dim() == 4 && f_BCHW.size(1) == config_.code_width &&
                     f_BCHW.size(2) == last && f_BCHW.size(3) == last,
                 "feature map [{}], expected [B, {}, {}, {}]", fmt::join(f_BCHW.sizes(), ", "),
                 config_.code_width, last, last);
  Tensor rest_BCHW = f_BCHW.detach().to(at::kFloat).clone();
  std::vector<Tensor> tokens;
  for (int64_t k = 0; k < config_.scales.count(); ++k) {
    tokens.push_back(nearest(residual_codes(k, rest_BCHW)).view({f_BCHW.size(0), -1}));
    if (k + 1 < config_.scales.count()) rest_BCHW.sub_(contribution(k, tokens.back()));
  }
  return tokens;
}

Tensor Quantizer::contribution(int64_t k, const Tensor& tokens_or_codes) const {
  const bool tokens = tokens_or_codes.scalar_type() == at::kLong;
  const int64_t side = config_.scales.side(k), last = config_.scales.last_side();
  const int64_t batch = tokens_or_codes.size(0);
  VARSCALE_CHECK(
      tokens_or_codes.dim() == (tokens ? 2 : 3) && tokens_or_codes.size(1) == side * side,
      "map of scale {} has shape [{}], expected {} places", k,
      fmt::join(tokens_or_codes.sizes(), ", "), side * side);
  const Tensor h_BNC = tokens ? at::embedding(embedding_VC(), tokens_or_codes) : tokens_or_codes;
  Tensor h_BChw = h_BNC.transpose(1, 2).reshape({batch, config_.code_width, side, side});
  if (k + 1 < config_.scales.count()) {
    h_BChw = at::upsample_bicubic2d(h_BChw, {last, last}, /*align_corners=*/false);
  }
  // As it is, it may be channels-last, and so would be all that follows, the decoder included.
  return apply_phi(k, h_BChw.contiguous());
}

std::vector<Tensor> Quantizer::cumulative(const Tensor& tokens_BL) const {
  const scaling::ScaleList& scales = config_.scales;
  VARSCALE_CHECK(tokens_BL.dim() == 2 && tokens_BL.size(1) == scales.tokens(),
                 "tokens [{}], expected {} an image", fmt::join(tokens_BL.sizes(), ", "),
                 scales.tokens());
  std::vector<Tensor> f_hat;
  for (int64_t k = 0; k < scales.count(); ++k) {
    const Tensor h_BCHW = contribution(k, tokens_BL.slice(1, scales.begin(k), scales.end(k)));
    f_hat.push_back(k == 0 ? h_BCHW : f_hat.back() + h_BCHW);
  }
  return f_hat;
}

Tensor Quantizer::next_input(int64_t k, const Tensor& f_hat_BCHW) const {
  const int64_t side = config_.scales.side(k);
  return at::adaptive_avg_pool2d(f_hat_BCHW, {side, side}).flatten(2).transpose(1, 2);
}

Tensor Quantizer::teacher_input(const Tensor& tokens_BL) const {
  at::NoGradGuard no_grad;
  const scaling::ScaleList& scales = config_.scales;
  VARSCALE_CHECK(tokens_BL.dim() == 2 && tokens_BL.size(1) == scales.tokens(),
                 "tokens [{}], expected {} an image", fmt::join(tokens_BL.sizes(), ", "),
                 scales.tokens());
  const int64_t first = scales.tokens_at(0);
  Tensor x_BLC = at::empty({tokens_BL.size(0), scales.tokens() - first, config_.code_width},
                           embedding_VC().options().requires_grad(false));
  Tensor f_hat_BCHW;
  for (int64_t k = 0; k + 1 < scales.count(); ++k) {
    const Tensor h_BCHW = contribution(k, tokens_BL.slice(1, scales.begin(k), scales.end(k)));
    f_hat_BCHW = k == 0 ? h_BCHW : f_hat_BCHW.add_(h_BCHW);
    x_BLC.slice(1, scales.begin(k + 1) - first, scales.end(k + 1) - first)
        .copy_(next_input(k + 1, f_hat_BCHW));
  }
  return x_BLC;
}

}  // namespace varscale::tokenizer
