// The machine's own rate of matrix products, which a model's rate is a share of.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "apps/bench/place.hpp"

namespace varscale::bench {

struct ProductRate {
  double tflops = 0;   // of one rank with its threads, the best of the repeats
  bool onednn = false;  // on the CPU by oneDNN, else by the BLAS that ATen calls
};

// Of square products of this side; on the CPU the faster of the two libraries that are there. All ranks measure at the
// same time, as they also train at the same time; the result is this rank's.
ProductRate product_rate(const Place& place, at::ScalarType type, int64_t side, int64_t repeats);
// At the size from which larger products are no faster: 2048 on a CPU, 8192 on a GPU.
ProductRate product_rate(const Place& place, at::ScalarType type);

}  // namespace varscale::bench
