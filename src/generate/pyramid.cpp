#include "generate/pyramid.hpp"

#include <ATen/ATen.h>

#include <vector>

#include "base/error.hpp"
#include "base/random.hpp"
#include "data/png.hpp"

namespace varscale::generate {
namespace {

// uint8 [V, 3], not too dark.
Tensor colours_of_codes(int64_t vocabulary) {
  const base::RandomStream stream(0, "code_colour");
  const Tensor colours_V3 = at::empty({vocabulary, 3}, at::kByte);
  auto* out = colours_V3.mutable_data_ptr<uint8_t>();
  for (int64_t i = 0; i < 3 * vocabulary; ++i)
    out[i] = static_cast<uint8_t>(64 + 191 * stream.uniform(static_cast<uint64_t>(i)));
  return colours_V3;
}

// The map as squares: [X, X, 3].
Tensor drawn(const Tensor& tokens_N, int64_t cells, int64_t pixels, const Tensor& colours_V3) {
  const Tensor cell_X = at::arange(pixels, at::kLong).mul(cells).div(pixels, "floor");
  const Tensor tokens_XX = tokens_N.view({cells, cells}).index_select(0, cell_X).index_select(1, cell_X);
  return colours_V3.index_select(0, tokens_XX.flatten()).view({pixels, pixels, 3});
}

}  // namespace

Tensor pyramid(const tokenizer::Vqvae& tokenizer, const Tensor& tokens_1L) {
  at::NoGradGuard no_grad;
  const tokenizer::Quantizer& quantizer = tokenizer.quantizer();
  const scaling::ScaleList& scales = quantizer.config().scales;
  VARSCALE_CHECK(tokens_1L.dim() == 2 && tokens_1L.size(0) == 1 && tokens_1L.size(1) == scales.tokens(),
                 "a pyramid of other than {} tokens of one image", scales.tokens());
  const Tensor colours_V3 = colours_of_codes(quantizer.config().vocabulary);
  const int64_t pixels = tokenizer.config().image_side;
  std::vector<Tensor> pictures;
  for (int64_t k = 0; k < scales.count(); ++k) {
    const int64_t cells = scales.side(k);
    pictures.push_back(drawn(tokens_1L[0].slice(0, scales.begin(k), scales.end(k)), cells, pixels, colours_V3));
  }
  for (const Tensor& f_hat_1EHW : quantizer.cumulative(tokens_1L))
    pictures.push_back(data::to_u8_BHWC(tokenizer.decode(f_hat_1EHW))[0]);
  return at::stack(pictures);
}

}  // namespace varscale::generate
