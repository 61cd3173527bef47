// Images by next-scale prediction: one map after another, each from all maps before it.
//
//   const Sampler sampler(model, tokenizer.quantizer(), {.cfg = 1.5, .top_k = 900, .top_p = 0.96});
//   Samples samples = sampler.sample({{.image = 0, .label = 207}, {.image = 1, .label = 207}});
//   Tensor images_B3XX = decode_each(tokenizer, samples.f_hat_BEHW);
//
// An image is a function of (weights, options, image index, label), whatever else is asked for in
// the same call: random numbers are keyed by the index, and the arithmetic always runs on groups of
// options.group slots. Image i sits in slot i mod group of one of them (packed()); slots that nobody asked
// for are computed and dropped. Bit for bit that holds in float32, for one group size, number of
// threads and type of machine; a matrix product at another batch may round differently and flip a
// token.
//
// A request may bring tokens that its image has already. Where they are given they stand in for the model's, map by
// map, and the model sees them in all maps that follow: in-painting, editing and super-resolution without training
// (generate/edit.hpp).
//
// Memory   A key-value cache for one group, allocated by sample() and reused by its groups.
// Errors   UserError: an option or a label out of range, an image asked for twice.
// Legend   B requested images, G slots, L tokens, N tokens of one map, E code width, H = W last
//          side, V codes, X image side.
// Source   arXiv 2404.02905 section 3; FoundationVision/VAR models/var.py for the numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "generate/choose.hpp"
#include "models/var/model.hpp"
#include "tokenizer/quantizer.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::generate {

struct SamplingOptions {
  double cfg = 1.5;   // end of the public guidance ramp (guidance_at); 0: no unconditional half
  int64_t top_k = 0;  // 0: off
  double top_p = 0;   // 0: off
  double temperature = 1;  // divides the guided logits, before the filters
  uint64_t seed = 0;
  bool smooth = false;  // mixtures of codes in place of single ones (smooth_weights); for pictures alone
  int64_t group = 8;                    // slots computed together; part of an image's identity
  at::ScalarType compute = at::kFloat;  // dtype of matrix products, attention and cache

  void check(int64_t vocabulary) const;  // UserError
};

// What an image has already: its tokens, and where they stay. Both on the CPU.
struct Given {
  Tensor tokens_L;  // int64
  Tensor keep_L;    // bool; elsewhere the model fills in
};

struct Request {
  int64_t image = 0;  // index, at least 0; with the seed it names the random numbers
  int64_t label = 0;  // in [0, classes]; classes is the null class
  Given given = {};   // undefined tensors: nothing
};

// `images`, indices of at least 0, in as few groups as their slots allow: for each group the positions in `images`, in
// ascending order of slots; image i has slot i mod group. UserError: an image that is negative or there twice.
std::vector<std::vector<int64_t>> packed(const std::vector<int64_t>& images, int64_t group);

// In the order of the requests. Each f_hat has the bits that the quantiser gives for its tokens alone, unless
// options.smooth; then the tokens are those of the largest weights.
struct Samples {
  Tensor tokens_BL;   // int64
  Tensor f_hat_BEHW;  // float32
};

// What one group computed for map k, all G slots: guided logits before temperature and filters, and
// the input of the next map (undefined after the last).
struct MapView {
  int64_t k = 0;
  Tensor logits_GNV, next_GNE;
};
using MapObserver = std::function<void(const MapView&)>;

class Sampler {
 public:
  // The model and the quantiser must outlive the sampler and agree on the token space.
  Sampler(const models::Var& model, const tokenizer::Quantizer& quantizer, SamplingOptions options);
  const SamplingOptions& options() const noexcept { return options_; }

  // No gradient. `after_group` is told how many of the requests each finished group held.
  Samples sample(const std::vector<Request>& requests, const MapObserver& observe = {},
                 const std::function<void(int64_t)>& after_group = {}) const;

 private:
  struct Group {
    Tensor tokens_GL, f_hat_GEHW;
  };
  // requests_G: one a slot, those that nobody asked for with the null class.
  Group run_group(const std::vector<Request>& requests_G, models::KvCache& cache, const MapObserver& observe) const;
  // What the tokens of map k, or the weights of codes, and the given tokens add to f_hat: [1, E, H, W]. Puts the
  // given tokens among tokens_N.
  Tensor contribution(int64_t k, const Given& given, const Tensor& weights_NV, const Tensor& tokens_N) const;

  const models::Var& model_;
  const tokenizer::Quantizer& quantizer_;
  SamplingOptions options_;
};

// [B, 3, X, X] in [-1, 1], clamped. Images are decoded one at a time, so that pixels do not depend
// on the batch either, and memory stays that of one image. No gradient.
Tensor decode_each(const tokenizer::Vqvae& tokenizer, const Tensor& f_hat_BEHW);

}  // namespace varscale::generate
