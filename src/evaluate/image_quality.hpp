// How close an image is to another of the same size: PSNR and SSIM.
//
//   Tensor psnr_B = psnr(reconstruction_BCHW, image_BCHW, kSigned);   // float images in [-1, 1]
//   Tensor ssim_B = ssim(a_u8_BCHW, b_u8_BCHW, kBytes);               // the same number for the same images as uint8
//
// PSNR     10 log10(peak^2 / mean squared error) in dB, peak = white - black; infinite for equal images.
// SSIM     Per channel, black moved to 0 (no grey conversion, no downscaling): 11 x 11 Gaussian window of deviation
//          1.5, weighted (biased) variances, K1 0.01, K2 0.03, the mean over the windows that lie wholly
//          inside the image, then over the channels. At most 1.
// Both are computed in float64, one number an image; average them over images afterwards.
// Errors   UserError: shapes that differ, images below 11 x 11 for SSIM.
// Legend   B images, C channels, H, W pixels.
// Source   Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity", eq. 13.
#pragma once

#include <ATen/core/Tensor.h>

namespace varscale::evaluate {

using at::Tensor;

// The values of black and white in the images' unit.
struct PixelRange {
  double black, white;
};
inline constexpr PixelRange kSigned{-1, 1}, kBytes{0, 255};

// float64 [B].
Tensor psnr(const Tensor& a_BCHW, const Tensor& b_BCHW, PixelRange range);
Tensor ssim(const Tensor& a_BCHW, const Tensor& b_BCHW, PixelRange range);

}  // namespace varscale::evaluate
