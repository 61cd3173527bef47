// Zero-shot tasks: which tokens of a given image stay, so that the model makes the rest.
//
//   const Picture picture = Picture::read("cat.png", tokenizer.config().image_side);
//   const Tensor marked_XX = picture.marked_by(Box{64, 64, 192, 192});
//   const Given given{.tokens_L = tokenizer.tokens(picture.x_13XX())[0],
//                     .keep_L = keep_outside(scales, marked_XX)};           // in-painting, editing
//   sampler.sample({{.image = 0, .label = null_label, .given = given}});
//
// Needs a data::VipsRuntime to read files.
//
// Errors   UserError in one sentence: an image or a mask that cannot be read, a mask of another size, a box outside the
//          image, nothing marked.
// Legend   X image side, L tokens.
// Source   arXiv 2404.02905 section 6; FoundationVision/VAR demo_zero_shot_edit.ipynb.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>

#include "data/image_file.hpp"
#include "scaling/shape.hpp"
#include "tokenizer/vqvae.hpp"

namespace varscale::generate {

using at::Tensor;

// Pixels of the image as it was given: columns [x0, x1), rows [y0, y1).
struct Box {
  int64_t x0 = 0, y0 = 0, x1 = 0, y1 = 0;
};
Box parse_box(const std::string& words);  // "x0,y0,x1,y1"

// An image at the tokenizer's size: the short side brought to it (Lanczos), then a central square.
class Picture {
 public:
  static Picture read(const std::filesystem::path& path, int64_t side);

  const Tensor& pixels_u8_XX3() const noexcept { return pixels_u8_XX3_; }
  Tensor x_13XX() const;  // float32 in [-1, 1]

  // What a box or a mask of the given image's size marks, brought to X x X in the same way: bool [X, X]. Of a mask the
  // pixels whose mean of red, green and blue is at least 128.
  Tensor marked_by(const Box& box) const;
  Tensor marked_by(const std::filesystem::path& mask) const;

 private:
  Tensor marked(const data::RgbImage& mask, const std::string& where) const;
  std::filesystem::path path_;
  int64_t side_ = 0, width_ = 0, height_ = 0;  // before
  Tensor pixels_u8_XX3_;
};

// The places that stay where the model is to fill in what is painted, bool [L]. A cell of the last map is painted if
// at least half of its pixels are. That map is brought to each other one by bilinear interpolation, and a place stays
// where more than half of what comes there stays. Maps of at most three places stay as a whole: the image's overall
// tone is given. painted_XX bool, X a multiple of the last side.
Tensor keep_outside(const scaling::ScaleList& scales, const Tensor& painted_XX);

// The places of the first maps, bool [L]: super-resolution. maps in [0, S].
Tensor keep_first(const scaling::ScaleList& scales, int64_t maps);

// What a viewer can see of what is given, uint8 [1, X, X, 3]: the picture of the maps up to the last one of which a
// place stays, with a checkerboard over the places of that map that do not. tokens_1L int64, keep_L bool, of which at
// least one place is true.
Tensor shown_as_given(const tokenizer::Vqvae& tokenizer, const Tensor& tokens_1L, const Tensor& keep_L);

}  // namespace varscale::generate
