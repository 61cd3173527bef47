#include "sweep/evaluation.hpp"

#include <fmt/format.h>

#include <set>
#include <utility>

namespace varscale::sweep {

std::string misfit(const EvaluationConfig& config, const TokenFacts& tokens) {
  for (const auto& [key, images] : {std::pair("images", config.images), std::pair("grid_images", config.grid_images)})
    if (images % tokens.classes != 0)
      return fmt::format("evaluate.{} is {}, expected a multiple of the {} classes", key, images, tokens.classes);
  if (config.top_k > tokens.space.vocabulary)
    return fmt::format("evaluate.top_k is {}, expected at most {}, the size of the vocabulary", config.top_k,
                       tokens.space.vocabulary);
  return {};
}

std::optional<EvaluationConfig> read_evaluation(const base::Node& node, base::Faults& faults) {
  if (!node.present()) return std::nullopt;
  auto config = base::read_config<EvaluationConfig>(node, faults);
  if (node.kind() != base::Node::Kind::kMap) {
    if (node.kind() == base::Node::Kind::kNull)
      faults.add(node.where(),
                 fmt::format("{} is empty, expected tokenizer, reference, features and images", node.path()));
    return config;
  }
  for (const char* key : {"tokenizer", "reference", "features", "images"})
    if (!node.child(key).present()) faults.add(node.where(), fmt::format("{}.{} is not set", node.path(), key));
  const auto unused = [&](const char* key, const char* why) {
    if (const base::Node child = node.child(key); child.present())
      faults.add(child.where(), fmt::format("unused key {}: {}", child.path(), why));
  };
  if (config.random_features()) unused("name", "random weights have a name already");
  else unused("feature_seed", "features is not random");
  if (config.cfg_grid.empty()) {
    unused("grid_images", "there is no cfg_grid");
    unused("grid_seed", "there is no cfg_grid");
    return config;
  }
  const base::Node grid = node.child("cfg_grid");
  if (std::set(config.cfg_grid.begin(), config.cfg_grid.end()).size() != config.cfg_grid.size())
    faults.add(grid.where(), fmt::format("{} names a value twice", grid.path()));
  if (config.cfg_grid.size() < 2)
    faults.add(grid.where(), fmt::format("{} has one value, expected at least two to choose from", grid.path()));
  if (config.grid_seed == config.seed)
    faults.add(grid.where(), fmt::format("{}: grid_seed is seed, {}; expected another one, so that the samples which "
                                         "choose are not those that are scored",
                                         grid.path(), config.seed));
  if (config.grid_images > 0 && config.grid_images < 4)
    faults.add(grid.where(),
               fmt::format("{}: grid_images is {}, expected at least 4", grid.path(), config.grid_images));
  return config;
}

}  // namespace varscale::sweep
