// The multi-scale VQVAE: images to K token maps and back.
//
//   Vqvae tokenizer = Vqvae::load("tok.safetensors");        // weights and configuration in one file
//   Vqvae::Encoded e = tokenizer.encode(image_B3XX);         // e.tokens: S tensors [B, side^2] int64
//   Tensor image = tokenizer.decode(tokenizer.quantizer().cumulative(at::cat(e.tokens, 1)).back());
//
// Legend   B batch, C code width, H = W last side, L tokens, S scales, V codes, X image side.
// Errors   UserError: an impossible configuration, a file that is no tokenizer or was changed.
// Source   arXiv 2404.02905 section 3.2; parameter names of the public code's state dict.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/config.hpp"
#include "nn/tensor.hpp"
#include "tokenizer/autoencoder.hpp"
#include "tokenizer/quantizer.hpp"

namespace varscale::tokenizer {

// The defaults are the released tokenizer (108.9 M parameters, 680 tokens an image of 256 px).
struct VqvaeConfig {
  int64_t image_side = 256;
  int64_t channels = 160;
  std::vector<int64_t> channel_mult = {1, 1, 2, 2, 4};
  int64_t blocks = 2;
  int64_t groups = 32;
  int64_t code_width = 32;
  int64_t vocabulary = 4096;
  std::vector<int64_t> scales = {1, 2, 3, 4, 5, 6, 8, 10, 13, 16};
  int64_t phis = 4;
  double phi_ratio = 0.5;
  double beta = 0.25;
  bool unit_norm = false;

  template <class Visitor>
  void visit(Visitor& v) {
    using base::Range;
    const auto positive = Range<int64_t>::at_least(1);
    v.field("image_side", image_side, "pixels; the last scale times 2^(levels - 1)", positive);
    v.field("channels", channels, "channels of the first level", positive);
    v.field("channel_mult", channel_mult, "factor on the channels, one per level", positive);
    v.field("blocks", blocks, "residual blocks a level; the decoder has one more", positive);
    v.field("groups", groups, "groups of the normalisation; must divide the channels", positive);
    v.field("code_width", code_width, "numbers per code", positive);
    v.field("vocabulary", vocabulary, "codes, shared by all scales",
            Range<int64_t>::between(2, 65536));
    v.field("scales", scales, "sides of the token maps, coarse to fine", positive);
    v.field("phis", phis, "smoothing convolutions shared by the scales", positive);
    v.field("phi_ratio", phi_ratio, "their share in what a map adds", Range<double>::between(0, 1));
    v.field("beta", beta, "weight of the commitment term", Range<double>::at_least(0));
    v.field("unit_norm", unit_norm, "nearest code by cosine instead of distance");
  }

  void check() const;  // UserError: sizes that do not fit together
  AutoencoderShape autoencoder() const {
    return {channels, channel_mult, blocks, groups, code_width};
  }
  QuantizerConfig quantizer() const;
};

enum class Init {
  // What the public code starts from: uniform convolutions and biases of bound 1 / sqrt(fan_in).
  kPublic,
  // Normal convolutions of deviation 1 / sqrt(fan_in), zero biases; the last convolution of every residual
  // and attention block zero, so that each block starts as the identity.
  kZeroResidual,
};
struct InitOptions {
  Init network = Init::kPublic;
  bool small_codes = false;  // uniform within 1 / V; otherwise normal of deviation 1
  uint64_t seed = 0;
};
// The initial values of the elements [first, first + out_P.numel()) of one parameter, in memory order: each a
// function of (seed, name, place). `fan_in` is that of the convolution the parameter belongs to. out_P float32,
// contiguous.
void fill_initial(const std::string& name, double fan_in, int64_t vocabulary, const InitOptions& options,
                  int64_t first, const Tensor& out_P);

class Vqvae {
 public:
  // Convolutions zero; call initialise() or load.
  explicit Vqvae(VqvaeConfig config, const LeafOptions& leaves = {});
  Vqvae to(at::Device device) const;  // a copy there
  const VqvaeConfig& config() const noexcept { return config_; }
  const Quantizer& quantizer() const noexcept { return quantizer_; }
  const Decoder& decoder() const noexcept { return *decoder_; }

  // Leaves in state-dict order; handles share storage with the model.
  const nn::NamedTensors& parameters() const noexcept { return parameters_; }
  // The same leaves by the part of the pass that needs them: first all that lies outside the blocks, the quantiser
  // included, then each block in the order of the pass.
  std::vector<nn::NamedTensors> units() const;
  // That of the convolution which each of parameters() belongs to; 1 for norms and codes.
  std::vector<double> fan_ins() const;
  // quantize.ema_vocab_hit_SV [S, V]: running mean of how often each code was chosen in a training batch.
  const Tensor& hits_SV() const noexcept { return hits_SV_; }
  nn::NamedTensors state() const;  // parameters and that buffer

  // Fills all parameters by fill_initial().
  void initialise(const InitOptions& options);
  void initialise(Init init, uint64_t seed) {
    initialise({.network = init, .small_codes = init != Init::kPublic, .seed = seed});
  }

  // image_B3XX float32 in [-1, 1] to the feature map before quantisation, [B, C, H, W] float32.
  Tensor features(const Tensor& image_B3XX, const Observer& observe = {}, const BlockRunner& runner = {}) const;

  // From now on features() computes in this type, and encode() searches the codes of its result in float32. For
  // encoding alone: the encoder's weights are rounded, here and where their storage is shared, and the fingerprint is
  // no longer that of the file.
  void encode_in(at::ScalarType type);
  // The same for decode_raw() and what calls it, with the decoder's weights, which are laid out channels-last: float32
  // too is faster then, and its sums round otherwise.
  void decode_in(at::ScalarType type);

  struct Encoded {
    Tensor f_BCHW;
    std::vector<Tensor> tokens;  // S tensors [B, side^2] int64
  };
  Encoded encode(const Tensor& image_B3XX) const;  // no gradient
  Tensor tokens(const Tensor& image_B3XX) const;   // the same as one [B, L] int64

  Tensor decode_raw(const Tensor& f_hat_BCHW, const Observer& observe = {},
                    const BlockRunner& runner = {}) const;  // [B, 3, X, X] float32
  Tensor decode(const Tensor& f_hat_BCHW) const;        // clamped to [-1, 1]
  Tensor decode_tokens(const Tensor& tokens_BL) const;  // clamped; no gradient

  struct TrainOptions {
    bool quantise = true;  // false: the decoder sees f itself and the quantiser's losses are zero
    // How many scales of each image count, [B] int64 in [1, S]: later maps add nothing and their tokens are not
    // counted. Undefined: all.
    Tensor scales_B = {};
    // Running mean of how much each code is used, [V]; undefined: no entropy_loss.
    Tensor usage_V = {};
    double entropy_temperature = 1;
    BlockRunner run_block = {};
  };
  // One training pass, with gradients. vq_loss is the mean over the scales of
  // beta |f - sg(f_hat_k)|^2 + |f_hat_k - sg(f)|^2 (means over elements); the reconstruction sees f_hat by
  // the straight-through estimator.
  struct TrainOutput {
    Tensor reconstruction_B3XX;     // not clamped, float32
    Tensor vq_loss;                 // scalar
    std::vector<Tensor> tokens;     // S tensors [B side^2] int64; empty without `quantise`
    std::vector<Tensor> residuals;  // what each was chosen for: S tensors [B side^2, C]
    std::vector<Tensor> counted;    // 1 or 0 for each: S tensors [B side^2] float32; empty where all count
    Tensor hits_SV;                 // how often each code was chosen, float32
    // With p the softmax of -distance^2 / temperature over the codes: mean over rows and scales of
    // sum_v p_v (log usage_v - log p_v), minus what a row tells of its code: least where each row is decided and all
    // rows together use the codes evenly (arXiv 2310.05737, equation 4). Evenness alone would have a worse
    // optimum: features so small that no row is decided. Scalar.
    Tensor entropy_loss;
    Tensor soft_use_V;  // sum of p over all rows, float32
  };
  TrainOutput forward_train(const Tensor& image_B3XX, const TrainOptions& options) const;

  // SHA-256 over configuration and parameters; names the token space in token files.
  std::string fingerprint() const;
  // `training`: what made these weights, as text for whoever compares; see stored_training().
  void save(const std::filesystem::path& path, const std::string& training = {}) const;
  // Also reads a file of public key names without our metadata, as the released architecture.
  static Vqvae load(const std::filesystem::path& path);

 private:
  VqvaeConfig config_;
  nn::NamedTensors parameters_;
  std::optional<Encoder> encoder_;
  std::optional<Decoder> decoder_;
  Quantizer quantizer_;
  Conv quant_conv_, post_quant_conv_;
  Tensor hits_SV_;
};

// The text given to save(), "" where there is none. Reads the head of the file only.
std::string stored_training(const std::filesystem::path& path);

}  // namespace varscale::tokenizer
