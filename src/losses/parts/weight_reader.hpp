// Takes the weights of one frozen network out of a WeightMap, or makes them, and knows what was taken.
//
//   WeightReader weights(map, "VGG16");
//   Tensor w = weights.take("features.0.weight", {64, 3, 3, 3});
//   weights.refuse_others("features.");
//
// Errors   UserError with the map's files and the key.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "losses/network.hpp"
#include "nn/tensor.hpp"

namespace varscale::losses {

// What norms, distances and results are computed in.
inline at::ScalarType wide(at::ScalarType compute) {
  return compute == at::kDouble ? at::kDouble : at::kFloat;
}

class WeightReader {
 public:
  // `network` names what the weights are for, in messages.
  WeightReader(const WeightMap& map, std::string network) : map_(&map), network_(std::move(network)) {}

  bool has(const std::string& name) const;
  // A float32 copy on the CPU; a stored one is read here.
  Tensor take(const std::string& name, const std::vector<int64_t>& shape);
  // The two forms of one weight: `name` with its shape, or `other` with the same number of elements.
  Tensor take_either(const std::string& name, const std::vector<int64_t>& shape, const std::string& other,
                     const std::vector<int64_t>& other_shape);
  // A tensor below the prefix that nobody took belongs to another network.
  void refuse_others(const std::string& prefix) const;
  // SHA-256 over the names, shapes and values taken, in order.
  std::string fingerprint() const { return nn::fingerprint(taken_); }

 private:
  const WeightMap* map_;
  std::string network_;
  nn::NamedTensors taken_;
};

}  // namespace varscale::losses
