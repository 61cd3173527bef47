// A model and a tokenizer that are computed in a moment: depth 1, 85 tokens, images of 16 px.
#pragma once

#include "generate/sampler.hpp"
#include "models/var/model.hpp"
#include "tests/support/hash_weights.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::generate {

struct SmallPair {
  tokenizer::Vqvae tokenizer;
  models::Var model;

  explicit SmallPair(const std::vector<int64_t>& scales = {1, 2, 4, 8})
      : tokenizer(config(scales)), model(shape(scales)) {
    test::fill_hash_weights(tokenizer.parameters());
    test::fill_hash_weights(model.parameters());
  }
  Sampler sampler(SamplingOptions options) const { return {model, tokenizer.quantizer(), options}; }

  static tokenizer::VqvaeConfig config(const std::vector<int64_t>& scales) {
    tokenizer::VqvaeConfig config;
    config.image_side = 16;
    config.channels = 8;
    config.channel_mult = {1, 2};
    config.blocks = 1;
    config.groups = 4;
    config.code_width = 8;
    config.vocabulary = 64;
    config.scales = scales;
    config.phis = 2;
    return config;
  }
  static scaling::VarShape shape(const std::vector<int64_t>& scales) {
    return scaling::VarShape::from_depth(1, {64, 8, scaling::ScaleList(scales)}, /*classes=*/3);
  }
};

}  // namespace varscale::generate
