#include "evaluate/feature_network.hpp"

#include "base/error.hpp"

namespace varscale::evaluate {

Tensor FeatureNetwork::logits(const Tensor&) const {
  VARSCALE_CHECK(false, "{} knows no classes", name());
  return {};
}

std::string frechet_name(const NetworkFacts& network) {
  if (network.is_random) return "FD-random";
  return network.name == kFidNetwork ? "FID" : "FD-" + network.name;
}

std::string spatial_name(const NetworkFacts& network) { return "s" + frechet_name(network); }

}  // namespace varscale::evaluate
