// Tensors as PNG files, and many images side by side in one.
//
//   VipsRuntime vips("var_sample");                                     // once, in main
//   write_png("samples.png", grid(to_u8_BHWC(images_BCHW), /*columns=*/8));
//
// Errors   UserError naming the path where it cannot be written. write_png is atomic.
// Legend   B images, C = 3 channels (RGB), H, W pixels. All tensors on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "data/vips_runtime.hpp"

namespace varscale::data {

// [-1, 1] float [B,3,H,W] to uint8 [B,H,W,3]: round(127.5 x + 127.5), half to even, clamped to [0, 255].
// The inverse of x = u8 / 255 * 2 - 1.
at::Tensor to_u8_BHWC(const at::Tensor& x_BCHW);

// uint8 [B,H,W,3] to float32 [B,3,H,W] in [-1, 1]: x = u8 / 255, then x + x - 1.
at::Tensor to_float_BCHW(const at::Tensor& images_u8_BHWC);

// Images row by row on white, `gap` pixels apart and around: uint8 [rows (H + gap) + gap, ..., 3].
at::Tensor grid(const at::Tensor& images_u8_BHWC, int64_t columns, int64_t gap = 2);

// Every pixel `factor` times in both directions: small images at a size that a page can show.
at::Tensor enlarge(const at::Tensor& image_u8_HWC, int64_t factor);

// uint8 [H,W,3]. Aside, fsync, rename; needs a VipsRuntime.
void write_png(const std::filesystem::path& path, const at::Tensor& image_u8_HWC);

}  // namespace varscale::data
