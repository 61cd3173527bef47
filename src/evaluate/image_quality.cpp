#include "evaluate/image_quality.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include "base/error.hpp"

namespace varscale::evaluate {
namespace {

constexpr int64_t kWindow = 11;
constexpr double kDeviation = 1.5;

void check_alike(const Tensor& a_BCHW, const Tensor& b_BCHW) {
  if (a_BCHW.sizes() != b_BCHW.sizes() || a_BCHW.dim() != 4)
    throw base::UserError("images of shape [{}] and [{}] are compared; expected one shape [B,C,H,W]",
                          fmt::join(a_BCHW.sizes(), ", "), fmt::join(b_BCHW.sizes(), ", "));
}

// Weighted mean around every place whose window lies inside: [X,1,H,W] to [X,1,H-10,W-10].
Tensor window_mean(const Tensor& x_X1HW) {
  const Tensor place = at::arange(kWindow, at::kDouble) - (kWindow - 1) / 2;
  Tensor weight = at::exp(-place.square() / (2 * kDeviation * kDeviation));
  weight = weight / weight.sum();
  return at::conv2d(at::conv2d(x_X1HW, weight.view({1, 1, 1, -1})), weight.view({1, 1, -1, 1}));
}

}  // namespace

Tensor psnr(const Tensor& a_BCHW, const Tensor& b_BCHW, PixelRange range) {
  check_alike(a_BCHW, b_BCHW);
  const double peak = range.white - range.black;
  const Tensor mse_B = (a_BCHW.to(at::kDouble) - b_BCHW.to(at::kDouble)).square().mean({1, 2, 3});
  return at::log10(peak * peak / mse_B) * 10;
}

Tensor ssim(const Tensor& a_BCHW, const Tensor& b_BCHW, PixelRange range) {
  check_alike(a_BCHW, b_BCHW);
  const int64_t height = a_BCHW.size(2), width = a_BCHW.size(3);
  if (height < kWindow || width < kWindow)
    throw base::UserError("SSIM needs images of at least {} x {} pixels, these have {} x {}", kWindow, kWindow, width,
                          height);
  const Tensor a = a_BCHW.to(at::kDouble).reshape({-1, 1, height, width}) - range.black;
  const Tensor b = b_BCHW.to(at::kDouble).reshape({-1, 1, height, width}) - range.black;
  const Tensor mean_a = window_mean(a), mean_b = window_mean(b);
  const Tensor var_a = window_mean(a * a) - mean_a * mean_a, var_b = window_mean(b * b) - mean_b * mean_b;
  const Tensor covariance = window_mean(a * b) - mean_a * mean_b;
  const double peak = range.white - range.black;
  const double c1 = 0.01 * 0.01 * peak * peak, c2 = 0.03 * 0.03 * peak * peak;
  const Tensor index = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) /
                       ((mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2));
  return index.view({a_BCHW.size(0), -1}).mean(1);
}

}  // namespace varscale::evaluate
