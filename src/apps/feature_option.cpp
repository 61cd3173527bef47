#include "feature_option.hpp"

#include <filesystem>

#include "base/error.hpp"

namespace varscale::apps {

using base::UserError;
using evaluate::Inception;

Inception feature_network(const FeatureOption& option) {
  if (option.features.empty())
    throw UserError("{}features is missing: give {}, or `random` for seeded weights that need no file", option.prefix,
                    kFeatureFile);
  if (option.features == "random") {
    if (!option.name.empty()) throw UserError("{}name {}: random weights have a name already", option.prefix, option.name);
    return Inception::random(option.seed.value_or(0));
  }
  if (option.seed) throw UserError("{0}seed {1}: has an effect with {0}features random alone", option.prefix, *option.seed);
  if (!std::filesystem::is_regular_file(option.features))
    throw UserError("{}features {}: no such file; expected {}, or `random`", option.prefix, option.features,
                    kFeatureFile);
  return Inception::load(option.features, option.name);
}

}  // namespace varscale::apps
