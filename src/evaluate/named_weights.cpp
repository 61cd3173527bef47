#include "evaluate/named_weights.hpp"

#include <ATen/ATen.h>
#include <fmt/ranges.h>

#include <set>
#include <vector>

#include "archives/state_file.hpp"
#include "base/config.hpp"
#include "base/error.hpp"

namespace varscale::evaluate {

using base::UserError;

namespace {

std::set<std::string, std::less<>> names_of(const nn::NamedTensors& state) {
  std::set<std::string, std::less<>> names;
  for (const auto& [name, tensor] : state) names.insert(name);
  return names;
}

}  // namespace

bool is_counter(std::string_view name) { return name.ends_with(".num_batches_tracked"); }

StateOnDisk read_state(const std::filesystem::path& path, const nn::NamedTensors& state) {
  const auto file = archives::StateFile::open(path);
  const auto known = names_of(state);
  StateOnDisk result{.weights = {}, .where = file.where()};
  for (const auto& [name, stored] : file.tensors())
    result.weights[name] = known.contains(name) ? nn::load_tensor(file, name) : Tensor();
  return result;
}

void check_state(const NamedWeights& weights, const nn::NamedTensors& state, const std::string& where,
                 const NetworkWords& words) {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : weights) names.push_back(name);
  for (const auto& [name, tensor] : state) {
    const auto found = weights.find(name);
    if (found == weights.end()) {
      if (is_counter(name)) continue;
      throw UserError("{}: holds no tensor {}{}; expected {}", where, name, base::did_you_mean(name, names),
                      words.expected);
    }
    if (found->second.sizes() != tensor.sizes())
      throw UserError("{}: {} has shape [{}], expected [{}]", where, name, fmt::join(found->second.sizes(), ", "),
                      fmt::join(tensor.sizes(), ", "));
  }
  const auto known = names_of(state);
  for (const std::string& name : names)
    if (!known.contains(name))
      throw UserError("{}: unexpected tensor {}; {} has none of that name", where, name, words.name);
}

Tensor finite_weight(const NamedWeights& weights, const std::string& name, const std::string& where) {
  const Tensor& stored = weights.find(name)->second;
  if (!stored.is_floating_point())  // quantised: other numbers than the network's
    throw UserError("{}: {} has dtype {}, expected floating point", where, name, at::toString(stored.scalar_type()));
  const Tensor tensor = stored.to(at::kFloat).contiguous();
  if (!tensor.isfinite().all().item<bool>())
    throw UserError("{}: {} holds a value that is not a finite number", where, name);
  return tensor;
}

FoldedConvolution fold_norm(const Tensor& weight_OIkk, const Tensor& gamma_O, const Tensor& beta_O,
                            const Tensor& mean_O, const Tensor& variance_O, double eps) {
  const Tensor scale_O = gamma_O.to(at::kDouble) / (variance_O.to(at::kDouble) + eps).sqrt();
  return {(weight_OIkk.to(at::kDouble) * scale_O.view({-1, 1, 1, 1})).to(at::kFloat),
          (beta_O.to(at::kDouble) - mean_O.to(at::kDouble) * scale_O).to(at::kFloat)};
}

}  // namespace varscale::evaluate
