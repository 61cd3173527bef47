// --features, --name and --seed: the network that Fréchet distances are taken through.
//
//   const evaluate::Inception network = feature_network({.features = "random", .seed = 7});
//
// Errors   UserError: no such file or not that network, a name for random weights, a seed for a file.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "evaluate/inception.hpp"

namespace varscale::apps {

// Which file that is, for help and messages.
inline constexpr const char* kFeatureFile =
    "the FID Inception v3 (pytorch-fid's pt_inception-2015-12-05-6726825d, as a .pth or .safetensors file under its own "
    "tensor names)";

struct FeatureOption {
  std::string features, name;  // a file, or "random"
  std::optional<uint64_t> seed = {};
  std::string prefix = "--";  // what sentences say before features, name and seed
};

evaluate::Inception feature_network(const FeatureOption& option);

}  // namespace varscale::apps
