// How one image comes about: its token maps, and what has become of it after each.
//
//   Samples samples = sampler.sample({{.image = 0, .label = 207}});
//   Tensor pictures_u8_BXX3 = pyramid(tokenizer, samples.tokens_BL);      // B = 2 S
//   data::write_png("pyramid.png", data::grid(pictures_u8_BXX3, /*columns=*/S));
//
// Above    The maps, coarse to fine: a square a token, equal colours for equal codes. Colours are drawn from the code's
//          number and say nothing else.
// Below    The feature map of the maps so far, decoded. The last of them is the image.
// Legend   S maps, L tokens, X image side.
#pragma once

#include <ATen/core/Tensor.h>

#include "tokenizer/vqvae.hpp"

namespace varscale::generate {

using at::Tensor;

// tokens_1L int64; the result uint8 [2 S, X, X, 3] on the CPU. No gradient.
Tensor pyramid(const tokenizer::Vqvae& tokenizer, const Tensor& tokens_1L);

}  // namespace varscale::generate
