// KID, the kernel distance between two sets of features: an unbiased estimate, so it may be negative and compares
// across different numbers of images.
//
//   KernelDistance kid = kernel_distance(reference_ND, samples_MD, {.subsets = 100, .subset_size = 1000});
//
// Each subset is drawn from both sets without replacement, as a function of (seed, subset) and the sizes; the distance
// is the mean over the subsets of the squared maximum mean discrepancy with the kernel (x . y / D + 1)^3.
//
// Errors   UserError: a subset size below 2 or above one of the sets.
// Legend   N reference, M samples, D features.
// Source   Binkowski et al. 2018 (arXiv 1801.01401), section 4; 100 subsets of 1000 as torch-fidelity takes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace varscale::evaluate {

using at::Tensor;

struct KernelOptions {
  int64_t subsets = 100, subset_size = 1000;
  uint64_t seed = 0;
};

struct KernelDistance {
  double mean = 0, deviation = 0;  // over the subsets; the deviation divides by their number
};

KernelDistance kernel_distance(const Tensor& reference_ND, const Tensor& samples_MD, const KernelOptions& options = {});

// The unbiased squared discrepancy of two whole sets: kernel means over the pairs of distinct points of each set, less
// twice the mean over the pairs across.
double squared_discrepancy(const Tensor& x_ND, const Tensor& y_MD);

}  // namespace varscale::evaluate
