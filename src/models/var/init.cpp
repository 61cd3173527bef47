// Initial weights and the random choices of training: all counter-based.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "base/error.hpp"
#include "base/random.hpp"
#include "models/var/model.hpp"

namespace varscale::models {

namespace {

// The deviation of a parameter's elements; of an AdaLN projection the gates come first, with their
// own.
struct Rule {
  double deviation = 0;
  double gate_deviation = 0;
  int64_t gate_elements = 0;
  double constant = 0;  // used where deviation is 0
};

Rule rule_for(const std::string& name, const scaling::VarShape& shape, const InitOptions& options,
              double std) {
  const int64_t C = shape.width;
  const double to_residual = 1 / std::sqrt(2.0 * static_cast<double>(shape.depth));
  if (name.ends_with("scale_mul_1H11")) return {.constant = std::log(4.0)};
  if (name.ends_with("bias")) return {};
  if (name.ends_with("attn.proj.weight") || name.ends_with("ffn.fc2.weight"))
    return {.deviation = std * to_residual};
  if (name == "head.weight") return {.deviation = std * options.head};
  if (name == "head_nm.ada_lin.1.weight") return {.deviation = std * options.adaln};
  if (name.ends_with("ada_gss")) {
    const double base = 1 / std::sqrt(static_cast<double>(C));
    return {.deviation = base * options.adaln,
            .gate_deviation = base * options.adaln_gamma,
            .gate_elements = 2 * C};
  }
  // The public code scales the rows of each block's own projection, and leaves a shared one as it
  // is.
  if (name.starts_with("blocks.") && name.ends_with("ada_lin.1.weight")) {
    return {.deviation = std * options.adaln,
            .gate_deviation = std * options.adaln_gamma,
            .gate_elements = 2 * C * C};
  }
  return {.deviation = std};
}

}  // namespace

void fill_initial(const std::string& name, const scaling::VarShape& shape,
                  const InitOptions& options, int64_t first, const Tensor& out_P) {
  VARSCALE_CHECK(out_P.is_contiguous() && out_P.scalar_type() == at::kFloat,
                 "{}: initial values are filled into contiguous float32", name);
  at::NoGradGuard no_grad;
  const double std =
      options.std < 0 ? std::sqrt(1.0 / (3.0 * static_cast<double>(shape.width))) : options.std;
  const Rule rule = rule_for(name, shape, options, std);
  if (rule.deviation == 0 && rule.gate_elements == 0) {
    out_P.fill_(rule.constant);
    return;
  }
  const Tensor values = out_P.is_cpu() ? out_P : at::empty(out_P.sizes(), at::kFloat);
  const base::RandomStream stream(options.seed, "init", name);
  float* out = values.data_ptr<float>();
  const int64_t end = first + out_P.numel();
  const int64_t gates = std::clamp(rule.gate_elements, first, end);  // the gates lie before
  auto fill = [&](int64_t begin, int64_t stop, double deviation) {
    stream.fill_normal(out + (begin - first), static_cast<uint64_t>(begin),
                       static_cast<uint64_t>(stop - begin), static_cast<float>(deviation));
  };
  fill(first, gates, rule.gate_deviation);
  fill(gates, end, rule.deviation);
  if (!out_P.is_cpu()) out_P.copy_(values);
}

void Var::initialise(const InitOptions& options) {
  for (const nn::NamedTensor& parameter : parameters_)
    fill_initial(parameter.name, shape_, options, 0, parameter.tensor.detach());
}

Tensor drop_path_factors(const scaling::VarShape& shape, uint64_t seed, int64_t step,
                         const std::vector<int64_t>& sample_ids) {
  if (shape.drop_path <= 0) return {};
  const auto B = static_cast<int64_t>(sample_ids.size());
  Tensor factors_SB = at::ones({2 * shape.depth, B}, at::kFloat);
  auto factors = factors_SB.accessor<float, 2>();
  const base::RandomStream stream(seed, "drop_path", static_cast<uint64_t>(step));
  const auto sites = static_cast<uint64_t>(2 * shape.depth);
  for (int64_t site = 0; site < 2 * shape.depth; ++site) {
    const double rate = shape.drop_path_at(site / 2);
    if (rate <= 0) continue;
    const auto kept = static_cast<float>(1 / (1 - rate));
    for (int64_t b = 0; b < B; ++b) {
      const uint64_t index =
          static_cast<uint64_t>(sample_ids[b]) * sites + static_cast<uint64_t>(site);
      factors[site][b] = stream.uniform(index) < rate ? 0.0F : kept;
    }
  }
  return factors_SB;
}

Tensor drop_labels(const Tensor& labels_B, int64_t classes, double rate, uint64_t seed,
                   int64_t step, const std::vector<int64_t>& sample_ids) {
  Tensor dropped_B = labels_B.clone();
  auto labels = dropped_B.accessor<int64_t, 1>();
  VARSCALE_CHECK(labels.size(0) == static_cast<int64_t>(sample_ids.size()),
                 "{} labels for {} samples", labels.size(0), sample_ids.size());
  const base::RandomStream stream(seed, "label_drop", static_cast<uint64_t>(step));
  for (int64_t b = 0; b < labels.size(0); ++b) {
    if (stream.uniform(static_cast<uint64_t>(sample_ids[b])) < rate) labels[b] = classes;
  }
  return dropped_B;
}

}  // namespace varscale::models
