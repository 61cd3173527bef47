#include "feature_option.hpp"

#include <filesystem>

#include "base/error.hpp"

namespace varscale::apps {

using base::UserError;
using evaluate::Inception;

Inception feature_network(const FeatureOption& option) {
  if (option.features.empty())
    throw UserError("--features is missing: give {}, or `random` for seeded weights that need no file", kFeatureFile);
  if (option.features == "random") {
    if (!option.name.empty()) throw UserError("--name {}: random weights have a name already", option.name);
    return Inception::random(option.seed.value_or(0));
  }
  if (option.seed) throw UserError("--seed {}: has an effect with --features random alone", *option.seed);
  if (!std::filesystem::is_regular_file(option.features))
    throw UserError("--features {}: no such file; expected {}, or `random`", option.features, kFeatureFile);
  return Inception::load(option.features, option.name);
}

}  // namespace varscale::apps
