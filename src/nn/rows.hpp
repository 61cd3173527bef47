// Row-wise CPU kernels that ATen has only as chains of passes over memory. Each runs in parallel over
// rows and gives the same bits at any number of threads; the compiler vectorises them for AVX-512, AVX2
// and plain x86-64 and the processor chooses when the program starts.
//
// Contiguous rows of float32 or bf16; arithmetic is float32. Errors: none, callers have checked.
#pragma once

#include <ATen/core/Tensor.h>

namespace varscale::nn {

using at::Tensor;

// GELU in its tanh form (arXiv 1606.08415) of contiguous x, and the gradient of x from that of the result; both
// in the dtype of x.
Tensor gelu_rows(const Tensor& x);
Tensor gelu_rows_backward(const Tensor& grad, const Tensor& x);

// The sum of the rows of contiguous x [N, M], float32 [M].
Tensor column_sums(const Tensor& x_NM);

// SiLU of the group normalisation (arXiv 1803.08494) of x [B, C, H, W] channels-last, whose pixels are the rows, in
// the dtype of x; weight_C and bias_C float32. No gradient.
Tensor group_norm_silu(const Tensor& x_BCHW, int64_t groups, const Tensor& weight_C, const Tensor& bias_C, double eps);

}  // namespace varscale::nn
