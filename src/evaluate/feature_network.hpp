// A network that turns images into feature vectors, which the distances between sets of images are taken on.
//
//   const Inception network = Inception::random(0);
//   Tensor features_BD = network.batch(images_u8_B3HW);
//   frechet_name(network);                                  // "FD-random"
//   spatial_name(network);                                  // "sFD-random"
//
// A distance means nothing without its network: whoever prints one prints frechet_name() and identity().
//
// Legend   B images, H, W pixels, D features, E spatial features, C classes.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace varscale::evaluate {

using at::Tensor;

// The network of the published FID: Inception v3 of the archive inception-2015-12-05.
inline constexpr const char* kFidNetwork = "inception-2015-12-05";

// What a network makes of some images.
struct BatchFeatures {
  Tensor features_BD;  // float32
  Tensor spatial_BE;   // float32, those of sFID; undefined where the network has none
};

// Which network features are of.
struct NetworkFacts {
  std::string name, identity;  // those of the network
  bool is_random = false;
};

class FeatureNetwork {
 public:
  virtual ~FeatureNetwork() = default;
  virtual std::string name() const = 0;      // "inception-2015-12-05", "random inception, seed 0"
  virtual bool is_random() const = 0;        // weights drawn from a seed, never trained
  virtual std::string identity() const = 0;  // SHA-256 over the weights, in hex
  virtual int64_t dimension() const = 0;     // D
  virtual int64_t spatial_dimension() const { return 0; }  // E; 0: none

  // uint8 [B,3,H,W] of any size on the CPU to float32 [B,D]. Resizing and scaling belong to the network.
  virtual Tensor batch(const Tensor& images_u8_B3HW) const = 0;
  // The same with the spatial features, in one pass.
  virtual BatchFeatures both(const Tensor& images_u8_B3HW) const { return {batch(images_u8_B3HW), {}}; }

  virtual int64_t classes() const { return 0; }  // C, that it was trained to tell apart; 0: none
  // [B,D] to [B,C], for the Inception score; of a network with classes alone.
  virtual Tensor logits(const Tensor& features_BD) const;

  NetworkFacts facts() const { return {name(), identity(), is_random()}; }
};

// "FID" for the published network alone, "FD-random" for every network with random weights, otherwise "FD-" and
// the network's name: none of these compares with another.
std::string frechet_name(const NetworkFacts& network);
inline std::string frechet_name(const FeatureNetwork& network) { return frechet_name(network.facts()); }
// Of the distance over spatial features: "s" before that name, so "sFID" for the published network alone.
std::string spatial_name(const NetworkFacts& network);
inline std::string spatial_name(const FeatureNetwork& network) { return spatial_name(network.facts()); }

}  // namespace varscale::evaluate
