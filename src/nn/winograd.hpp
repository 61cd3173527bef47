// 3x3 convolutions by Winograd's minimal filtering, F(4x4, 3x3) of arXiv 1509.09308: a quarter of the
// multiplications. For inference on CPUs with AVX-512, on maps so large that the transforms pay.
//
//   Tensor y_BOHW = winograd_pays(x_BIHW, weight_OI33) ? winograd_convolution(x_BIHW, weight_OI33, bias_O)
//                                                      : at::conv2d(x_BIHW, weight_OI33, bias_O, 1, 1);
//
// The interpolation points are 0, +-3/4, +-3/2 and infinity: with them the error is twice that of a direct sum in
// float32, with the usual 0, +-1, +-2 four times.
#pragma once

#include <ATen/core/Tensor.h>

namespace varscale::nn {

using at::Tensor;

// Whether winograd_convolution() takes these (float32 on the CPU, both channels-last, weight [O, I, 3, 3], O in whole
// vectors of 32, I of 16) and is likely to be faster than at::conv2d.
bool winograd_pays(const Tensor& x_BIHW, const Tensor& weight_OI33);

// Stride 1, padding 1; [B, O, H, W] channels-last. The same bits at any number of threads, and for an image whatever
// is beside it. No gradient.
Tensor winograd_convolution(const Tensor& x_BIHW, const Tensor& weight_OI33, const Tensor& bias_O);

}  // namespace varscale::nn
