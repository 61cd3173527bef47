// What the networks of this library share: where they compute, weights from a user's files, and the key of
// what is drawn for an image.
//
//   WeightMap weights = read_weights({"vgg16-397923af.pth", "lpips_heads.safetensors"});
//   Lpips lpips(weights, {.device = device, .compute = at::kBFloat16});
//   SampleKeys keys{.seed = 7, .step = step, .purpose = "augment.real", .samples = {96, 97, 98, 99}};
//
// Errors   UserError: files that cannot be read, a name that is in two of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace varscale::archives {
class StateFile;
}

namespace varscale::losses {

using at::Tensor;

struct NetworkOptions {
  at::Device device = at::kCPU;
  // dtype of convolutions and products: kFloat, kBFloat16 or kDouble. Norms, distances and results are
  // float32 at least, trained parameters are float32 always.
  at::ScalarType compute = at::kFloat;
};

// The weights of a public network under their own names: tensors on the CPU, and tensors that still lie in a user's
// files. Whoever takes one of those reads it; a classifier of 500 MB that nobody takes is not read.
struct WeightMap {
  std::string from;  // the files, for messages
  std::map<std::string, Tensor, std::less<>> tensors = {};
  std::map<std::string, std::shared_ptr<const archives::StateFile>, std::less<>> stored = {};  // by tensor
};

// All tensors of one or more files, each a .pth or a .safetensors (archives/state_file.hpp).
WeightMap read_weights(const std::vector<std::filesystem::path>& files);

// Names what is drawn for each image of a batch: a choice is a function of (seed, purpose, step, sample)
// alone, whichever rank holds the image. `samples` are global sample numbers, one a row.
struct SampleKeys {
  uint64_t seed = 0;
  int64_t step = 0;
  std::string purpose;
  std::vector<int64_t> samples;
};

}  // namespace varscale::losses
