#include "evaluate/feature_network.hpp"

namespace varscale::evaluate {

std::string frechet_name(const FeatureNetwork& network) {
  if (network.is_random()) return "FD-random";
  return network.name() == kFidNetwork ? "FID" : "FD-" + network.name();
}

std::string spatial_name(const FeatureNetwork& network) { return "s" + frechet_name(network); }

}  // namespace varscale::evaluate
