// What the published networks of convolutions and batch norms have in common on their way from a file into memory.
//
//   const StateOnDisk file = read_state("resnet50.pth", state);       // tensors that are not the network's stay unread
//   check_state(file.weights, state, file.where, kWords);
//   const FoldedConvolution unit = fold_norm(conv, gamma, beta, mean, variance, 1e-5);
//
// Errors   UserError with the file and the tensor: missing, of another shape, of whole numbers, not finite, or not the
//          network's; what archives/state_file.hpp refuses.
// Legend   O, I channels out and in, k sides of the kernel.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "nn/tensor.hpp"

namespace varscale::evaluate {

using at::Tensor;

using NamedWeights = std::map<std::string, Tensor, std::less<>>;

// How sentences call the network: "ResNet-50", "a ResNet-50 under torchvision's names".
struct NetworkWords {
  const char* name;
  const char* expected;
};

// `num_batches_tracked` of a batch norm, which may be missing and has no effect.
bool is_counter(std::string_view name);

struct StateOnDisk {
  NamedWeights weights;  // undefined: a name that `state` does not have
  std::string where;     // the file in sentences
};
StateOnDisk read_state(const std::filesystem::path& path, const nn::NamedTensors& state);

// All tensors of `state`, of its shapes, and no others.
void check_state(const NamedWeights& weights, const nn::NamedTensors& state, const std::string& where,
                 const NetworkWords& words);
// One of them as contiguous float32; it must hold floating-point numbers, and all of them finite.
Tensor finite_weight(const NamedWeights& weights, const std::string& name, const std::string& where);

struct FoldedConvolution {
  Tensor weight_OIkk, bias_O;  // float32
};
// A convolution without bias and the norm behind it, gamma (x - mean) / sqrt(variance + eps) + beta, in float64.
FoldedConvolution fold_norm(const Tensor& weight_OIkk, const Tensor& gamma_O, const Tensor& beta_O,
                            const Tensor& mean_O, const Tensor& variance_O, double eps);

}  // namespace varscale::evaluate
