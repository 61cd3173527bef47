// Where a tokenizer's images come from, for training and judging.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace varscale::tokenizer {

struct ImageSource {
  // Which images, and which random crop of each.
  struct Batch {
    std::vector<int64_t> numbers;  // below count
    std::vector<int64_t> crops;    // one an image; 0, 1, ... in the passes over the images
  };
  int64_t count = 0;
  std::string fingerprint;  // of the images, recorded with the result
  // float32 [B, 3, X, X] in [-1, 1] on the CPU.
  std::function<at::Tensor(const Batch&)> load;
  // This batch will be loaded next; may be empty.
  std::function<void(const Batch&)> prepare = {};
};

}  // namespace varscale::tokenizer
